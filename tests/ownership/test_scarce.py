"""Where the machine gives no more: descriptors, threads. Fewer means, the same end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from _leaks import is_alive
from family_adapters import SyncFamily
from ownership_kit import PATIENCE_S, env_for_hosts, pid_of

from snakepit import Stop, WorkerDiedError, open_pool
from snakepit.process import StderrCollector, _in_thread, _strays, new_mark
from snakepit.procfs import VARIABLE, end_marked, kill_descendants, read_process
from snakepit.worker import _offspring

BRISK = Stop(cancel_grace=0.2, term_grace=0.2, drain_timeout=2)
MANY = 40
PARENT = "for _ in $(seq {count}); do setsid sleep 1000 & done; echo; exec sleep 1000"
# A loop that is left, with the pool in it: what `run_forever` does at Ctrl+C, say.
ABANDONED = """
import asyncio, snakepit

async def main():
    async with snakepit.open_pool(size=1) as pool:
        loop.call_later(0.1, loop.stop)  # the sweep has its thread by then
        await asyncio.sleep(1000)

loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_forever()
"""


@contextmanager
def descriptors(left: int) -> Generator[None]:
    """So many more can be opened in this block, and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[0]), limits[1]))
    try:
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        for _ in range(left):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextmanager
def crowd() -> Generator[tuple[subprocess.Popen[bytes], list[int], str]]:
    """A process with many below it, each in a session of its own; and their mark."""
    mark = new_mark()
    assert mark is not None
    command = ["sh", "-c", PARENT.format(count=MANY)]
    env = {"PATH": os.environ["PATH"], VARIABLE: str(mark)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        assert parent.stdout is not None
        try:
            parent.stdout.readline()
            yield parent, [int(pid) for pid in children.read_text().split()], mark.instance
        finally:
            parent.kill()


def lives(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and not process.is_dead


def test_a_few_descriptors_are_enough_to_end_any_number_below_a_process() -> None:
    with crowd() as (parent, pids, _):
        assert len(pids) == MANY
        with descriptors(left=2):
            parent.send_signal(signal.SIGSTOP)
            assert kill_descendants(parent.pid) == []
            assert not any(map(lives, pids))


def test_a_few_descriptors_are_enough_to_end_any_number_that_bears_a_mark() -> None:
    with crowd() as (parent, pids, instance):
        with descriptors(left=2):
            ended, left = end_marked(lambda mark: mark.instance == instance, 0.0)
        assert left == []
        assert parent.pid in ended  # those in the midst of their exec ended as its descendants
        assert not any(map(lives, pids))


@one_loop_each
async def test_a_call_ends_in_a_host_that_has_no_descriptor_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What has left the worker's group cannot be found then; it is, once that is possible."""
    options: dict[str, Any] = {
        "size": 1,
        "adapter_args": (str(tmp_path),),
        "stop": BRISK,
        "sweep": False,
    }
    with anyio.fail_after(40):
        async with open_pool(SyncFamily, **options) as pool:
            await pool.execute("start", {"kinds": ["session"]})
            busy = tmp_path / f"busy-{await pool.execute('pid')}"
            with descriptors(left=0):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(pool.execute, "hold_gil")
                    while not busy.exists():
                        await anyio.sleep(0.005)
                    tasks.cancel_scope.cancel()
            assert "left behind cannot be found" in caplog.text
            (stray,) = (pid_of(path) for path in tmp_path.glob("session-*"))
            assert is_alive(stray)
        assert not is_alive(stray)


def test_what_would_not_die_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    """By the host, and by the worker to its stderr."""
    monkeypatch.setattr(_strays, "kill_marked", lambda _instances: [4711, 4712])
    _strays.end_strays("an instance")
    assert "would not die: 4711, 4712" in caplog.text
    monkeypatch.setattr(_offspring, "kill_descendants", lambda *_args: [4713])
    begun = _offspring.now()
    with subprocess.Popen(["sleep", "1000"]):
        _offspring.Offspring().end_since(begun, 1.0)
    assert "would not die: 4713" in capfd.readouterr().err


def test_what_ends_side_by_side_is_looked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look reads the whole table of processes."""
    looks: list[frozenset[str]] = []
    first_looks, all_wait = threading.Event(), threading.Event()

    def look(instances: frozenset[str]) -> list[int]:
        looks.append(instances)
        first_looks.set()
        assert all_wait.wait(PATIENCE_S)
        return []

    monkeypatch.setattr(_strays, "kill_marked", look)
    ends = [threading.Thread(target=_strays.end_strays, args=(name,)) for name in "abcd"]
    ends[0].start()
    assert first_looks.wait(PATIENCE_S)
    for thread in ends[1:]:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(_strays._unsearched) < len(ends) and time.monotonic() < deadline:
        time.sleep(0.001)
    all_wait.set()
    for thread in ends:
        thread.join()
    assert looks == [{"a"}, {"b", "c", "d"}]
    assert not _strays._unsearched


@one_loop_each
async def test_without_another_thread_the_work_is_done_in_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    done: list[str] = []
    await _in_thread.in_thread(lambda: done.append(threading.current_thread().name))
    assert done == [threading.current_thread().name]


@one_loop_each
async def test_an_error_in_the_thread_is_raised_here() -> None:
    def fail() -> None:
        raise OSError("no descriptors")

    with pytest.raises(OSError, match="no descriptors"):
        await _in_thread.in_thread(fail)


def test_a_program_that_leaves_its_loop_with_a_pool_open_comes_to_its_end() -> None:
    """No thread of ours keeps it alive, and its workers notice."""
    program = subprocess.run(
        [sys.executable, "-c", ABANDONED],
        env=env_for_hosts(),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert program.returncode == 0, program.stderr


@one_loop_each
async def test_the_callers_of_a_worker_whose_burial_fails_do_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong here, it is told, and nobody hangs."""

    def fail(_self: StderrCollector) -> None:
        raise RuntimeError("a bug")

    raised: list[str] = []

    with anyio.fail_after(40), pytest.raises(ExceptionGroup) as caught:
        async with open_pool(SyncFamily, size=1, adapter_args=(str(tmp_path),)) as pool:
            monkeypatch.setattr(StderrCollector, "finish", fail)
            try:
                await pool.execute("start_and_die", {"kinds": []})
            except WorkerDiedError as error:
                raised.append(error.reason)
                await anyio.sleep_forever()
    assert raised == ["died"]
    assert caught.group_contains(RuntimeError, match="a bug")
