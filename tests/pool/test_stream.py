"""Streams: in order, under a window from end to end, and closed before their block is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import asyncio_only, one_loop_each
from _leaks import is_alive
from adapters import AsyncTools, Tools
from pool_kit import BRISK, lines, pids, tools_pool, until

from snakepit import (
    CallTimeoutError,
    ConfigError,
    InvalidParamsError,
    Pool,
    QueueTimeoutError,
    SerializationError,
    Stream,
    ToolError,
    WorkerDiedError,
)

SETTLE_S = 0.1  # for a tool that could go on to do so

# adapter, tool, further params, tool_backend: each kind of generator on each kind of lane
KINDS = {
    "generator": (Tools, "count", {}, "asyncio"),
    "generator on a loop": (AsyncTools, "count_sync", {}, "asyncio"),
    "generator on trio": (AsyncTools, "count_sync", {}, "trio"),
    "async generator": (AsyncTools, "count", {"backend": "asyncio"}, "asyncio"),
    "async generator on trio": (AsyncTools, "count", {"backend": "trio"}, "trio"),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def counting(
    kind: str, log: Path, stop: int, **options: Any
) -> AsyncGenerator[tuple[Pool, Stream]]:
    """A pool of one worker and a stream of `stop` numbers; the worker is the same at the end."""
    adapter, tool, more, backend = KINDS[kind]
    async with tools_pool(adapter, tool_backend=backend) as pool:
        before = pids(pool)
        async with pool.stream(tool, {"stop": stop, "log": str(log)} | more, **options) as items:
            yield pool, items
        assert [await pool.execute("pid")] == before


def produced(log: Path) -> int:
    return len([line for line in lines(log) if line != "closed"])


@each_kind
@one_loop_each
async def test_items_come_in_the_order_in_which_they_were_made(kind: str, tmp_path: Path) -> None:
    """All 100 of them, through windows small and large; then the iteration ends, for good."""
    for window in (1, 16, 1000):
        log = tmp_path / f"log{window}"
        async with counting(kind, log, 100, window=window) as (_, items):
            assert [item async for item in items] == list(range(100))
            with pytest.raises(StopAsyncIteration):
                await anext(items)
        assert lines(log)[-1] == "closed"


@each_kind
@one_loop_each
@pytest.mark.parametrize("window", [1, 4])
async def test_a_slow_reader_slows_the_tool_down(kind: str, window: int, tmp_path: Path) -> None:
    """Made and not read are never more than the window, and the one that waits to be sent."""
    log = tmp_path / "log"
    async with counting(kind, log, 1000, window=window) as (_, items):
        await until(lambda: produced(log) >= window)
        await anyio.sleep(SETTLE_S)
        assert produced(log) <= window + 1
        for taken in range(1, 13):
            assert await anext(items) == taken - 1
            await until(lambda taken=taken: produced(log) >= taken + window // 2)
            await anyio.sleep(0.01)
            assert produced(log) <= taken + window + 1


async def test_large_items_under_a_window_of_two_arrive_whole() -> None:
    """Forty of 2 MB each."""
    async with tools_pool() as pool:
        params = {"count": 40, "size": 2_000_000}
        async with pool.stream("blobs", params, window=2) as items:
            number = 0
            async for item in items:
                assert item == bytes([number]) * 2_000_000
                number += 1
        assert number == 40


# Leaving early


@each_kind
@one_loop_each
@pytest.mark.parametrize("how", ["break", "raise", "cancel", "unread"])
async def test_leaving_early_closes_the_generator_before_the_block_is_left(
    how: str, kind: str, tmp_path: Path
) -> None:
    """Its `finally` has run, it makes nothing more, and the worker takes the next call."""
    log = tmp_path / "log"
    with anyio.CancelScope() as scope:
        try:
            async with counting(kind, log, 100_000, window=3) as (_, items):
                # `counting` is inside the block: what follows leaves the stream, then the pool.
                if how == "unread":
                    await until(lambda: produced(log))
                else:
                    async for item in items:
                        if item < 3:
                            continue
                        if how == "raise":
                            raise LookupError
                        if how == "cancel":
                            scope.cancel()
                            continue
                        break
        except LookupError:
            assert how == "raise"
    assert lines(log)[-1] == "closed"
    assert produced(log) < 12


async def test_a_generator_s_finally_is_over_when_the_block_is_left(tmp_path: Path) -> None:
    """One that takes 0.2 s is waited for, also by a cancelled reader; then the pool goes on."""
    async with tools_pool() as pool:
        [pid] = pids(pool)
        for how in ("break", "cancel"):
            log = tmp_path / how
            with anyio.CancelScope() as scope:
                async with pool.stream("slow_close", {"log": str(log)}) as items:
                    assert await anext(items) == 0
                    if how == "cancel":
                        scope.cancel()
            assert lines(log) == ["closed"]
        assert await pool.execute("pid") == pid


@asyncio_only
async def test_a_reader_cancelled_again_and_again_still_waits_for_the_generator(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    reading = asyncio.Event()

    async def read(pool: Pool) -> None:
        async with pool.stream("slow_close", {"log": str(log)}) as items:
            async for _ in items:
                reading.set()

    async with tools_pool() as pool:
        task = asyncio.ensure_future(read(pool))
        await reading.wait()
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lines(log) == ["closed"]


async def test_a_generator_that_does_not_stop_loses_its_worker() -> None:
    """It goes on after it was closed: the ladder ends it, and the block is left."""
    async with tools_pool(stop=BRISK) as pool:
        [pid] = pids(pool)
        async with pool.stream("deaf", {}) as items:
            assert await anext(items) == 0
        await until(lambda: not is_alive(pid))
        assert await pool.execute("pid") != pid


async def test_a_stream_that_waits_for_a_worker_and_is_left_never_runs(tmp_path: Path) -> None:
    log, started, release = tmp_path / "log", tmp_path / "started", tmp_path / "release"
    async with tools_pool() as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "hold", {"started": str(started), "release": str(release)})
        await until(started.exists)
        async with pool.stream("count", {"stop": 5, "log": str(log)}):
            assert pool.stats().queued == 1
        assert pool.stats().queued == 0
        release.touch()
        await pool.execute("pid")
    assert lines(log) == []


# Time


async def test_a_timeout_is_raised_where_the_next_item_is_awaited(tmp_path: Path) -> None:
    """Never into the body: that finishes what it does, and then hears of it. Items end at once."""
    log = tmp_path / "log"
    async with tools_pool() as pool:
        [pid] = pids(pool)
        params = {"stop": 100_000, "log": str(log)}
        async with pool.stream("count", params, timeout=0.3, window=4) as items:
            assert await anext(items) == 0
            await until(lambda: lines(log)[-1] == "closed")  # a body that is busy meanwhile
            await anyio.sleep(0.05)
            with pytest.raises(CallTimeoutError) as caught:
                await anext(items)
            assert (caught.value.tool, caught.value.timeout) == ("count", 0.3)
            with pytest.raises(CallTimeoutError):
                await anext(items)
        assert await pool.execute("pid") == pid


async def test_a_timeout_while_an_item_is_awaited_stops_the_tool_first() -> None:
    async with tools_pool() as pool:
        [pid] = pids(pool)
        with pytest.raises(CallTimeoutError):
            async with pool.stream(
                "count_then", {"stop": 2, "what": "stall"}, timeout=1.0
            ) as items:
                assert [await anext(items), await anext(items)] == [0, 1]
                await anext(items)
        assert await pool.execute("pid") == pid


async def test_a_body_that_never_looks_again_never_hears_of_the_timeout(tmp_path: Path) -> None:
    async with tools_pool() as pool:
        log = tmp_path / "log"
        params = {"stop": 100_000, "log": str(log)}
        async with pool.stream("count", params, timeout=0.15) as items:
            assert await anext(items) == 0
            await until(lambda: lines(log)[-1] == "closed")
        assert pool.stats().errors == 1


async def test_a_stream_that_waited_too_long_never_ran(tmp_path: Path) -> None:
    log, started, release = tmp_path / "log", tmp_path / "started", tmp_path / "release"
    async with tools_pool() as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "hold", {"started": str(started), "release": str(release)})
        await until(started.exists)
        with pytest.raises(QueueTimeoutError):
            async with pool.stream("count", {"stop": 3, "log": str(log)}, timeout=0.05) as items:
                await anext(items)
        release.touch()
        await pool.execute("pid")
    assert lines(log) == []


async def test_cancelling_one_wait_for_an_item_loses_no_item(tmp_path: Path) -> None:
    """The stream goes on where it was."""
    async with tools_pool() as pool:
        taken: list[int] = []
        async with pool.stream("count", {"stop": 200}, window=2) as items:
            attempt = 0
            while True:
                attempt += 1
                with anyio.CancelScope() as scope:
                    if attempt % 2:
                        scope.cancel()
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        break
                    taken += [item]
        assert taken == list(range(200))


# Errors


@pytest.mark.parametrize(
    ("what", "kind"),
    [("raise", FileNotFoundError), ("exit", WorkerDiedError), ("unsendable", SerializationError)],
)
async def test_an_error_comes_after_the_items_before_it(what: str, kind: type[Exception]) -> None:
    """Twenty items, unread when the tool fails, and then the error, as often as one asks."""
    async with tools_pool() as pool:
        params = {"stop": 20, "what": what}
        async with pool.stream("count_then", params, window=64) as items:
            if what == "exit":
                await until(lambda: pool.stats().restarts)
            else:
                await until(lambda: not pool.stats().busy)
            assert [await anext(items) for _ in range(20)] == list(range(20))
            for _ in range(2):
                with pytest.raises(kind) as caught:
                    await anext(items)
            if what == "raise":
                assert isinstance(caught.value, ToolError)
                assert getattr(caught.value, "filename", None) == "some/file"
        assert await pool.execute("echo", {"value": 1}) == 1
        assert pool.stats().errors == 1


async def test_a_tool_of_the_other_kind_is_refused() -> None:
    async with tools_pool() as pool:
        with pytest.raises(InvalidParamsError, match="execute"):
            async with pool.stream("echo"):
                pytest.fail("the block was entered")
        with pytest.raises(InvalidParamsError, match="stream"):
            await pool.execute("count", {"stop": 1})
        assert pool.stats().requests == 0


@one_loop_each
@pytest.mark.parametrize("window", [0, -1, 1.5, True, "2", None, 2**16 + 1])
async def test_a_window_that_is_none_is_refused(window: Any) -> None:
    async with tools_pool() as pool:
        with pytest.raises(ConfigError) as caught:
            async with pool.stream("count", {"stop": 1}, window=window):
                pytest.fail("the block was entered")
        assert (caught.value.option, caught.value.value) == ("window", window)


async def test_two_tasks_that_read_one_stream_are_told() -> None:
    """The second one gets BusyResourceError; the first one goes on."""
    params = {"stop": 0, "what": "stall"}
    async with (
        tools_pool() as pool,
        pool.stream("count_then", params) as items,
        anyio.create_task_group() as tasks,
    ):

        async def read() -> None:
            await anext(items)

        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await anext(items)
        tasks.cancel_scope.cancel()


async def test_a_stream_used_after_its_block_is_closed() -> None:
    async with tools_pool() as pool:
        async with pool.stream("count", {"stop": 50}, window=4) as items:
            assert await anext(items) == 0
        for _ in range(2):
            with pytest.raises(anyio.ClosedResourceError):
                await anext(items)


async def test_reading_is_a_checkpoint_also_where_items_are_there() -> None:
    """A reader of items that have all come does not starve its neighbours."""
    turns: list[int] = []
    async with tools_pool() as pool, pool.stream("count", {"stop": 30}, window=64) as items:
        await until(lambda: not pool.stats().busy)
        async with anyio.create_task_group() as tasks:

            async def neighbour() -> None:
                while True:
                    turns.append(1)
                    await anyio.lowlevel.checkpoint()

            tasks.start_soon(neighbour)
            assert len([item async for item in items]) == 30
            tasks.cancel_scope.cancel()
    assert len(turns) >= 15


async def test_streams_and_calls_side_by_side() -> None:
    """Four streams on three workers with plain calls in between: each gets its own items."""
    async with tools_pool(size=3) as pool:
        sums: list[int] = []

        async def read(stop: int) -> None:
            total = 0
            async with pool.stream("count", {"stop": stop}, window=5) as items:
                async for item in items:
                    total += item
            sums.append(total - stop * (stop - 1) // 2)

        async def call() -> None:
            for number in range(30):
                assert await pool.execute("echo", {"value": number}) == number

        async with anyio.create_task_group() as tasks:
            for stop in (50, 60, 70, 80):
                tasks.start_soon(read, stop)
                tasks.start_soon(call)
        assert sums == [0, 0, 0, 0]
