"""The event loop goes on turning while large values are copied, and while memory is given up."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pyarrow
import pytest
from pool_kit import tools_pool, until
from shm_adapters import MIB, Sharer, memory

from snakepit import ZeroCopy
from snakepit.shm import Block

LARGE: dict[str, Callable[[], Any]] = {
    "an array": lambda: np.ones(MIB),
    "an array that is not contiguous": lambda: np.ones(MIB)[::4],
    "a table": lambda: pyarrow.table({"n": np.ones(MIB)}),
    "bytes": lambda: bytes(5 * MIB),
}


@pytest.mark.parametrize("kind", LARGE)
async def test_the_loop_turns_while_a_large_argument_is_copied(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it copied on the loop, nobody would let it."""
    may_go, begun = threading.Event(), threading.Event()
    fill = Block.fill

    def fill_when_let(block: Block, source: Any) -> None:
        begun.set()
        assert may_go.wait(30)
        fill(block, source)

    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=128)) as pool:
        monkeypatch.setattr(Block, "fill", fill_when_let)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "keep", {"value": LARGE[kind]()})
            await until(begun.is_set)
            may_go.set()
        assert memory(pool).copies == 1


async def test_memory_that_a_worker_has_given_up_is_unmapped_in_a_thread() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=128)) as pool:
        result = await pool.execute("ones", {"size": 2 * MIB})
        heap: Any = pool._core.places
        (segment,) = (one for one in heap._by_number.values() if one.size > 8 * MIB)
        ends: list[int] = []
        weakref.finalize(segment.mapping, lambda: ends.append(threading.get_ident()))
        del segment, result
        await pool.execute("give_up_what_idles")
        await until(lambda: ends)
        assert ends != [threading.get_ident()]
