"""`run_pool` in each kind of nursery: trio's, anyio's, asyncio's, and trio's with asyncio inside."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio
from _backends import asyncio_only, trio_only
from adapters import BadStart, Tools
from pool_kit import PATIENT, all_gone, pids, run_script

from snakepit import Pool, PoolClosedError, WorkerStartError, run_pool

run_tools = partial(run_pool, Tools, size=1, stop=PATIENT)


@trio_only
async def test_in_a_nursery_of_trio() -> None:
    async with trio.open_nursery() as nursery:
        pool: Pool = await nursery.start(run_tools)
        found = pids(pool)
        assert await pool.execute("pid") == found[0]
        nursery.cancel_scope.cancel()
    assert all_gone(found)


async def test_in_a_task_group_of_anyio() -> None:
    async with anyio.create_task_group() as tasks:
        pool: Pool = await tasks.start(run_tools)
        found = pids(pool)
        assert await pool.execute("pid") == found[0]
        tasks.cancel_scope.cancel()
    assert all_gone(found)


@asyncio_only
async def test_in_a_task_group_of_asyncio() -> None:
    """It has no `start`: a future takes the pool."""
    async with asyncio.TaskGroup() as group:
        opened: asyncio.Future[Pool] = asyncio.Future()
        status: Any = SimpleNamespace(started=opened.set_result)
        task = group.create_task(run_tools(task_status=status))
        pool = await opened
        found = pids(pool)
        calls = [group.create_task(pool.execute("add", {"left": n})) for n in range(5)]
        assert await asyncio.gather(*calls) == [1, 2, 3, 4, 5]
        task.cancel()
    assert task.cancelled()
    assert all_gone(found)
    with pytest.raises(PoolClosedError):
        await pool.execute("pid")


@asyncio_only
async def test_one_that_cannot_start_fails_its_task_group_of_asyncio() -> None:
    """Whoever waits for the pool is cancelled, and the group raises what kept it from starting."""
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            opened: asyncio.Future[Pool] = asyncio.Future()
            status: Any = SimpleNamespace(started=opened.set_result)
            group.create_task(
                run_pool(BadStart, size=1, adapter_args=("raise",), task_status=status)
            )
            await opened
    assert [type(error) for error in caught.value.exceptions] == [WorkerStartError]


# Importing trio_asyncio changes asyncio for the whole process, so it is imported in another one.
BOTH_SIDES = """
import asyncio, trio, trio_asyncio, snakepit
from adapters import Tools

async def main():
    async with trio_asyncio.open_loop():
        async with snakepit.open_pool(Tools, size=1) as pool:
            pid = await pool.execute("pid")

            async def in_asyncio():
                execute = trio_asyncio.trio_as_aio(pool.execute)
                print("same worker:", await execute("pid") == pid)
                try:
                    await pool.execute("pid")
                except RuntimeError as error:
                    print("without a bridge:", "event loop that opened it" in str(error))
                try:
                    async with asyncio.timeout(0.2):
                        await execute("sleep", {"started": "/dev/null"})
                except TimeoutError:
                    print("cancelled:", pool.stats().busy)

            await trio_asyncio.aio_as_trio(in_asyncio)()
            print("kept:", await pool.execute("pid") == pid)

if __name__ == "__main__":
    trio.run(main)
"""
OTHER_SIDE = """
import asyncio, trio, trio_asyncio, snakepit
from adapters import Tools

async def use():
    async with snakepit.open_pool(Tools, size=1) as pool:
        async with pool.stream("count", {"stop": 3}) as items:
            print([item async for item in items], await pool.execute("add", {"left": 1}))

async def main():
    async with trio_asyncio.open_loop():
        await trio_asyncio.aio_as_trio(use)()

if __name__ == "__main__":
    trio.run(main)
    asyncio.run(use())  # on trio as well, once trio_asyncio is there
"""


def test_under_trio_asyncio_a_pool_of_trio_serves_both_sides(tmp_path: Path) -> None:
    """Tasks of asyncio reach it by `trio_as_aio`; without, they are told that it is another loop's."""
    result = run_script(tmp_path, BOTH_SIDES)
    assert result.stdout.splitlines() == [
        "same worker: True",
        "without a bridge: True",
        "cancelled: 0",
        "kept: True",
    ], result.stderr
    assert result.returncode == 0


def test_under_trio_asyncio_a_task_of_asyncio_may_have_a_pool_of_its_own(tmp_path: Path) -> None:
    result = run_script(tmp_path, OTHER_SIDE)
    assert result.stdout.splitlines() == ["[0, 1, 2] 2", "[0, 1, 2] 2"], result.stderr
    assert result.returncode == 0
