"""What nobody looks at any more is given back: nothing of the pool's keeps it longer."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from pool_kit import PATIENT, tools_pool, until
from shm_adapters import MIB, AsyncSharer, Sharer, memory

from snakepit import ZeroCopy, open_pool

pytestmark = one_loop_each


def segments_mapped() -> int:
    """By this process; ledgers are less."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "memfd:snakepit" in line]
    return sum(int(end, 16) - int(start, 16) >= MIB for start, end in ranges)


async def test_a_pool_that_is_closed_keeps_no_memory_of_its_workers() -> None:
    """Not even one that somebody still refers to."""
    gc.collect()
    before = segments_mapped()
    async with open_pool(Sharer, size=1, transport="shm", stop=PATIENT) as pool:
        result = await pool.execute("ones", {"size": MIB})
        mine = pool.empty(MIB)
    assert result.sum() == MIB
    del result, mine
    gc.collect()  # the channels are cycles
    assert segments_mapped() == before
    assert pool.stats().workers == 0


async def test_a_call_that_was_cancelled_keeps_its_arguments_no_longer(tmp_path: Path) -> None:
    """Not for the grace that it was given, which is half a minute here."""
    sign = tmp_path / "sign"
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=64)) as pool:

        async def ponder() -> None:
            array = pool.empty(MIB)
            await pool.execute("ponder", {"value": array, "sign": str(sign)})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ponder)
            await until(sign.exists)
            tasks.cancel_scope.cancel()
        gc.collect()
        await until(lambda: memory(pool).used_bytes == 0)


@pytest.mark.parametrize("adapter", [Sharer, AsyncSharer])
async def test_a_worker_keeps_nothing_of_a_stream_that_was_cut_short(adapter: Any) -> None:
    async with tools_pool(adapter, transport="shm", zero_copy=ZeroCopy(budget_mb=64)) as pool:
        array = pool.empty(MIB)
        async with pool.stream("yield_and_wait", {"value": array}) as items:
            assert await anext(items) == 1
            assert memory(pool).leases == 1
        await until(lambda: memory(pool).leases == 0)


async def test_a_stream_that_was_left_keeps_nothing_unread() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=128)) as pool:
        params: dict[str, Any] = {"parts": 8, "size": MIB}
        async with pool.stream("count", params, window=4) as items:
            await until(lambda: len(items._call.items) == 4)
        assert not items._call.items
        while await pool.execute("in_use"):
            pass  # the last of it may be on its way
