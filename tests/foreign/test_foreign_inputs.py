"""Async iterables as arguments of tools in other languages: the two workers from the document alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from test_foreign_worker import foreign_pool
from test_node_worker import node_is_there, node_pool
from test_what_goes_wrong import replaced, rude_pool

from snakepit import CallTimeoutError, InvalidParamsError, WorkerDiedError

pytestmark = one_loop_each

needs_node = pytest.mark.skipif(
    not node_is_there(), reason="needs Node.js 18 or newer, and what .ci/node installs"
)
both = pytest.mark.parametrize(
    "open_it", [foreign_pool, pytest.param(node_pool, marks=needs_node)], ids=["python", "node"]
)
ENDLESS = 10**9


class Source:
    def __init__(self, stop: int = ENDLESS, *, item: Any = None) -> None:
        self.stop, self.item = stop, item
        self.pulled = self.closed = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for number in range(self.stop):
                await anyio.lowlevel.checkpoint()
                self.pulled += 1
                yield number if self.item is None else self.item
        finally:
            self.closed += 1


@both
async def test_items_arrive_in_order_until_the_end(open_it: Any) -> None:
    async with open_it() as pool:
        assert await pool.execute("total", {"numbers": Source(100)}) == 4950
        assert await pool.execute("total", {"numbers": Source(0)}) == 0
        assert await pool.execute("first", {"items": Source(3), "count": 9}) == [0, 1, 2]


@both
async def test_large_items_arrive_whole(open_it: Any) -> None:
    async with open_it() as pool:
        params = {"items": Source(item=b"l" * 2_000_000), "count": 3}
        assert await pool.execute("first", params) == [b"l" * 2_000_000] * 3


@both
async def test_a_tool_that_returns_early_closes_its_input(open_it: Any) -> None:
    """No more is pulled than the window allows; the next call has its own input."""
    source = Source()
    async with open_it() as pool:
        assert await pool.execute("first", {"items": source, "count": 4}) == [0, 1, 2, 3]
        assert source.closed == 1
        assert source.pulled <= 4 + 16
        assert await pool.execute("total", {"numbers": Source(3)}) == 3


@both
async def test_an_input_and_a_stream_make_a_transformer(open_it: Any) -> None:
    source = Source()
    async with open_it() as pool:
        async with pool.stream("doubled", {"numbers": source}, window=2) as doubled:
            assert [await anext(doubled) for _ in range(20)] == list(range(0, 40, 2))
        assert source.closed == 1
        assert source.pulled <= 20 + 2 + 2 + 1
        assert await pool.execute("total", {"numbers": Source(3)}) == 3


@both
async def test_a_tool_that_waits_for_an_item_can_be_cancelled(open_it: Any) -> None:
    """Its worker lives on."""

    async def stalled() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    async with open_it() as pool:
        pid = await pool.execute("pid")
        with pytest.raises(CallTimeoutError):
            await pool.execute("total", {"numbers": stalled()}, timeout=0.5)
        assert await pool.execute("pid") == pid


@needs_node
async def test_an_argument_with_a_type_takes_no_input_in_javascript() -> None:
    async with node_pool() as pool:
        with pytest.raises(InvalidParamsError, match="'until' must be of type integer"):
            async with pool.stream("count", {"until": Source(1)}) as numbers:
                await anext(numbers)


BREACHES = {
    "credit beyond the window": [44, "ID", 0, 17],
    "credit of nothing": [44, "ID", 0, 0],
    "credit below nothing": [44, "ID", 0, -1],
    "an input that is not there": [44, "ID", 1, 1],
    "an input below the first": [44, "ID", -1, 1],
    "no more of what is not there": [45, "ID", 3],
    "a call that is not there": [44, 2**40, 0, 1],
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_breach_condemns_the_worker_and_closes_the_input(breach: str) -> None:
    source = Source()
    messages = [BREACHES[breach], [34, "ID", "too late"]]
    async with rude_pool() as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("say", {"messages": messages, "items": source})
        assert caught.value.reason.startswith("broke the protocol (call ")
        assert source.pulled == 0
        await replaced(pool)


async def test_credit_counts_until_it_is_used() -> None:
    """Sixteen, and then one more before any item was pulled."""

    async def stalled() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 1

    messages = [[44, "ID", 0, 10], [44, "ID", 0, 8], [34, "ID", "too late"]]
    async with rude_pool() as pool:
        with pytest.raises(WorkerDiedError, match="more than its window allows"):
            await pool.execute("say", {"messages": messages, "items": stalled()})
