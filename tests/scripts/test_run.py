"""`snakepit.run`: real programs, their signals, their exit codes, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from _backends import one_loop_each
from _leaks import is_alive

import snakepit

pytestmark = one_loop_each

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE_S = 45

both_loops = pytest.mark.parametrize("loop", ["trio", "asyncio"])


class Program:
    """A program of `programs.py` that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pids: list[int] = []
        self.printed = ""

    def read(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def read_pids(self) -> None:
        self.pids = [int(word) for word in self.read().split()]
        assert len(self.pids) == 1

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def insist(self, number: signal.Signals) -> None:
        """Send the signal three times. Signals that come too close to each other are one."""
        for _ in range(3):
            with suppress(subprocess.TimeoutExpired):
                self.send(number)
                self._process.wait(0.2)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it wrote to stderr; no worker is left by then."""
        self.printed, stderr = self._process.communicate(timeout=PATIENCE_S)
        if self.pids:
            _wait_until(
                lambda: not any(map(is_alive, self.pids))
            )  # one that was killed takes a moment
        return self._process.returncode, stderr


@contextmanager
def running(*arguments: str, **how: Any) -> Generator[Program]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "programs.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )
    with process:
        try:
            yield Program(process)
        finally:
            process.kill()


# -- main ends by itself ---------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize(("given", "code"), [([], 0), (["7"], 7)])
def test_what_main_returns_is_the_exit_code(loop: str, given: list[str], code: int) -> None:
    with running("returns", loop, *given) as program:
        program.read_pids()
        assert program.end() == (code, "")


@both_loops
def test_an_exception_is_shown_as_the_interpreter_shows_it_and_is_1(loop: str) -> None:
    """Without frames of ours before the program's own."""
    with running("raises", loop) as program:
        program.read_pids()
        code, stderr = program.end()
    assert code == 1
    lines = stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "programs.py" in lines[1]
    assert lines[-1] == "LookupError: the sky"


@both_loops
@pytest.mark.parametrize(("what", "code", "stderr"), [("3", 3, ""), ("too bad", 1, "too bad\n")])
def test_sys_exit_is_its_code_also_out_of_a_task_group(
    loop: str, what: str, code: int, stderr: str
) -> None:
    with running("exits", loop, what) as program:
        program.read_pids()
        assert program.end() == (code, stderr)


@both_loops
def test_a_keyboard_interrupt_of_mains_own_is_130(loop: str) -> None:
    with running("interrupts", loop) as program:
        program.read_pids()
        assert program.end() == (130, "")


def test_sys_exit_in_a_task_of_asyncio_is_its_code_too() -> None:
    with running("exits_in_a_task", "asyncio") as program:
        program.read_pids()
        assert program.end()[0] == 9


def test_a_pool_in_a_task_that_asyncio_cancels_in_the_end_is_closed() -> None:
    with running("leaves_a_task", "asyncio") as program:
        program.read_pids()
        assert program.end()[0] == 0


# -- signals ---------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_main_which_cleans_up(loop: str, number: signal.Signals) -> None:
    """No traceback; every tool has stopped and every worker is gone."""
    with running("waits", loop) as program:
        program.read_pids()
        program.send(number)
        assert program.end() == (128 + number, "")
    assert program.printed == "cleaned up\n"


def test_asyncio_is_cancelled_once_so_that_a_clean_up_may_await() -> None:
    with running("cleans_up_without_a_shield", "asyncio") as program:
        assert program.read() == "running"
        program.send(signal.SIGTERM)
        assert program.end() == (143, "")
    assert program.printed == "cleaned up\n"


@both_loops
def test_a_main_that_comes_to_an_end_of_its_own_after_a_signal_counts(loop: str) -> None:
    with running("goes_on_to_an_end_of_its_own", loop) as program:
        program.read_pids()
        program.send(signal.SIGTERM)
        assert program.end() == (5, "")


@both_loops
def test_an_error_in_the_clean_up_is_an_error(loop: str) -> None:
    with running("fails_to_clean_up", loop) as program:
        program.read_pids()
        program.send(signal.SIGINT)
        code, stderr = program.end()
    assert code == 1
    assert stderr.splitlines()[-1].strip(" |") == "LookupError: the sky"


@both_loops
def test_a_second_signal_kills_the_workers_that_do_not_go(loop: str, tmp_path: Path) -> None:
    """Their own ladder would last an hour."""
    log = tmp_path / "log"
    with running("has_workers_that_do_not_go", loop, str(log)) as program:
        program.read_pids()
        program.send(signal.SIGTERM)
        _wait_until(log.exists)  # the tool has been asked: so main has been cancelled
        program.send(signal.SIGTERM)
        code, stderr = program.end()
    assert code == 143
    assert "workers killed, for they did not close: 1" in stderr


@both_loops
def test_after_shutdown_timeout_the_workers_are_killed(loop: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running("has_workers_that_do_not_go", loop, str(log), "shutdown_timeout=0.3") as program:
        program.read_pids()
        program.send(signal.SIGTERM)
        code, stderr = program.end()
    assert code == 143
    assert "workers killed, for they did not close: 1" in stderr


@both_loops
def test_signals_end_a_program_that_ignores_its_cancellation(loop: str) -> None:
    with running("does_not_end", loop) as program:
        program.read_pids()
        program.insist(signal.SIGINT)
        code, stderr = program.end()
    assert code == 130
    assert "main did not end" in stderr


@both_loops
def test_signals_end_a_program_whose_loop_does_not_turn_and_show_where(loop: str) -> None:
    """What it has printed is not lost."""
    with running("blocks_its_loop", loop) as program:
        program.read_pids()
        assert program.read() == "blocked"
        program.insist(signal.SIGTERM)
        code, stderr = program.end()
    assert code == 143
    assert "main did not end" in stderr
    assert "in blocks_its_loop" in stderr
    assert program.printed == "not flushed\n"


@both_loops
def test_after_cleanup_timeout_a_program_that_hangs_is_ended(loop: str) -> None:
    limits = ["shutdown_timeout=0.1", "cleanup_timeout=0.1"]
    with running("blocks_its_loop", loop, *limits) as program:
        program.read_pids()
        program.send(signal.SIGTERM)
        code, stderr = program.end()
    assert code == 143
    assert "main did not end" in stderr


def test_what_main_leaves_to_the_loop_is_waited_for_no_longer_than_a_shutdown() -> None:
    """asyncio waits for the threads of its executor; the exit code is main's all the same."""
    limits = ["shutdown_timeout=0.1", "cleanup_timeout=0.1"]
    with running("leaves_a_thread", "asyncio", *limits) as program:
        assert program.read() == "running"
        code, stderr = program.end()
    assert code == 4
    assert "main did not end" in stderr


@both_loops
def test_a_main_whose_time_is_up_is_cancelled_and_124(loop: str) -> None:
    """Before its pool is open, or after; in both cases nothing is left."""
    with running("waits", loop, "timeout=0.7") as program:
        assert program.end() == (124, "")
    assert program.printed.splitlines()[-1] == "cleaned up"


@both_loops
def test_a_forked_child_dies_of_a_signal_as_any_other(loop: str) -> None:
    with running("forks", loop) as program:
        assert int(program.read()) == -signal.SIGTERM
        assert program.end()[0] == 0


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with running("tells_handlers", "trio", preexec_fn=ignore) as program:
        assert [program.read(), program.read()] == ["True", "True"]
        assert program.end() == (0, "")


@both_loops
def test_a_program_whose_stdout_nobody_reads_ends_with_an_error(loop: str) -> None:
    """It does not hang, and no worker is left."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nowhere:
        found = subprocess.run(
            [sys.executable, str(HERE / "programs.py"), "returns", loop],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=nowhere,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert found.returncode != 0
    assert "BrokenPipeError" in found.stderr


# -- what a caller gets wrong ----------------------------------------------------------------------


async def nothing() -> None:
    await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("backend", "curio"),
        ("timeout", 0),
        ("timeout", True),
        ("timeout", "1"),
        ("shutdown_timeout", -1),
        ("cleanup_timeout", float("inf")),
        ("cleanup_timeout", float("nan")),
    ],
)
def test_a_wrong_option_is_named(option: str, value: Any) -> None:
    with pytest.raises(snakepit.ConfigError) as caught:
        snakepit.run(nothing, **{option: value})
    assert caught.value.option == option


def test_a_coroutine_in_place_of_its_function_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"run\(main\), not run\(main\(\)\)"):
        snakepit.run(nothing())  # type: ignore[arg-type]


@both_loops
def test_a_plain_function_is_refused_with_what_to_write(loop: str) -> None:
    with pytest.raises(TypeError, match="is a plain one: make it `async def`"):
        snakepit.run(lambda: 0, backend=loop)  # type: ignore[arg-type,return-value]


async def give(value: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return value


@both_loops
@pytest.mark.parametrize("value", [True, False, "done", 1.5])
def test_a_return_that_is_no_exit_code_is_refused(loop: str, value: Any) -> None:
    with pytest.raises(TypeError, match="None or an exit code"):
        snakepit.run(give, value, backend=loop)


async def test_inside_an_event_loop_it_says_that_one_runs_already() -> None:
    with pytest.raises(RuntimeError, match="already running here"):
        snakepit.run(nothing)


async def test_outside_of_the_main_thread_it_says_what_to_do_instead() -> None:
    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match=r"main thread; elsewhere use trio\.run"):
            snakepit.run(nothing)

    await anyio.to_thread.run_sync(elsewhere)


def test_it_gives_the_handlers_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert snakepit.run(give, 3) == 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def _wait_until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        with anyio.fail_after(PATIENCE_S / 2):
            while not condition():
                await anyio.sleep(0.005)

    anyio.run(wait)
