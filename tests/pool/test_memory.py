"""Workers in memory: the same pool, without a process; on both loops, on the real clock."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import memory_adapters
import pytest
from _backends import asyncio_only, one_loop_each, trio_only
from memory_adapters import (
    BARRIERS,
    AsyncWork,
    FailsToStart,
    MixedWork,
    Pure,
    SyncWork,
    secret,
)
from pool_kit import run_script, tools_pool, until

import snakepit
from snakepit import (
    Adapter,
    CallTimeoutError,
    ConfigError,
    CrashBarrier,
    InvalidParamsError,
    PoolBrokenError,
    PoolClosedError,
    PoolSaturatedError,
    Queue,
    QueueTimeoutError,
    Startup,
    Stop,
    ToolError,
    WorkerDiedError,
    WorkerStartError,
    open_pool,
    tool,
)
from snakepit.testing import MemoryTransport

pytestmark = one_loop_each

BOTH = [AsyncWork, SyncWork]
AT_ONCE = Startup(batch_size=1000, batch_delay=0)


@pytest.fixture(autouse=True)
def logs() -> Generator[None]:
    AsyncWork.log, SyncWork.log = [], []
    yield
    AsyncWork.log, SyncWork.log = [], []


def memory_pool(adapter: Any, **options: Any) -> Any:
    return tools_pool(adapter, transport="memory", **options)


# -- calls -----------------------------------------------------------------------------------------


async def test_calls_errors_and_arguments_are_as_they_are_elsewhere() -> None:
    async with memory_pool(AsyncWork) as pool:
        assert await pool.execute("echo", {"value": {"a": (1, {2})}}) == {"a": (1, {2})}
        assert pool.tools()["nap"].parameters["properties"]["seconds"]["type"] == "number"
        with pytest.raises(FileNotFoundError) as caught:
            await pool.execute("fail")
        assert isinstance(caught.value, ToolError)
        assert (caught.value.errno, caught.value.filename) == (2, "some/file")
        assert "in fail" in caught.value.traceback
        with pytest.raises(InvalidParamsError):
            await pool.execute("nap", {"seconds": "3"})


async def test_there_is_no_process() -> None:
    async with memory_pool(AsyncWork, size=2) as pool:
        assert [(w.pid, w.rss_mb, w.state) for w in pool.workers()] == [(None, None, "ready")] * 2
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"exit_code": 7})
    assert caught.value.pid is None
    assert "pid" not in str(caught.value)


async def test_hooks_run_once_each_and_around_the_calls() -> None:
    async with memory_pool(AsyncWork) as pool:
        await pool.execute("echo")
        assert AsyncWork.log == ["initialize"]
    assert AsyncWork.log == ["initialize", "cleanup"]


async def test_what_is_tied_to_a_thread_works_in_sync_tools_and_hooks() -> None:
    """The constructor, both hooks, tools and generators: sqlite3 refuses any other thread."""
    async with memory_pool(SyncWork) as pool:
        assert [await pool.execute("add", {"word": w}) for w in "abc"] == [1, 2, 3]
        async with pool.stream("words") as words:
            assert [word async for word in words] == ["a", "b", "c"]
    assert SyncWork.log == ["cleanup"]


async def test_async_tools_run_on_the_loop_and_sync_ones_in_a_thread_of_the_worker() -> None:
    async with memory_pool(MixedWork) as pool:
        assert await pool.execute("where_async") == threading.current_thread().name
        assert await pool.execute("where_sync") == f"snakepit {pool.workers()[0].id}"


async def test_two_workers_run_sync_tools_at_the_same_time() -> None:
    BARRIERS["two"] = threading.Barrier(2)
    names: list[str] = []
    async with memory_pool(SyncWork, size=2) as pool, anyio.create_task_group() as tasks:

        async def meet() -> None:
            names.append(await pool.execute("meet", {"barrier": "two"}))

        tasks.start_soon(meet)
        tasks.start_soon(meet)
    assert len(set(names)) == 2


@pytest.mark.parametrize("adapter", BOTH)
async def test_tools_see_the_context_of_their_call_and_nothing_of_their_caller(
    adapter: Any,
) -> None:
    secret.set("the opener's")
    async with memory_pool(adapter) as pool:
        secret.set("the caller's")
        name, seen, _, first = await pool.execute("whereabouts")
        assert (name, seen) == ("whereabouts", "unset")
        assert (await pool.execute("whereabouts"))[3] > first
        with pytest.raises(RuntimeError, match="inside a tool"):
            snakepit.context()


async def test_a_pool_in_a_tool_of_a_pool() -> None:
    class Outer(Adapter):
        @tool
        async def ask(self, value: int) -> Any:
            async with open_pool(Pure, size=1, transport="memory") as inner:
                return await inner.execute("echo", {"value": value})

    async with memory_pool(Outer) as pool:
        assert await pool.execute("ask", {"value": 5}) == 5


# -- streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", BOTH)
async def test_a_slow_reader_slows_the_tool_down(adapter: Any) -> None:
    async with memory_pool(adapter) as pool:
        adapter.log.clear()
        async with pool.stream("count", {"stop": 100}, window=4) as numbers:
            await until(lambda: len(adapter.log) >= 5)
            await anyio.sleep(0.02)
            assert adapter.log == ["0", "1", "2", "3", "4"], "the fifth waits for credit"
            assert [number async for number in numbers] == list(range(100))
        assert adapter.log[-1] == "closed"


@pytest.mark.parametrize("adapter", BOTH)
async def test_leaving_early_closes_the_generator_before_the_block_is_left(adapter: Any) -> None:
    async with memory_pool(adapter) as pool:
        for _ in range(3):
            adapter.log.clear()
            async with pool.stream("count", {"stop": 100}, window=4) as numbers:
                assert await anext(numbers) == 0
            assert adapter.log[-1] == "closed"
        assert pool.stats().restarts == 0


@pytest.mark.parametrize("adapter", BOTH)
async def test_progress_arrives_the_first_and_the_last_for_certain(adapter: Any) -> None:
    seen: list[float] = []
    async with memory_pool(adapter) as pool:
        for steps, pause in ((200, 0), (4, 0.03)):
            seen.clear()
            await pool.execute(
                "report",
                {"steps": steps, "pause": pause},
                on_progress=lambda done, _total, _message: seen.append(done),
            )
            assert (seen[0], seen[-1]) == (0, steps)
            assert seen == sorted(seen)
        assert len(seen) == 5
    assert not [t for t in threading.enumerate() if t.name == "snakepit-progress"]


# -- giving up -------------------------------------------------------------------------------------


async def test_a_cancelled_async_tool_has_stopped_when_its_call_is_left() -> None:
    async with memory_pool(AsyncWork) as pool:
        with anyio.move_on_after(0.02) as scope:
            await pool.execute("nap")
        assert scope.cancelled_caught
        assert AsyncWork.log == ["initialize", "woken"]
        assert await pool.execute("nap", {"seconds": 0}) == "slept"
        assert pool.stats().restarts == 0


async def test_a_sync_tool_that_looks_is_cancelled() -> None:
    async with memory_pool(SyncWork) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "until_cancelled")
            await until(lambda: SyncWork.log)
            tasks.cancel_scope.cancel()
        assert SyncWork.log == ["running", "cancelled"]
        assert await pool.execute("add", {"word": "x"}) == 1
        assert pool.stats().restarts == 0


async def test_a_sync_tool_that_does_not_look_delays_its_caller() -> None:
    """Neither interrupt nor SIGKILL here: it is waited for, and then its worker is replaced."""
    stop = Stop(cancel_grace=0.05, term_grace=0.05)
    async with memory_pool(SyncWork, stop=stop) as pool:
        began = anyio.current_time()
        with anyio.move_on_after(0.01):
            await pool.execute("block", {"seconds": 0.3})
        assert anyio.current_time() - began >= 0.29
        assert await pool.execute("add", {"word": "x"}) == 1


async def test_timeouts_tell_waiting_from_running() -> None:
    async with memory_pool(AsyncWork) as pool, anyio.create_task_group() as tasks:
        with pytest.raises(CallTimeoutError):
            await pool.execute("nap", timeout=0.3)
        tasks.start_soon(pool.execute, "nap")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(QueueTimeoutError):
            await pool.execute("nap", timeout=0.02)
        tasks.cancel_scope.cancel()


async def test_the_queue_is_bounded() -> None:
    async with (
        memory_pool(AsyncWork, queue=Queue(max_size=1)) as pool,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(pool.execute, "nap")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(pool.execute, "nap")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(PoolSaturatedError):
            await pool.execute("echo")
        tasks.cancel_scope.cancel()


async def test_a_tool_that_is_slow_to_stop_is_waited_for_within_its_grace() -> None:
    async with memory_pool(AsyncWork) as pool:
        with anyio.move_on_after(0.02):
            await pool.execute("slow_to_stop", {"seconds": 0.1})
        assert AsyncWork.log[-1] == "stopped"
        assert pool.stats().restarts == 0


async def test_a_tool_that_does_not_stop_loses_its_worker_by_the_ladder() -> None:
    """A shield of its own may make it last longer than that."""
    stop = Stop(cancel_grace=0.05, term_grace=0.05)
    async with memory_pool(AsyncWork, stop=stop) as pool:
        with anyio.move_on_after(0.02):
            await pool.execute("slow_to_stop", {"seconds": 0.4})
        await until(lambda: pool.workers()[0].id.endswith(".2"))
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_a_generator_that_does_not_close_is_closed_by_the_end_of_its_worker() -> None:
    """Its `finally` is shielded from everything but what stands for SIGKILL."""
    stop = Stop(cancel_grace=0.05, term_grace=0.05)
    async with memory_pool(AsyncWork, stop=stop) as pool:
        async with pool.stream("never_closed", window=1) as numbers:
            assert await anext(numbers) == 1
        await until(lambda: pool.workers()[0].id.endswith(".2"))
        assert await pool.execute("echo", {"value": 1}) == 1


@asyncio_only  # on trio a cancelled scope stays cancelled
async def test_a_tool_that_swallows_cancellations_is_cancelled_until_it_ends() -> None:
    stop = Stop(cancel_grace=0.05, term_grace=0.05)
    async with memory_pool(AsyncWork, stop=stop) as pool:
        with anyio.move_on_after(0.02):
            await pool.execute("swallow", {"times": 4})
        await until(lambda: pool.workers()[0].id.endswith(".2"))
        assert AsyncWork.log.count("swallowed") == 4


# -- death -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [AsyncWork, SyncWork])
async def test_a_crash_is_a_death_and_the_worker_is_replaced(adapter: Any) -> None:
    async with memory_pool(adapter) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"exit_code": 7})
        error = caught.value
        assert (error.exit_code, error.signal, error.started) == (7, None, True)
        assert error.reason == "died"
        await pool.execute("whereabouts")
        assert pool.stats().restarts == 1
    assert adapter.log.count("cleanup") == 1, "only the second one ended in order"


async def test_an_idempotent_call_is_sent_again() -> None:
    async with memory_pool(AsyncWork) as pool:
        assert await pool.execute("die_once") == "second time"


def test_a_crash_outside_a_worker_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call it in a tool"):
        snakepit.testing.crash()


class CrashAnywhere(Adapter):
    @tool
    def die(self) -> None:
        snakepit.testing.crash(9)


@pytest.mark.parametrize("transport", ["stdio", "memory"])
async def test_a_crash_is_the_same_in_a_process(transport: str) -> None:
    async with tools_pool(CrashAnywhere, transport=transport) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die")
    assert (caught.value.exit_code, caught.value.reason) == (9, "died")


# -- start and end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("constructor", "ZeroDivisionError: built wrongly"),
        ("initialize", "LookupError: no model here"),
        ("crash", "it ended before it was ready (exited with code 6)"),
        ("hang", "it did not get ready within 0.05 s"),
    ],
)
async def test_a_worker_that_cannot_start_says_why(how: str, part: str) -> None:
    startup = Startup(init_timeout=0.05 if how == "hang" else 10)
    with pytest.raises(WorkerStartError) as caught:
        async with memory_pool(FailsToStart, adapter_args=[how], startup=startup):
            pass
    assert part in str(caught.value)
    assert (caught.value.traceback != "") == (how in ("constructor", "initialize"))


async def test_starts_that_fail_break_the_pool_in_the_end() -> None:
    barrier = CrashBarrier(max_restarts=1)
    async with open_pool(
        FailsToStart, size=1, min_ready=0, transport="memory", adapter_args=["crash"],
        crash_barrier=barrier,
    ) as pool:  # fmt: skip
        with pytest.raises(PoolBrokenError):
            await pool.execute("nothing")


async def test_closing_ends_the_calls_of_others_and_cleans_up() -> None:
    errors: list[BaseException] = []

    async def call(pool: snakepit.Pool) -> None:
        with pytest.raises(PoolClosedError) as caught:
            await pool.execute("nap")
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks, memory_pool(AsyncWork) as pool:
        for _ in range(3):
            tasks.start_soon(call, pool)
        await anyio.wait_all_tasks_blocked()
    assert len(errors) == 3
    assert AsyncWork.log[-1] == "cleanup"


async def test_a_pool_cancelled_from_outside_cleans_up() -> None:
    async with (
        anyio.create_task_group() as tasks,
        open_pool(AsyncWork, size=2, min_ready=2, transport="memory") as pool,
    ):
        tasks.start_soon(pool.execute, "nap")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert AsyncWork.log.count("cleanup") == 2


async def test_a_thread_begins_with_the_first_sync_code_of_its_worker() -> None:
    before = threading.active_count()
    async with open_pool(MixedWork, size=3, min_ready=3, transport="memory") as pool:
        here = threading.current_thread().name
        assert await pool.execute("where_async") == here
        assert threading.active_count() == before
        assert await pool.execute("where_sync") != here
        assert threading.active_count() == before + 1


@pytest.mark.unmeasured
async def test_a_thousand_workers_need_no_thread() -> None:
    before = threading.active_count()
    async with open_pool(
        Pure, size=1000, min_ready=1000, transport="memory", startup=AT_ONCE
    ) as pool:
        assert threading.active_count() <= before
        assert await pool.execute("echo", {"value": 1}) == 1
        assert pool.stats().workers == 1000


# -- where the adapter comes from ------------------------------------------------------------------


@pytest.mark.parametrize(
    "adapter", ["memory_adapters:Pure", Path(memory_adapters.__file__), Pure, "module"]
)
async def test_an_adapter_may_be_named_as_everywhere(adapter: Any) -> None:
    if isinstance(adapter, Path):
        adapter = f"{adapter}:Pure"
    if adapter == "module":
        adapter = ModuleType("made_up")
        adapter.echo = echo
    async with memory_pool(adapter, size=2) as pool:
        assert await pool.execute("echo", {"value": 1}) == 1


@tool
def echo(value: Any) -> Any:
    return value


async def test_a_class_made_in_a_function_will_do() -> None:
    class Local(Adapter):
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @tool
        async def times(self, number: int) -> int:
            return number * self.factor

    async with memory_pool(Local, adapter_args=(3,)) as pool:
        assert await pool.execute("times", {"number": 5}) == 15


@pytest.mark.parametrize(
    ("adapter", "part"),
    [("no_such_module:X", "no module named"), (ModuleType("empty"), "has no @tool")],
)
async def test_an_adapter_that_cannot_be_had_is_a_start_error(adapter: Any, part: str) -> None:
    with pytest.raises(WorkerStartError, match=part):
        async with memory_pool(adapter):
            pass


@pytest.mark.parametrize("adapter", [3, "not a spec!", "no/such/file.py:X"])
async def test_what_names_no_adapter_is_refused(adapter: Any) -> None:
    with pytest.raises(ConfigError):
        async with memory_pool(adapter):
            pass


@pytest.mark.parametrize(
    "option",
    [{"command": ["x"]}, {"python": "python3"}, {"env": {"A": "b"}}, {"cwd": "/"}],
    ids=str,
)
@pytest.mark.parametrize("transport", ["memory", MemoryTransport()], ids=["name", "object"])
async def test_options_of_processes_are_refused(option: Any, transport: Any) -> None:
    adapter = None if "command" in option else Pure
    with pytest.raises(ConfigError, match=next(iter(option))):
        async with open_pool(adapter, size=1, transport=transport, **option):
            pass


@asyncio_only
async def test_tools_cannot_have_another_loop_than_the_pool() -> None:
    with pytest.raises(ConfigError, match="tool_backend"):
        async with memory_pool(Pure, tool_backend="trio"):
            pass


@trio_only
async def test_the_loop_that_is_there_may_be_named() -> None:
    async with memory_pool(Pure, tool_backend="trio") as pool:
        assert await pool.execute("echo", {"value": 1}) == 1


# -- functions, and programs -----------------------------------------------------------------------


async def test_functions_run_in_the_thread_of_a_worker() -> None:
    async with memory_pool(None) as pool:
        assert await pool.run_sync(os.path.join, "a", "b") == "a/b"
        with pytest.raises(ZeroDivisionError):
            await pool.run_sync(divmod, 1, 0)


SCRIPT = """
import trio, snakepit
print("imported as", __name__)

class Mine(snakepit.Adapter):
    @snakepit.tool
    def double(self, number: int) -> int:
        return 2 * number

def triple(number):
    return 3 * number

async def main():
    for adapter in (Mine, "__main__:Mine"):
        async with snakepit.open_pool(adapter, size=1, transport="memory") as pool:
            print(await pool.execute("double", {"number": 4}), await pool.run_sync(triple, 4))

trio.run(main)
"""


def test_what_lives_in_the_script_is_not_imported_again(tmp_path: Path) -> None:
    """Not even a guard around its main part is needed."""
    result = run_script(tmp_path, SCRIPT)
    assert result.stdout.splitlines() == ["imported as __main__", "8 12", "8 12"], result.stderr


INTERRUPTED = """
import signal, trio, snakepit

class Mine(snakepit.Adapter):
    @snakepit.tool
    async def interrupt(self) -> str:
        signal.raise_signal(signal.SIGINT)
        return "not struck"

async def main():
    async with snakepit.open_pool(Mine, size=1, transport="memory") as pool:
        print(await pool.execute("interrupt"))

try:
    trio.run(main)
except KeyboardInterrupt:
    print("struck the program")
"""


def test_ctrl_c_strikes_the_program_and_no_tool(tmp_path: Path) -> None:
    result = run_script(tmp_path, INTERRUPTED)
    assert result.stdout.splitlines()[-1] == "struck the program", result.stderr
    assert "ToolError" not in result.stderr


def test_scripts_without_async_have_it_too() -> None:
    for backend in ("trio", "asyncio"):
        with snakepit.open_pool_sync(Pure, size=1, transport="memory", backend=backend) as pool:
            assert pool.execute("echo", {"value": 1}) == 1


async def test_workers_wait_for_an_adapter_that_another_one_is_importing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in sys.modules may still be without its classes."""
    monkeypatch.syspath_prepend(str(tmp_path))
    source = """
        import time
        time.sleep(0.2)  # as heavy imports take
        import snakepit
        class Work(snakepit.Adapter):
            @snakepit.tool
            def work(self): return "done"
    """
    (tmp_path / "slow_to_import.py").write_text(textwrap.dedent(source))
    try:
        async with open_pool(
            "slow_to_import:Work", size=3, min_ready=3, transport="memory"
        ) as pool:
            assert await pool.execute("work") == "done"
    finally:
        sys.modules.pop("slow_to_import", None)
