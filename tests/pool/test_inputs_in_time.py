"""Inputs under virtual time: waits that cost nothing, and a cancel at each moment there is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import virtual_time
from _shares import in_turns
from input_tools import AsyncInputs, SyncInputs

from snakepit import CallTimeoutError, Pool, WorkerDiedError, open_pool
from snakepit.testing import (
    CancelPoint,
    Delay,
    Die,
    Faults,
    MemoryTransport,
    cancel_at_every_checkpoint,
)

HOUR_S = 3600.0
SEEDS = (0, 1, 2)
both = pytest.mark.parametrize("adapter", [SyncInputs, AsyncInputs])


class Source:
    """Numbers, one in `pause`; closing takes its time, too."""

    def __init__(self, stop: int, pause: float = 0.0) -> None:
        self.stop, self.pause = stop, pause
        self.begun = self.pulled = self.closed = 0

    async def __aiter__(self) -> AsyncIterator[int]:
        self.begun += 1
        try:
            for number in range(self.stop):
                await anyio.sleep(self.pause)
                self.pulled += 1
                yield number
        finally:
            self.closed += 1
            await anyio.sleep(self.pause)


@virtual_time
@both
async def test_a_tool_waits_for_its_input_all_day(adapter: type) -> None:
    """Also in a thread: the clock runs while that waits, and not while it computes."""
    began, real = anyio.current_time(), time.monotonic()
    async with open_pool(adapter, size=1, transport="memory") as pool:
        assert await pool.execute("total", {"numbers": Source(24, HOUR_S)}) == 276
        assert anyio.current_time() - began == 25 * HOUR_S
        with pytest.raises(CallTimeoutError):
            await pool.execute("total", {"numbers": Source(24, HOUR_S)}, timeout=10 * HOUR_S)
        assert anyio.current_time() - began == 35 * HOUR_S
    assert time.monotonic() - real < 20


@virtual_time
@both
@pytest.mark.parametrize("window", [1, 2, 7])
async def test_the_window_holds_over_a_slow_link(adapter: type, window: int) -> None:
    """However late credit and items come, no more is pulled than was taken and may wait."""
    slow = MemoryTransport(faults=lambda passage: Delay(0.001 * (1 + passage.number % 5)))
    async with open_pool(adapter, size=1, transport=slow) as pool:
        source = Source(50)
        async with pool.stream("doubled", {"numbers": source}, window=window) as doubled:
            taken = 0
            async for number in doubled:
                assert number == 2 * taken
                taken += 1
                # Unread chunks, one in the tool's hands, unread items.
                assert source.pulled <= taken + window + 1 + window
        assert taken == 50


async def execute(pool: Pool, sources: list[Source]) -> None:
    await pool.execute("zipped", {"left": sources[0], "right": sources[1]})


async def execute_less(pool: Pool, sources: list[Source]) -> None:
    await pool.execute("fail_after", {"items": sources[0], "count": 2})


async def stream(pool: Pool, sources: list[Source]) -> None:
    async with pool.stream("doubled", {"numbers": sources[0]}, window=2) as doubled:
        async for _ in doubled:
            pass


async def map_them(pool: Pool, sources: list[Source]) -> None:
    items = [{"numbers": source} for source in sources]
    async with pool.map("total", items, limit=2) as results:
        async for _ in results:
            pass


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("call", "seed"), in_turns(SEEDS, [execute, execute_less, stream, map_them])
)
def test_cancelled_at_each_checkpoint(
    call: Callable[[Pool, list[Source]], Awaitable[Any]], seed: int
) -> None:
    """Input and tool have ended when the call returns, and the next one finds the pool whole."""

    async def main(point: CancelPoint) -> None:
        async with open_pool(AsyncInputs, size=1, transport="memory") as pool:
            sources = [Source(6, 0.01), Source(6, 0.01)]
            try:
                with point:
                    await call(pool, sources)
            except LookupError as error:
                assert call is execute_less, error
            for source in sources:
                assert source.closed == source.begun <= 1
            assert (pool.stats().busy, pool.stats().queued) == (0, 0)
            with anyio.fail_after(1):
                assert await pool.execute("total", {"numbers": Source(3)}) == 3
            assert pool.stats().restarts == 0

    assert cancel_at_every_checkpoint(main, seed=seed) > 20


@virtual_time
@both
@pytest.mark.parametrize("message", ["InputCredit", "InputItem", "InputEnd"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_at_any_message_of_an_input_ends_both(
    adapter: type, message: str, when: Any, tmp_path: Path
) -> None:
    """The next call has a worker, and its own input."""
    faults = Faults({message: Die(when)})
    params = {"count": 10, "log": str(tmp_path / "log")}
    async with open_pool(adapter, size=1, transport=MemoryTransport(faults=faults)) as pool:
        source = Source(5, HOUR_S)
        asked = not (message == "InputCredit" and when == "before")
        if asked:
            with pytest.raises(WorkerDiedError):
                await pool.execute("first", {"items": source, **params})
        else:  # nothing was pulled, so the idempotent call is made again
            assert await pool.execute("first", {"items": source, **params, "count": 5}) == [
                *range(5)
            ]
        assert source.begun == source.closed == 1
        assert await pool.execute("total", {"numbers": Source(3)}) == 3
