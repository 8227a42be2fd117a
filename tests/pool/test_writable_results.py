"""`copy_results`: what a caller gets is his own to write, on every transport, and nobody else sees it."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import anyio
import numpy as np
import pytest
from _backends import asyncio_only, one_loop_each, trio_only
from _values_kit import portrait, read_only
from pool_kit import tools_pool
from test_values_on_every_transport import TABLE, TRANSPORTS, pool_on_each_transport
from value_adapters import Holder

from snakepit import ConfigError, Pool, ZeroCopy
from snakepit.pool import _codec
from snakepit.protocol import decode_value, encode_value
from snakepit.shm import private_copy

pytestmark = one_loop_each

MIB = 2**20
ARRAYS = re.compile(r"^(numpy\.ndarray|builtins\.memoryview)")
OWN = ZeroCopy(copy_results=True, budget_mb=128)


@pytest.mark.unmeasured
@trio_only
async def test_values_are_the_same_and_can_be_written() -> None:
    async with pool_on_each_transport(zero_copy=OWN) as pools:
        for family, table in TABLE.items():
            for name, value in table.items():
                body, buffers = encode_value(value)
                given = decode_value(body, tuple(map(bytes, buffers)), copy=bytearray)
                expected = portrait(given)
                assert not ARRAYS.search(expected) or not read_only(given), name
                for transport, pool in pools.items():
                    made = await pool.execute("make", {"family": family, "name": name})
                    assert portrait(made) == expected, f"{name} on {transport}"


@trio_only
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_written_into_results_and_items_nobody_else_sees(transport: str) -> None:
    async with tools_pool(Holder, transport=transport, zero_copy=OWN) as pool:
        for size in (100, MIB, 6 * MIB):
            array, view, deep = await pool.execute("make", {"size": size})
            array[:], view[:], deep["deep"][0][:] = 1, b"x" * size, 1
            assert await pool.execute("made_is_zero")
            mine = pool.empty(size, "u1")
            mine[:] = 0
            back = await pool.execute("echo", {"value": mine})
            back[:] = 1
            assert not mine.any()
        mine = pool.empty((2048, 1024), "i8")
        mine[:] = 0
        back = await pool.execute("echo", {"value": mine[::-2, ::3]})
        back[:] = 1  # what is not contiguous is another's no more than the rest
        assert not mine.any()
        async with pool.stream("count", {"parts": 4}, window=2) as arrays:
            assert [written(array) for array in [item async for item in arrays]] == [0, 1, 2, 3]
        params = [{"value": np.full(6 * MIB, number, "u1")} for number in range(3)]
        async with pool.map("echo", params) as results:
            assert [written(array) async for array in results] == [0, 1, 2]


def written(array: Any) -> int:
    """What it was full of before it was written."""
    number = int(array[-1])
    assert (array == number).all()
    array[:] = 77
    return number


class Slow:
    """Copies as the pool does, once it is let; it says from where it was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go = threading.Event()
        self.begun = threading.Event()
        self.count = 0
        self.error: Exception | None = None
        monkeypatch.setattr(_codec, "private_copy", self)

    def __call__(self, source: Any) -> Any:
        self.count += 1
        self.begun.set()
        assert self.may_go.wait(30)
        if self.error is not None:
            raise self.error
        return private_copy(source)


async def begun(slow: Slow) -> None:
    while not slow.begun.is_set():
        await anyio.sleep(0.001)


async def test_the_loop_turns_while_a_large_result_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with tools_pool(Holder, transport="shm", zero_copy=OWN) as pool:
        slow = Slow(monkeypatch)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get_and_check, pool)
            await begun(slow)
            assert await pool.execute("echo", {"value": 7}) == 7  # of another caller
            slow.may_go.set()


async def get_and_check(pool: Pool) -> None:
    assert written(await pool.execute("echo", {"value": np.ones(MIB)})) == 1


@pytest.mark.parametrize("way", ["stream", "map"])
async def test_a_reader_cancelled_in_the_copy_loses_no_item(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tools_pool(Holder, transport="shm", zero_copy=OWN) as pool:
        slow = Slow(monkeypatch)
        params = [{"value": np.full(6 * MIB, number, "u1")} for number in range(3)]
        block: Any = (
            pool.stream("count", {"parts": 3}, window=3)
            if way == "stream"
            else pool.map("echo", params)
        )
        async with block as items:
            seen: list[int] = []

            async def read_one() -> None:
                seen.append(written(await anext(items)))

            for number in range(3):
                slow.begun.clear()
                slow.may_go.clear()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read_one)
                    await begun(slow)
                    tasks.cancel_scope.cancel()
                    slow.may_go.set()
                if len(seen) == number:  # else it had been copied before the cancel was seen
                    await read_one()
            assert seen == [0, 1, 2]
            with pytest.raises(StopAsyncIteration):
                await anext(items)


@asyncio_only
@pytest.mark.parametrize(
    ("way", "fails"), [("stream", False), ("map", False), ("stream", True)], ids=str
)
async def test_a_copy_that_asyncio_has_cut_a_reader_off_from_is_not_begun_anew(
    way: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader with less patience than the copy takes would never see the item."""
    async with tools_pool(Holder, transport="shm", zero_copy=OWN) as pool:
        slow = Slow(monkeypatch)
        block: Any = (
            pool.stream("count", {"parts": 2})
            if way == "stream"
            else pool.map("echo", [{"value": np.full(6 * MIB, number, "u1")} for number in (0, 1)])
        )
        async with block as items:
            reader = asyncio.create_task(anext(items))
            await begun(slow)
            for _ in range(3):
                reader.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reader
                reader = asyncio.create_task(anext(items))
                await asyncio.sleep(0)
            slow.error = MemoryError("no room at all") if fails else None
            slow.may_go.set()
            if fails:
                with pytest.raises(MemoryError, match="no room at all"):
                    await reader
                slow.error = None
            else:
                assert written(await reader) == 0
            assert slow.count == 1
            assert written(await anext(items)) == 1


async def test_it_is_an_option_that_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"ZeroCopy\.copy_results"):
        ZeroCopy(copy_results=1)  # type: ignore[arg-type]
