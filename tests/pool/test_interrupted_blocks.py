"""Ctrl+C at every step of entering and leaving a block on trio: it is a KeyboardInterrupt, and the block is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any

import pytest
import trio
from interrupts import CtrlC, each_step

from snakepit import Adapter, Pool, open_pool, run_pool, tool

FOREVER_S = 10**6
KIND = "AsyncGenerator"


class Quick(Adapter):
    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def cleanup(self) -> None:
        self.log.append("cleanup")

    @tool
    async def echo(self, value: Any = None) -> Any:
        return value

    @tool
    async def count(self) -> AsyncIterator[int]:
        for number in range(10**9):
            yield number


def open_quick(log: list[str]) -> AbstractAsyncContextManager[Pool]:
    return open_pool(adapter_of(log), size=1, transport="memory")


def adapter_of(log: list[str]) -> type[Adapter]:
    """In memory a worker is no other process: it may have our list."""
    return type("Quick", (Quick,), {"__init__": lambda self: Quick.__init__(self, log)})


def interrupted(main: Callable[[], Awaitable[None]], interrupt: CtrlC) -> None:
    """Run it on trio; it must end with KeyboardInterrupt, in a group or not, and with nothing else."""
    try:
        trio.run(main)
    except KeyboardInterrupt:
        return
    except BaseExceptionGroup as group:
        assert group.split(KeyboardInterrupt)[1] is None, interrupt.where
        return
    finally:
        interrupt.end()
    assert not interrupt.where, f"nobody was told of the one at {interrupt.where}"


def test_a_second_one_while_a_pool_is_left() -> None:
    """The first one leaves the block, which may be left already, but not skipped."""
    for interrupt in each_step("_block", "_open", kind=KIND):
        log: list[str] = []

        async def main(interrupt: CtrlC = interrupt, log: list[str] = log) -> None:
            async with open_quick(log):
                interrupt.begin()
                raise KeyboardInterrupt

        interrupted(main, interrupt)
        assert log == ["cleanup"], interrupt.where


def test_one_while_a_pool_is_entered() -> None:
    for interrupt in each_step("_block", "_open", kind=KIND):
        log: list[str] = []
        entered: list[Pool] = []

        async def main(
            interrupt: CtrlC = interrupt, log: list[str] = log, entered: list[Pool] = entered
        ) -> None:
            interrupt.begin()
            async with open_quick(log) as pool:
                entered.append(pool)
                interrupt.end()
                if interrupt.where:
                    await trio.sleep(FOREVER_S)

        interrupted(main, interrupt)
        assert len(log) >= len(entered), interrupt.where


def test_a_second_one_while_a_nursery_leaves_a_pool_of_its_own() -> None:
    for interrupt in each_step("_block", "_open", kind=KIND):
        log: list[str] = []

        async def main(interrupt: CtrlC = interrupt, log: list[str] = log) -> None:
            async with trio.open_nursery() as nursery:
                options = {"size": 1, "transport": "memory"}
                await nursery.start(partial(run_pool, adapter_of(log), **options))
                interrupt.begin()
                raise KeyboardInterrupt

        interrupted(main, interrupt)
        assert log == ["cleanup"], interrupt.where


BLOCKS: dict[str, Callable[[Pool], AbstractAsyncContextManager[Any]]] = {
    "session": lambda pool: pool.session("one"),
    "stream": lambda pool: pool.stream("count"),
    "map": lambda pool: pool.map("echo", ({"value": number} for number in range(10**6))),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_second_one_while_a_block_of_a_pool_is_left(kind: str) -> None:
    """Whoever takes it for what ends the block alone has the pool as it was before."""
    for interrupt in each_step("_block", kind=KIND):
        after: list[tuple[int, int]] = []

        async def main(interrupt: CtrlC = interrupt, after: list[tuple[int, int]] = after) -> None:
            async with open_quick([]) as pool:
                with suppress(KeyboardInterrupt):
                    async with BLOCKS[kind](pool):
                        interrupt.begin()
                        raise KeyboardInterrupt
                interrupt.end()
                with suppress(KeyboardInterrupt):  # where it could not be told before
                    await trio.sleep(0.001)
                assert await pool.execute("echo", {"value": 5}) == 5
                after.append((pool.stats().busy, len(pool._core.sessions._live)))

        trio.run(main)
        assert after == [(0, 0)], interrupt.where
