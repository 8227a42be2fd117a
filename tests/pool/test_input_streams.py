"""Async iterables as arguments: pulled as the tool asks, closed before the call returns, whatever happens."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from _backends import one_loop_each
from input_tools import AsyncInputs, SyncInputs
from pool_kit import BRISK, lines, pids, tools_pool, until

import snakepit
from snakepit import (
    CallTimeoutError,
    InvalidParamsError,
    Pool,
    PoolClosedError,
    QueueTimeoutError,
    ReentrancyError,
    SerializationError,
    ToolError,
    ToolNotFoundError,
    WorkerDiedError,
    open_pool,
)

pytestmark = one_loop_each

WINDOW = 16
FOREVER_S = 10**9

# adapter, transport, tool_backend; the other lanes are tested in tests/worker
KINDS = {
    "sync": (SyncInputs, "stdio", "asyncio"),
    "async": (AsyncInputs, "stdio", "trio"),
    "sync in memory": (SyncInputs, "memory", "asyncio"),
    "async in memory": (AsyncInputs, "memory", "asyncio"),
}
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def inputs_pool(kind: str, **options: Any) -> AsyncGenerator[Pool]:
    """A pool of one worker, which is the same at the end."""
    adapter, transport, backend = KINDS[kind]
    options = {"transport": transport, "tool_backend": backend, **options}
    async with tools_pool(adapter, **options) as pool:
        before = [worker.id for worker in pool.workers()]
        yield pool
        assert isinstance(await pool.execute("pid"), int)
        assert [worker.id for worker in pool.workers()] == before


class Source:
    """Numbers, as an async iterable that remembers what became of it.

    `fail_at`: there it raises. `stall_at`: there it waits for `release`.
    """

    def __init__(
        self,
        stop: int = FOREVER_S,
        *,
        fail_at: int | None = None,
        stall_at: int | None = None,
        item: Any = None,
    ) -> None:
        self.stop, self.fail_at, self.stall_at, self.item = stop, fail_at, stall_at, item
        self.pulled = 0
        self.closed = 0
        self.release = anyio.Event()
        self.stalled = anyio.Event()
        self.error = KeyError("the input failed")

    def __aiter__(self) -> AsyncGenerator[Any]:
        return self.generate()

    async def generate(self) -> AsyncGenerator[Any]:
        try:
            for number in range(self.stop):
                if number == self.fail_at:
                    raise self.error
                if number == self.stall_at:
                    self.stalled.set()
                    await self.release.wait()
                await anyio.lowlevel.checkpoint()
                self.pulled += 1
                yield number if self.item is None else self.item
        finally:
            self.closed += 1


# -- what arrives ------------------------------------------------------------------------------


async def test_items_arrive_in_order_until_the_end(kind: str) -> None:
    source = Source(100)
    async with inputs_pool(kind) as pool:
        assert await pool.execute("collect", {"items": source}) == list(range(100))
        assert (source.pulled, source.closed) == (100, 1)
        assert await pool.execute("total", {"numbers": Source(0)}) == 0


async def test_two_inputs_of_one_call_are_pulled_side_by_side(kind: str) -> None:
    async with inputs_pool(kind) as pool:
        pairs = await pool.execute("zipped", {"left": Source(40), "right": Source(40, item="x")})
        assert pairs == [(number, "x") for number in range(40)]


async def test_an_input_and_a_stream_make_a_transformer(kind: str) -> None:
    source = Source(60)
    async with (
        inputs_pool(kind) as pool,
        pool.stream("doubled", {"numbers": source}, window=3) as doubled,
    ):
        assert [number async for number in doubled] == list(range(0, 120, 2))
        assert source.closed == 1


async def test_large_items_travel_both_ways_at_once(kind: str) -> None:
    """Twelve of 2 MB each, through both directions, a few at a time."""
    large = b"l" * 2_000_000
    async with inputs_pool(kind) as pool:
        count = 0
        async with pool.stream("sizes", {"items": Source(12, item=large)}, window=2) as chunks:
            async for chunk in chunks:
                assert chunk == large
                count += 1
        assert count == 12


async def test_channels_and_other_streams_are_inputs_too(kind: str) -> None:
    """The stream of one pool feeds a call of another."""
    send, receive = anyio.create_memory_object_stream[int](5)
    async with inputs_pool(kind) as pool, inputs_pool("async in memory") as other:
        with send:
            for number in range(5):
                send.send_nowait(number)
        assert await pool.execute("total", {"numbers": receive}) == 10
        with pytest.raises(anyio.ClosedResourceError):
            receive.receive_nowait()
        async with pool.stream("doubled", {"numbers": Source(50)}) as doubled:
            assert await other.execute("total", {"numbers": doubled}) == 49 * 50


async def test_the_callers_context_and_cancel_scopes_hold_while_it_is_pulled(kind: str) -> None:
    seen: list[tuple[str, float]] = []

    async def source() -> AsyncIterator[int]:
        seen.append((variable.get(), anyio.current_effective_deadline()))
        yield 1

    async with inputs_pool(kind) as pool:
        variable.set("the caller's")
        with anyio.fail_after(1000) as scope:
            await pool.execute("total", {"numbers": source()})
            async with pool.stream("doubled", {"numbers": source()}) as doubled:
                variable.set("the body's")
                assert [number async for number in doubled] == [2]
        deadline = min(scope.deadline, anyio.current_effective_deadline())
    assert seen[0] == ("the caller's", min(deadline, scope.deadline))
    assert seen[1][0] == "the caller's"


async def test_progress_is_told_meanwhile(kind: str) -> None:
    told: list[float] = []
    async with inputs_pool(kind) as pool:
        count = await pool.execute(
            "told", {"items": Source(30)}, on_progress=lambda done, *_: told.append(done)
        )
    assert count == 30
    assert told[-1] == 30
    assert told == sorted(told)


# -- the window --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 1, 5])
async def test_what_was_pulled_and_not_taken_is_never_more_than_the_window(
    window: int | None, kind: str, tmp_path: Path
) -> None:
    """A slow tool slows its input down: further items are pulled when half of the window was taken."""
    log, gate, source = tmp_path / "log", tmp_path / "gate", Source(40)
    params = {"items": source, "log": str(log), "gate": str(gate)}

    async def follow() -> None:
        size = window or WINDOW
        half = (size + 1) // 2
        for taken in range(1, 14):
            await until(lambda taken=taken: len(lines(log)) == taken)
            allowed = size + taken // half * half
            await until(lambda allowed=allowed: source.pulled == allowed)
            await anyio.wait_all_tasks_blocked()
            assert source.pulled == allowed <= taken + size
            Path(f"{gate}{taken - 1}").touch()
        for number in range(13, 40):
            Path(f"{gate}{number}").touch()

    async with inputs_pool(kind) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        if window is None:
            await pool.execute("one_at_a_time", params)
        else:
            async with pool.stream("streamed_one_at_a_time", params, window=window) as done:
                assert [it async for it in done] == [None]
    assert source.pulled == 40


async def test_a_slow_input_keeps_its_tool_waiting(kind: str, tmp_path: Path) -> None:
    log, source = tmp_path / "log", Source(5, stall_at=3)
    async with inputs_pool(kind) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "first", {"items": source, "count": 5, "log": str(log)})
        await until(lambda: len(lines(log)) == 3)
        await source.stalled.wait()
        assert (pool.stats().busy, source.pulled) == (1, 3)
        source.release.set()
    assert lines(log) == [*(f"took {number}" for number in range(5)), "returned"]


async def test_nothing_is_pulled_before_the_call_runs(kind: str, tmp_path: Path) -> None:
    """Nor while it waits for a worker, nor ever by a tool that does not ask."""
    started, release, source = tmp_path / "started", tmp_path / "release", Source(10)
    async with inputs_pool(kind) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "hold", {"started": str(started), "release": str(release)})
        await until(started.exists)
        tasks.start_soon(pool.execute, "total", {"numbers": source})
        await anyio.wait_all_tasks_blocked()
        assert (pool.stats().queued, source.pulled) == (1, 0)
        release.touch()
        await until(lambda: source.closed)
        idle = Source(10)
        assert await pool.execute("never_asks", {"items": idle}) == "uninterested"
        assert idle.pulled == 0


# -- the end -----------------------------------------------------------------------------------


async def test_a_tool_that_returns_early_closes_its_input_in_good_order(
    kind: str, tmp_path: Path
) -> None:
    """Its clean-up may wait: nobody has cancelled it; and it is over when `execute` returns."""
    steps: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            await anyio.sleep(0.01)
            steps.append("closed")

    params = {"items": source(), "count": 3, "log": str(tmp_path / "log")}
    async with inputs_pool(kind) as pool:
        assert await pool.execute("first", params) == [0, 1, 2]
        assert steps == ["closed"]


async def test_an_input_that_waits_when_the_tool_returns_is_closed(
    kind: str, tmp_path: Path
) -> None:
    source = Source(stall_at=3)
    params = {"items": source, "count": 3, "log": str(tmp_path / "log")}
    async with inputs_pool(kind) as pool:
        assert await pool.execute("first", params) == [0, 1, 2]
        assert (source.pulled, source.closed) == (3, 1)


async def test_an_error_of_the_input_stops_the_tool_and_is_raised_as_itself(
    kind: str, tmp_path: Path
) -> None:
    log, source, other = tmp_path / "log", Source(fail_at=2), Source(stall_at=0)
    async with inputs_pool(kind) as pool:
        with pytest.raises(KeyError) as caught:
            await pool.execute("first", {"items": source, "count": 9, "log": str(log)})
        assert caught.value is source.error
        assert lines(log)[-1] in ("ToolCancelled", "CancelledError", "Cancelled")
        failing = Source(stall_at=1, fail_at=2)

        async def fail_later() -> None:
            await other.stalled.wait()
            failing.release.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail_later)
            with pytest.raises(KeyError):
                await pool.execute("zipped", {"left": failing, "right": other})
        assert (failing.closed, other.closed) == (1, 1)


async def test_an_error_of_a_stream_s_input_is_raised_where_the_next_chunk_is_awaited(
    kind: str,
) -> None:
    source = Source(fail_at=2)
    async with (
        inputs_pool(kind) as pool,
        pool.stream("doubled", {"numbers": source}) as doubled,
    ):
        await until(lambda: source.closed)
        with pytest.raises(KeyError) as caught:
            async for _ in doubled:
                pass
        assert caught.value is source.error


async def test_an_error_of_the_tool_closes_the_input(kind: str) -> None:
    source = Source()
    async with inputs_pool(kind) as pool:
        with pytest.raises(LookupError, match="enough") as caught:
            await pool.execute("fail_after", {"items": source, "count": 20})
        assert isinstance(caught.value, ToolError)
        assert source.closed == 1


async def test_an_item_that_cannot_travel_stops_the_tool_and_is_named(
    kind: str, tmp_path: Path
) -> None:
    log, source = tmp_path / "log", Source(5, item={"a": [object()]})
    async with inputs_pool(kind) as pool:
        with pytest.raises(SerializationError) as caught:
            await pool.execute("first", {"items": source, "count": 9, "log": str(log)})
        assert caught.value.message.startswith("item 0 of argument 'items': a value of type object")
        assert caught.value.where == "['a'][0]"
        assert source.closed == 1


async def test_an_item_of_a_wrong_type_is_an_error_of_the_tool(kind: str) -> None:
    source = Source(5, item="five")
    async with inputs_pool(kind) as pool:
        with pytest.raises(TypeError, match="item 0 of argument 'numbers': expected int, got str"):
            await pool.execute("total", {"numbers": source})
        assert source.closed == 1


async def test_an_error_while_the_input_is_closed_is_not_lost(kind: str, tmp_path: Path) -> None:
    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise LookupError("closing failed")

    params = {"items": source(), "count": 1, "log": str(tmp_path / "log")}
    async with inputs_pool(kind) as pool:
        with pytest.raises(LookupError, match="closing failed"):
            await pool.execute("first", params)


# -- calls that are refused --------------------------------------------------------------------


async def test_an_input_of_a_call_that_is_refused_is_closed(kind: str) -> None:
    """One that has begun is: a generator that has not begun has nothing to clean up."""
    async with inputs_pool(kind) as pool:
        for params, error in (
            ({"tool": "unknown"}, ToolNotFoundError),
            ({"number": object()}, SerializationError),
        ):
            closed: list[str] = []

            async def source(closed: list[str] = closed) -> AsyncIterator[int]:
                try:
                    yield 1
                    yield 2
                finally:
                    closed.append("closed")

            begun = source()
            assert await anext(begun) == 1
            tool = params.pop("tool", "total")
            with pytest.raises(error):
                await pool.execute(tool, {"numbers": begun, **params})
            assert closed == ["closed"]


async def test_what_is_no_input_is_told(kind: str) -> None:
    source = Source(1)
    async with inputs_pool(kind) as pool:
        for value, words in (
            ([source], "can only be an argument itself"),
            (iter([1]), "make it a list; .* async iterable"),
        ):
            with pytest.raises(SerializationError, match=words):
                await pool.execute("collect", {"items": value})
        with pytest.raises(InvalidParamsError, match="expected int"):
            await pool.execute("fail_after", {"items": Source(1), "count": source})
        with pytest.raises(SerializationError, match="another argument"):
            await pool.execute("zipped", {"left": source, "right": source})


# -- cancellation, time, death -----------------------------------------------------------------


async def test_an_endless_input_ends_with_the_callers_scope(kind: str) -> None:
    source = Source()
    async with inputs_pool(kind) as pool:
        with anyio.move_on_after(0.1) as scope:
            await pool.execute("total", {"numbers": source})
        assert scope.cancelled_caught
        assert source.closed == 1
        assert source.pulled > WINDOW


@pytest.mark.parametrize("stall", [None, 0, 3])
async def test_a_cancel_closes_input_and_tool_wherever_they_are(
    stall: int | None, kind: str, tmp_path: Path
) -> None:
    log, source = tmp_path / "log", Source(stall_at=stall)
    async with inputs_pool(kind) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(
            pool.execute, "first", {"items": source, "count": FOREVER_S, "log": str(log)}
        )
        if stall == 0:
            await source.stalled.wait()
        else:
            await until(lambda: len(lines(log)) >= 3)
        tasks.cancel_scope.cancel()
    assert source.closed == 1
    assert lines(log)[-1] in ("ToolCancelled", "CancelledError", "Cancelled")


async def test_a_timeout_stops_both(kind: str) -> None:
    source = Source(stall_at=3)
    async with inputs_pool(kind) as pool:
        with pytest.raises(CallTimeoutError):
            await pool.execute("total", {"numbers": source}, timeout=0.4)
        assert (source.pulled, source.closed) == (3, 1)


async def test_a_call_that_times_out_while_it_waits_closes_its_input(
    kind: str, tmp_path: Path
) -> None:
    started, release, source = tmp_path / "started", tmp_path / "release", Source()
    async with inputs_pool(kind) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "hold", {"started": str(started), "release": str(release)})
        await until(started.exists)
        with pytest.raises(QueueTimeoutError):
            await pool.execute("total", {"numbers": source.generate()}, timeout=0.05)
        release.touch()
    assert source.pulled == 0


async def test_leaving_a_stream_early_closes_its_input(kind: str) -> None:
    source = Source()
    async with inputs_pool(kind) as pool:
        async with pool.stream("doubled", {"numbers": source}, window=2) as doubled:
            assert await anext(doubled) == 0
        assert source.closed == 1
        assert source.pulled <= 6


async def test_a_pool_that_closes_stops_both(kind: str) -> None:
    adapter, transport, backend = KINDS[kind]
    source = Source(stall_at=20)
    errors: list[BaseException] = []

    async def call(pool: Pool) -> None:
        try:
            await pool.execute("total", {"numbers": source})
        except PoolClosedError as error:
            errors.append(error)

    async with (
        anyio.create_task_group() as tasks,
        tools_pool(adapter, transport=transport, tool_backend=backend) as pool,
    ):
        tasks.start_soon(call, pool)
        await source.stalled.wait()
    assert (len(errors), source.closed) == (1, 1)


async def test_a_worker_that_dies_ends_the_call_and_its_input(tmp_path: Path) -> None:
    """Idempotent or not: what was pulled is gone, so the call is not run again."""
    marks, source = tmp_path / "marks", Source()
    async with tools_pool(SyncInputs) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"items": source, "after": 3, "marks": str(marks)})
        assert caught.value.started
        assert source.closed == 1
        assert lines(marks) == ["runs"]
        assert await pool.execute("total", {"numbers": Source(3)}) == 3


async def test_a_call_that_had_not_asked_yet_is_repeated_with_its_input(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    params = {"items": Source(3), "after": 0, "marks": str(marks), "times": 1}
    async with tools_pool(SyncInputs) as pool:
        assert await pool.execute("die", params) == "run 2: [0, 1, 2]"


async def test_a_tool_that_will_not_end_loses_its_worker_and_the_input_is_closed() -> None:
    source = Source(stall_at=2)
    async with tools_pool(SyncInputs, stop=BRISK) as pool:
        [pid] = pids(pool)
        with pytest.raises(CallTimeoutError):
            await pool.execute("deaf", {"items": source}, timeout=0.4)
        assert source.closed == 1
        assert await pool.execute("pid") != pid


# -- every way to call -------------------------------------------------------------------------


async def test_sessions_and_views_take_inputs(kind: str) -> None:
    async with inputs_pool(kind) as pool:
        async with pool.session() as session:
            await session.execute("remember", {"items": Source(2)})
            assert await session.execute("remember", {"items": Source(1)}) == [0, 1, 0]
        assert await pool.bind(timeout=20).execute("total", {"numbers": Source(3)}) == 3


async def test_typed_calls_take_inputs() -> None:
    async with tools_pool(AsyncInputs) as pool:
        assert await pool.call(AsyncInputs.total, numbers=Source(4).generate()) == 6
        async with pool.call_stream(AsyncInputs.doubled, Source(3).generate()) as doubled:
            assert [number async for number in doubled] == [0, 2, 4]


async def test_map_takes_an_input_for_each_of_its_calls(kind: str) -> None:
    sources = [Source(stop) for stop in range(12)]
    async with inputs_pool(kind, size=2) as pool:
        async with pool.map("total", [{"numbers": source} for source in sources]) as results:
            assert [result async for result in results] == [n * (n - 1) // 2 for n in range(12)]
        assert [source.closed for source in sources] == [1] * 12


async def test_an_error_of_an_input_is_that_of_its_call_in_map(kind: str) -> None:
    sources = [Source(2), Source(fail_at=1), Source(3)]
    items = [{"numbers": source} for source in sources]
    async with inputs_pool(kind) as pool:
        async with pool.map("total", items, on_error="return") as results:
            assert [result async for result in results] == [1, sources[1].error, 3]
        again = [Source(2), Source(fail_at=1), Source()]
        with pytest.raises(KeyError):
            async with pool.map("total", [{"numbers": one} for one in again], limit=2) as results:
                async for _ in results:
                    pass
        assert [source.closed for source in again[:2]] == [1, 1]


async def test_leaving_a_map_early_closes_all_its_inputs(kind: str) -> None:
    begun: list[Any] = []

    def endless() -> Any:
        while True:
            begun.append(source := Source().generate())
            yield {"numbers": source}

    async with inputs_pool(kind) as pool:
        async with pool.map("total", endless(), limit=3):
            await until(lambda: len(begun) > 1)
        for source in begun:
            with pytest.raises(StopAsyncIteration):
                await anext(source)


async def test_an_input_may_call_the_pool_and_is_told_where_it_would_wait_for_itself(
    kind: str,
) -> None:
    """Its call holds one worker: with another one there is help, with none there could never be."""

    async def numbers(pool: Pool) -> AsyncIterator[int]:
        for stop in (2, 3):
            yield await pool.execute("total", {"numbers": Source(stop)})

    async with inputs_pool(kind, size=2) as pool:
        assert await pool.execute("collect", {"items": numbers(pool)}) == [1, 3]
    async with inputs_pool(kind) as pool:
        with pytest.raises(ReentrancyError):
            await pool.execute("collect", {"items": numbers(pool)})


async def test_a_tool_may_ask_its_host_for_each_item(kind: str) -> None:
    async with inputs_pool(kind) as pool:
        pool.add_host_tool(lambda number: number + 1, name="successor")
        source = Source(20)
        found = await pool.execute("asked_for_each", {"items": source})
        assert found == list(range(1, 21))
        assert source.closed == 1


def test_blocking_code_passes_async_iterables() -> None:
    """They run on the pool's loop; a plain generator is told what to be."""
    with snakepit.open_pool_sync(SyncInputs, size=1) as pool:
        assert pool.execute("total", {"numbers": Source(5)}) == 10
        with pool.stream("doubled", {"numbers": Source(3)}) as doubled:
            assert list(doubled) == [0, 2, 4]
        with pytest.raises(SerializationError, match="async iterable"):
            pool.execute("total", {"numbers": (number for number in range(5))})


async def test_many_calls_with_inputs_leave_nothing_behind() -> None:
    async with open_pool(SyncInputs, size=2, min_ready=2) as pool:

        async def call(number: int) -> None:
            with anyio.move_on_after(0.002 * (number % 5) if number % 3 else FOREVER_S):
                assert await pool.execute("total", {"numbers": Source(number)}) == sum(
                    range(number)
                )

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(60):
                    tasks.start_soon(call, number)
        stats = pool.stats()
        assert (stats.busy, stats.queued, stats.workers, stats.restarts) == (0, 0, 2, 0)
