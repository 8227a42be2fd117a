"""What keeps a pool from starting is said clearly, and nothing is left of the attempt."""

from __future__ import annotations

import os
import sys
import venv
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from _leaks import is_alive
from adapters import BadConstructor, BadStart, NotAnAdapter, NoTools, Tools
from pool_kit import pids, run_python, run_script, until

from snakepit import (
    ConfigError,
    CrashBarrier,
    Queue,
    Startup,
    Stop,
    WorkerStartError,
    open_pool,
    open_pool_sync,
)

pytestmark = one_loop_each

QUICK = Stop(cancel_grace=0.1, term_grace=0.3, drain_timeout=0.5)


async def start_error(adapter: Any = None, /, **options: Any) -> WorkerStartError:
    """Open a pool that cannot start and return what it says."""
    options = {"size": 1, "stop": QUICK} | options
    with anyio.fail_after(20):
        with pytest.raises(WorkerStartError) as caught:
            async with open_pool(adapter, **options):
                pytest.fail("the block was entered")
    return caught.value


async def config_error(adapter: Any = None, /, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        async with open_pool(adapter, **options):
            pytest.fail("the block was entered")
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.option in str(error)
    assert error.allowed in str(error)
    return error


# An adapter that is not there, or not one


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no_such_module_anywhere:Tools", ["ModuleNotFoundError", "no_such_module_anywhere"]),
        ("adapterz:Tools", ["adapterz", "did you mean 'adapters'"]),
        ("adapters:Toolz", ["AttributeError", "'Toolz'", "did you mean 'Tools'"]),
        ("adapters:FOREVER_S", ["TypeError", "float, not a class or a module"]),
    ],
)
async def test_an_adapter_that_does_not_exist_is_named(spec: str, words: list[str]) -> None:
    error = await start_error(spec)
    for word in words:
        assert word in str(error)
    assert error.worker_id == "default-1.1"
    assert (error.exit_code, error.signal) == (1, None)


async def test_an_adapter_whose_import_fails_shows_the_line_that_failed(tmp_path: Path) -> None:
    """The worker's own traceback, with the file, the line and the cause."""
    file = tmp_path / "broken.py"
    file.write_text("import os\n\nimport a_library_that_is_missing\n", encoding="utf-8")
    error = await start_error(f"{file}:Adapter")
    assert error.reason == ("ModuleNotFoundError: No module named 'a_library_that_is_missing'")
    assert f'File "{file}", line 3' in error.traceback
    assert f'File "{file}", line 3' in str(error)
    file.write_text("def broken(:\n", encoding="utf-8")
    assert "SyntaxError" in str(await start_error(f"{file}:Adapter"))
    file.write_text("raise SystemExit('not today')\n", encoding="utf-8")
    assert "not today" in str(await start_error(f"{file}:Adapter"))


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (BadConstructor, ["ZeroDivisionError: built wrongly", "adapters.py"]),
        (NoTools, ["ConfigError", "no @tool"]),
        (NotAnAdapter, ["TypeError", "needed"]),
    ],
)
async def test_a_class_that_cannot_serve_says_why(adapter: type, words: list[str]) -> None:
    error = await start_error(adapter)
    for word in words:
        assert word in str(error)


# initialize


async def test_an_initialize_that_raises_is_shown_with_its_traceback() -> None:
    error = await start_error(BadStart, adapter_args=("raise",))
    assert error.reason == "LookupError: no model here"
    assert "adapters.py" in error.traceback
    assert "in initialize" in error.traceback
    assert error.exit_code == 1


async def test_an_initialize_that_hangs_is_ended_and_shows_where_it_stood() -> None:
    """After `init_timeout`: the stack of the worker, down to the line that hung."""
    error = await start_error(BadStart, adapter_args=("hang",), startup=Startup(init_timeout=0.6))
    assert "did not get ready within 0.6 s" in error.reason
    assert "hang_in_here" in error.traceback
    assert "initialize" in error.traceback
    assert "adapters.py" in str(error)


async def test_an_initialize_that_hangs_and_refuses_sigterm_is_killed() -> None:
    error = await start_error(BadStart, adapter_args=("ignore",), startup=Startup(init_timeout=0.6))
    assert "hang_in_here" in error.traceback


@pytest.mark.parametrize(
    ("how", "exit_code", "number", "words"),
    [
        ("exit", 6, None, ["ended before it was ready", "exited with code 6", "about to exit"]),
        ("die", None, 9, ["ended before it was ready", "SIGKILL"]),
        ("sys.exit", 1, None, ["SystemExit: 8", "in initialize"]),
    ],
)
async def test_a_worker_that_ends_in_initialize_says_how(
    how: str, exit_code: int | None, number: int | None, words: list[str]
) -> None:
    error = await start_error(BadStart, adapter_args=(how,))
    assert (error.exit_code, error.signal) == (exit_code, number)
    for word in words:
        assert word in str(error)


# Interpreters and commands


async def test_an_interpreter_that_does_not_exist_is_a_wrong_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for python in ("/no/such/python", "no-such-python", str(tmp_path)):
        error = await config_error(Tools, python=python)
        assert (error.option, error.value) == ("python", python)
    monkeypatch.setenv("SNAKEPIT_PYTHON", "/no/such/python")
    assert (await config_error(Tools)).option == "python"


async def test_an_interpreter_without_the_package_shows_its_complaint(tmp_path: Path) -> None:
    """A bare venv: what it wrote to stderr is in the error."""
    await anyio.to_thread.run_sync(lambda: venv.create(tmp_path / "bare", with_pip=False))
    python = tmp_path / "bare" / "bin" / "python"
    error = await start_error(Tools, python=python, env={"PYTHONPATH": ""})
    assert "ended before it was ready" in error.reason
    assert error.exit_code == 1
    assert "No module named" in error.stderr_tail
    assert "No module named" in str(error)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["true"], "it ended before it was ready (exited with code 0)"),
        (["false"], "it ended before it was ready (exited with code 1)"),
        (["echo", "hello"], "what it wrote is not the snakepit protocol"),
        (["sh", "-c", "yes garbage"], "what it wrote is not the snakepit protocol"),
        (["head", "-c", "100000", "/dev/zero"], "what it wrote is not the snakepit protocol"),
        (["cat"], "it did not say hello within 0.5 s"),
        (["sleep", "60"], "it did not say hello within 0.5 s"),
        (["sh", "-c", "echo why >&2; exit 3"], "it ended before it was ready (exited with code 3)"),
    ],
)
async def test_a_command_that_is_no_worker_is_found_out(command: list[str], reason: str) -> None:
    error = await start_error(command=command, startup=Startup(timeout=0.5))
    assert error.reason.startswith(reason)
    if command[-1].startswith("echo why"):
        assert error.stderr_tail == "why"


async def test_a_command_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    error = await start_error(command=["/no/such/program"])
    assert "/no/such/program" in error.reason
    assert "No such file" in error.reason
    plain = tmp_path / "plain"
    plain.write_text("text", encoding="utf-8")
    error = await start_error(command=[str(plain)])
    assert str(plain) in error.reason
    assert "Permission denied" in error.reason


# Options


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"size": 0}, "size"),
        ({"size": -1}, "size"),
        ({"size": 1.5}, "size"),
        ({"size": True}, "size"),
        ({"size": "2"}, "size"),
        ({"min_ready": -1}, "min_ready"),
        ({"size": 2, "min_ready": 3}, "min_ready"),
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"transport": "telepathy"}, "transport"),
        ({"transport": 3}, "transport"),
        ({"tool_backend": "curio"}, "tool_backend"),
        ({"call_timeout": 0}, "call_timeout"),
        ({"call_timeout": float("inf")}, "call_timeout"),
        ({"call_timeout": "1"}, "call_timeout"),
        ({"call_timeout": 10**400}, "call_timeout"),
        ({"startup": 10}, "startup"),
        ({"queue": None}, "queue"),
        ({"stop": {}}, "stop"),
        ({"crash_barrier": "never"}, "crash_barrier"),
        ({"env": {"A": 1}}, "env"),
        ({"env": {"A=B": "1"}}, "env"),
        ({"env": {"A": "nul\0"}}, "env"),
        ({"env": {"A": "\ud800"}}, "env"),
        ({"env": [("A", "1")]}, "env"),
        ({"cwd": "/no/such/folder"}, "cwd"),
        ({"cwd": "nul\0"}, "cwd"),
        ({"cwd": 0}, "cwd"),
        ({"cwd": sys.executable}, "cwd"),
        ({"adapter_args": "text"}, "adapter_args"),
        ({"adapter_args": (lambda: None,)}, "adapter_args"),
        ({"command": []}, "command"),
        ({"command": "python -m x"}, "command"),
        ({"command": ["cat", 3]}, "command"),
        ({"command": ["cat", "nul\0"]}, "command"),
        ({"command": ["\ud800"]}, "command"),
        ({"python": 3}, "python"),
        ({"name": "\udcff"}, "name"),
        ({"command": ["cat"], "python": sys.executable}, "python"),
    ],
)
async def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], option: str) -> None:
    """The error has the option, the value and what is allowed."""
    error = await config_error(**options)
    assert error.option == option
    given = options[option]
    assert error.value == given


async def test_an_adapter_and_a_command_exclude_each_other() -> None:
    assert (await config_error(Tools, command=["cat"])).option == "command"


@pytest.mark.parametrize(
    "adapter",
    [3, Tools(), "", ":", "adapters:", "adapters:1x", "no/such/file.py:Tools", "a b:c", print],
)
async def test_an_adapter_of_no_known_form_is_refused_by_the_host(adapter: Any) -> None:
    error = await config_error(adapter)
    assert error.option == "adapter"
    assert error.value is adapter


async def test_a_path_that_is_no_utf8_is_refused_and_does_no_harm_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such bytes fit no message: as an adapter's path it is an error, in `sys.path` left out."""
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    file = os.fsdecode(folder + b"/adapter.py")
    Path(file).write_text("from snakepit import tool\n", encoding="utf-8")
    error = await config_error(file)
    assert (error.option, error.value) == ("adapter", file)
    monkeypatch.syspath_prepend(os.fsdecode(folder))
    async with open_pool(Tools, size=1) as pool:
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_a_class_out_of_a_workers_reach_is_refused_by_the_host() -> None:
    class Local(Tools):
        pass

    error = await config_error(Local)
    assert error.option == "adapter"
    assert "module level" in error.allowed


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (Startup, "timeout", 0),
        (Startup, "init_timeout", -1),
        (Startup, "batch_size", 0),
        (Startup, "batch_delay", -0.1),
        (Queue, "max_size", -1),
        (Queue, "max_size", 1.5),
        (Queue, "timeout", 0),
        (Stop, "cancel_grace", -1),
        (Stop, "term_grace", float("nan")),
        (Stop, "drain_timeout", "6"),
        (CrashBarrier, "max_restarts", -1),
        (CrashBarrier, "window", 0),
        (CrashBarrier, "retry", "always"),
        (CrashBarrier, "max_retries", True),
        (CrashBarrier, "taint", None),
    ],
)
def test_a_wrong_value_in_an_option_class_is_refused_by_name(
    kind: Any, option: str, value: object
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**{option: value})
    assert caught.value.option == f"{kind.__name__}.{option}"
    assert caught.value.value is value
    assert caught.value.allowed in str(caught.value)


async def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="heartbreak"):
        async with open_pool(Tools, heartbreak=1):  # type: ignore[call-arg]
            pytest.fail("the block was entered")


# Scripts

SCRIPT = """
import sys, trio, snakepit

class Mine(snakepit.Adapter):
    @snakepit.tool
    def double(self, x: int) -> int:
        return 2 * x

async def main():
    async with snakepit.open_pool(Mine, size=2) as pool:
        print(await pool.execute("double", {{"x": 21}}))

{guard}trio.run(main)
"""


def test_a_class_in_the_main_module_of_a_guarded_script_works(tmp_path: Path) -> None:
    result = run_script(tmp_path, SCRIPT.format(guard='if __name__ == "__main__": '))
    assert (result.stdout, result.returncode) == ("42\n", 0), result.stderr


def test_a_class_in_the_main_module_of_a_package_works(tmp_path: Path) -> None:
    """`python -m package` too."""
    (tmp_path / "guarded").mkdir()
    source = SCRIPT.format(guard='if __name__ == "__main__": ')
    (tmp_path / "guarded" / "__main__.py").write_text(source, encoding="utf-8")
    result = run_python("-m", "guarded", PYTHONPATH=_with_path(tmp_path))
    assert (result.stdout, result.returncode) == ("42\n", 0), result.stderr


def _with_path(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, sys.path)])


def test_an_unguarded_script_is_told_to_guard_itself(tmp_path: Path) -> None:
    """Its worker imports it, comes to the pool, and says what is wrong; nothing is left over."""
    result = run_script(tmp_path, SCRIPT.format(guard=""))
    assert result.returncode == 1
    assert "42" not in result.stdout
    assert "WorkerStartError" in result.stderr
    assert 'if __name__ == "__main__"' in result.stderr
    last = result.stderr.strip().splitlines()
    assert any("opens a pool while it is imported" in line for line in last)


def test_a_class_typed_into_dash_c_is_refused_by_the_host() -> None:
    source = SCRIPT.format(guard="")
    result = run_python("-c", source)
    assert result.returncode == 1
    assert "ConfigError: adapter=<class '__main__.Mine'> is not possible" in result.stderr
    assert "python -c" in result.stderr
    assert "put it in a module or a file" in result.stderr


# Readiness


async def test_the_block_is_entered_when_min_ready_workers_are_ready(tmp_path: Path) -> None:
    """With 1 of 2 the pool serves; `ready()` waits for the other."""
    mark = tmp_path / "mark"
    with anyio.fail_after(20):
        async with open_pool(BadStart, size=2, adapter_args=("slow second", str(mark))) as pool:
            assert pool.stats().workers == 1
            assert isinstance(await pool.execute("pid"), int)
            with anyio.move_on_after(0.1) as scope:
                await pool.ready()
            assert scope.cancelled_caught
            Path(f"{mark}.release").touch()
            await pool.ready()
            assert pool.stats().workers == 2
            assert {worker.state for worker in pool.workers()} == {"ready"}


async def test_min_ready_of_all_waits_for_all(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    entered: list[int] = []
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:

            async def open_it() -> None:
                async with open_pool(
                    BadStart, size=2, min_ready=2, adapter_args=("slow second", str(mark))
                ) as pool:
                    entered.append(pool.stats().workers)

            tasks.start_soon(open_it)
            await until(Path(f"{mark}.d").exists)
            await anyio.sleep(0.2)
            assert entered == []
            Path(f"{mark}.release").touch()
    assert entered == [2]


async def test_min_ready_of_none_enters_at_once_and_calls_wait_for_a_worker(
    tmp_path: Path,
) -> None:
    """The tools are not known yet: an unknown one is refused by the worker, as not found."""
    with anyio.fail_after(20):
        async with open_pool(Tools, size=1, min_ready=0) as pool:
            assert pool.stats().workers == 0
            assert pool.tools() == {}
            assert await pool.execute("echo", {"value": 5}) == 5
            assert "echo" in pool.tools()


async def test_calls_in_a_pool_that_never_gets_a_worker_fail_when_it_breaks() -> None:
    """min_ready=0 and an adapter that cannot start: PoolBrokenError with the reason, no hang."""
    from snakepit import PoolBrokenError

    barrier = CrashBarrier(max_restarts=1)
    with anyio.fail_after(20):
        async with open_pool(
            BadStart, size=1, min_ready=0, adapter_args=("raise",), crash_barrier=barrier
        ) as pool:
            with pytest.raises(PoolBrokenError) as caught:
                await pool.execute("pid")
            assert "no model here" in str(caught.value)


async def test_one_worker_that_cannot_start_keeps_a_pool_that_needs_both_from_opening(
    tmp_path: Path,
) -> None:
    error = await start_error(
        BadStart, size=2, min_ready=2, adapter_args=("once", str(tmp_path / "mark"))
    )
    assert "only one may start" in str(error)


async def test_ready_raises_what_keeps_a_worker_from_starting(tmp_path: Path) -> None:
    barrier = CrashBarrier(max_restarts=0)
    with anyio.fail_after(20):
        async with open_pool(
            BadStart, size=2, adapter_args=("once", str(tmp_path / "mark")), crash_barrier=barrier
        ) as pool:
            with pytest.raises(WorkerStartError) as caught:
                await pool.ready()
            assert "only one may start" in str(caught.value)
            assert isinstance(await pool.execute("pid"), int)


# Cut short


@pytest.mark.parametrize("milliseconds", [0, 1, 3, 10, 30, 60, 100, 150, 250])
async def test_opening_that_is_cut_short_leaves_nothing(milliseconds: int) -> None:
    """At whatever moment of the start: the scope is caught and the leak checks find nothing."""
    found: list[int] = []
    with anyio.fail_after(15):
        with anyio.move_on_after(milliseconds / 1000) as scope:
            async with open_pool(BadStart, size=3, min_ready=3, adapter_args=("hang",)) as pool:
                found += pids(pool)
        assert scope.cancelled_caught
    assert found == []


async def test_opening_cancelled_at_each_of_its_checkpoints_leaves_nothing() -> None:
    """The k-th time that the loop gives others their turn, for each small k."""
    for k in range(25):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel(k: int = k, scope: anyio.CancelScope = scope) -> None:
                    for _ in range(k):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

                tasks.start_soon(cancel)
                async with open_pool(Tools, size=1):
                    await anyio.sleep_forever()
        assert scope.cancelled_caught


async def test_no_process_is_left_after_a_start_that_failed() -> None:
    """No child of this process is alive that was not there before, at once."""
    before = _children()
    await start_error(BadStart, size=3, min_ready=3, adapter_args=("raise",))
    assert _children() <= before
    await start_error(command=["cat"], size=2, startup=Startup(timeout=0.2))
    assert _children() <= before


def _children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children() if is_alive(child.pid)}


async def test_batches_of_workers_start_one_after_the_other(tmp_path: Path) -> None:
    """With a batch size of 1 the second worker is started when the first one is ready."""
    mark = tmp_path / "mark"
    startup = Startup(batch_size=1, batch_delay=0.05)
    with anyio.fail_after(20):
        async with open_pool(
            BadStart,
            size=2,
            min_ready=0,
            startup=startup,
            adapter_args=("slow second", str(mark), ""),
        ) as pool:
            states: list[tuple[str, str]] = []
            while pool.stats().workers == 0:
                first, second = pool.workers()
                states.append((first.state, "none" if second.pid is None else "started"))
                await anyio.sleep(0.002)
            assert {second for _, second in states} == {"none"}
            Path(f"{mark}.release").touch()
            await pool.ready()


def test_a_loop_that_nobody_knows_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="backend='curio'"), open_pool_sync(backend="curio"):
        pytest.fail("no pool has been opened")
