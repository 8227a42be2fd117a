"""Pools with shared memory: large values are not copied, and nobody's end or lie harms the others."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pyarrow
import pytest
from _backends import one_loop_each
from pool_kit import PATIENT, pids, run_script, tools_pool, until
from shm_adapters import LIES, MIB, AsyncSharer, Sharer, memory, where

from snakepit import (
    CallTimeoutError,
    ConfigError,
    Pool,
    WorkerDiedError,
    WorkerMemoryStats,
    ZeroCopy,
    open_pool,
    open_pool_sync,
)
from snakepit.transports import _shm_copies


def open_fds() -> int:
    return len(os.listdir("/dev/fd"))


@asynccontextmanager
async def shm_pool(adapter: Any = Sharer, **options: Any) -> AsyncGenerator[Pool]:
    options = {"zero_copy": ZeroCopy(budget_mb=256)} | options
    async with tools_pool(adapter, transport="shm", **options) as pool:
        yield pool


async def test_an_array_from_the_heap_is_copied_once_and_comes_back_without_a_copy() -> None:
    async with shm_pool() as pool:
        array = np.arange(MIB)
        back = await pool.execute("echo", {"value": array})
        assert (back == array).all()
        assert not back.flags.writeable
        assert memory(pool).copied_bytes == array.nbytes
        assert await pool.execute("copied") == 0
        again = await pool.execute("echo", {"value": {"deep": [(back,)]}})
        assert where(again["deep"][0][0]) == where(back)
        assert memory(pool).copied_bytes == array.nbytes


async def test_what_is_born_in_shared_memory_is_never_copied() -> None:
    async with shm_pool() as pool:
        array = pool.empty((1000, 1000), "f4")
        array[:] = 1
        assert array.shape == (1000, 1000)
        assert await pool.execute("total", {"array": array}) == 1_000_000
        half = await pool.execute("half", {"array": array})
        assert where(half) == where(array) + array.nbytes // 2
        buffer = pool.buffer(2 * MIB)
        buffer[:5] = b"snake"
        back = await pool.execute("echo", {"value": buffer})
        assert bytes(back[:5]) == b"snake"
        assert memory(pool).copied_bytes == 0
        assert memory(pool).references == 3


@one_loop_each
@pytest.mark.parametrize("told_by", ["the loop", "the next call"])
async def test_workers_are_told_of_what_made_room(
    told_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shm_pool(size=1, zero_copy=ZeroCopy(budget_mb=16)) as pool:
        first = pool.buffer(5 * MIB)
        await pool.execute("keep", {"value": first})
        await pool.execute("forget")
        del first
        await until(lambda: memory(pool).used_bytes == 0)
        if told_by == "the next call":
            monkeypatch.setattr(pool._core.loop, "call_soon", lambda _: None)
        second = pool.buffer(6 * MIB)
        assert pool._core.settings.shm is not None
        heap = pool._core.settings.shm.heap
        assert heap.has_news
        if told_by == "the next call":
            await pool.execute("keep", {"value": second})
        await until(lambda: not heap.has_news)
        await pool.execute("keep", {"value": second})
        assert await pool.execute("segments_known") == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_async_tools_share_memory_as_well(backend: str) -> None:
    async with shm_pool(AsyncSharer, tool_backend=backend) as pool:
        made = await pool.execute("born_there", {"size": MIB})
        assert (made == 7).all()
        assert where(await pool.execute("echo", {"value": made})) == where(made)
        assert memory(pool).copied_bytes == 0


async def test_results_are_views_of_the_worker_s_memory_and_go_to_other_workers_as_they_are() -> (
    None
):
    async with shm_pool(size=2) as pool:
        made = await pool.execute("born_there", {"size": MIB})
        async with anyio.create_task_group() as tasks:
            for _ in range(4):  # on both workers
                tasks.start_soon(pool.execute, "total", {"array": made})
        assert await pool.execute("total", {"array": made}) == 7 * MIB
        assert memory(pool).copied_bytes == 0
        async with pool.session() as first, pool.session() as second:
            assert await first.execute("copied") == await second.execute("copied") == 0


async def test_items_of_a_stream_are_not_copied() -> None:
    async with shm_pool() as pool:
        async with pool.stream("count", {"parts": 20, "size": 2 * MIB}, window=3) as arrays:
            seen = [int(array[-1]) async for array in arrays]
        assert seen == list(range(20))
        assert await pool.execute("copied") == 0


async def test_tables_and_arrays_of_any_layout_travel() -> None:
    async with shm_pool() as pool:
        table = pyarrow.table({"n": np.arange(MIB), "s": ["x"] * MIB})
        assert (await pool.execute("echo", {"value": table})).equals(table)
        assert (await pool.execute("table")).equals(pyarrow.table({"n": np.arange(MIB)}))
        fortran = np.asfortranarray(np.arange(MIB).reshape(1024, 1024))
        for array in (fortran, fortran[::2, ::3], fortran.T[5:]):
            back = await pool.execute("echo", {"value": array})
            assert (back == array).all()


async def test_memory_is_given_back_when_the_last_look_is_over() -> None:
    async with shm_pool() as pool:
        await pool.execute("keep", {"value": np.ones(MIB)})
        assert memory(pool).leases == 1
        assert memory(pool).used_bytes >= 8 * MIB
        assert memory(pool).lent_bytes == {pool.workers()[0].id: 8 * MIB}
        assert memory(pool).oldest_lease_s is not None
        await pool.execute("forget")
        await until(lambda: memory(pool).leases == 0)
        assert memory(pool).used_bytes == 0
        assert memory(pool).oldest_lease_s is None
        assert memory(pool).lent_bytes == {pool.workers()[0].id: 0}
        result = await pool.execute("born_there", {"size": MIB})
        assert await pool.execute("in_use") == 8 * MIB
        (told,) = memory(pool).workers.values()
        assert told == WorkerMemoryStats(8 * MIB, 0, 1, 0, 0, 0)
        del result
        gc.collect()
        assert await pool.execute("in_use") == 0
        await pool.execute("ones", {"size": 2 * MIB})
        (told,) = memory(pool).workers.values()
        assert told == WorkerMemoryStats(16 * MIB, 8 * MIB, 2, 1, 16 * MIB, 0)


async def test_a_worker_that_dies_gives_all_back_and_what_it_made_stays() -> None:
    async with shm_pool() as pool:
        made = await pool.execute("born_there", {"size": MIB})
        await pool.execute("keep", {"value": np.ones(MIB)})
        with pytest.raises(WorkerDiedError):
            await pool.execute("die", {"value": np.ones(MIB)})
        assert memory(pool).leases == 0
        assert memory(pool).used_bytes == 0
        assert (made == 7).all()
        assert await pool.execute("total", {"array": made}) == 7 * MIB  # of the next worker
    assert (made == 7).all()


async def test_a_call_that_is_given_up_gives_its_memory_back(tmp_path: Path) -> None:
    async with shm_pool() as pool:
        before = pids(pool)
        with pytest.raises(CallTimeoutError):
            await pool.execute(
                "ponder", {"value": np.ones(MIB), "sign": str(tmp_path / "x")}, timeout=0.3
            )
        await until(lambda: memory(pool).leases == 0)
        assert pids(pool) == before


async def test_a_tool_is_never_interrupted_within_the_books(tmp_path: Path) -> None:
    """Each cancel lands in a loop of nothing but `snakepit.empty`; then all of it is back."""
    async with shm_pool() as pool:
        before = pids(pool)
        for number in range(10):
            sign = tmp_path / str(number)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.execute, "make_until_stopped", {"sign": str(sign)})
                await until(sign.exists)
                tasks.cancel_scope.cancel()
        assert await pool.execute("in_use") == 0
        assert pids(pool) == before


@one_loop_each
@pytest.mark.parametrize("lies", [LIES[::2], LIES[1::2]], ids=["some", "others"])
async def test_a_worker_that_lies_is_ended_and_the_pool_goes_on(lies: tuple[str, ...]) -> None:
    async with shm_pool() as pool:
        assert await pool.execute("total", {"array": np.ones(MIB)}) == MIB
        for kind in lies:
            before = open_fds()
            with pytest.raises(WorkerDiedError, match="broke the protocol"):
                await pool.execute("lie", {"kind": kind})
            assert await pool.execute("total", {"array": np.ones(MIB)}) == MIB, kind
            await until(lambda before=before: open_fds() <= before)  # what came with it is closed


@one_loop_each
@pytest.mark.parametrize("has_shared", [True, False], ids=["later on", "from the first"])
async def test_a_worker_without_descriptors_says_so(has_shared: bool) -> None:
    async with shm_pool() as pool:
        if has_shared:  # else it cannot even load what it needs for that
            await pool.execute("copied")
        await pool.execute("no_more_descriptors")
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("total", {"array": np.ones(MIB)})
        problem = "RLIMIT_NOFILE" if has_shared else "cannot be used here: .*Too many open files"
        assert re.search(problem, caught.value.stderr_tail)
        assert await pool.execute("total", {"array": np.ones(MIB)}) == MIB


async def test_over_the_budget_memory_is_given_away_and_nobody_waits_for_ever() -> None:
    """Also while the host holds everything that its workers have room for."""
    async with shm_pool(zero_copy=ZeroCopy(budget_mb=32)) as pool:
        held = [await pool.execute("ones", {"size": MIB}) for _ in range(4)]
        assert all((array == 1).all() for array in held)
        large = np.ones(4 * MIB)
        assert await pool.execute("total", {"array": large}) == 4 * MIB
        assert memory(pool).copies == 0
        assert memory(pool).donations == 1
        await pool.execute("keep", {"value": np.ones(3 * MIB // 2)})
        assert await pool.execute("total", {"array": np.ones(MIB)}) == MIB
        assert memory(pool).copies == 1
        assert memory(pool).donations == 2
        assert await pool.execute("given_away") == 2  # of the results; two had room
        (told,) = memory(pool).workers.values()
        assert (told.donations, told.references) == (2, 2)
        assert pool.empty(MIB).nbytes == 8 * MIB  # ordinary memory
        assert memory(pool).used_bytes <= memory(pool).budget_bytes == 16 * MIB


async def test_who_holds_on_to_memory_that_others_need_is_reported_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shm_copies, "OLD_LEASE_S", 0.0)
    async with shm_pool(zero_copy=ZeroCopy(budget_mb=32)) as pool:
        await pool.execute("keep", {"value": np.ones(3 * MIB // 2)})
        for _ in range(3):
            assert await pool.execute("total", {"array": np.ones(MIB)}) == MIB
    (record,) = (record for record in caplog.records if record.name == "snakepit.transports")
    assert record.levelname == "WARNING"
    assert "no room for 8388608 bytes in the shared memory of 16777216" in record.getMessage()


async def test_a_process_forked_by_a_tool_leaves_its_parent_s_memory_alone() -> None:
    async with shm_pool() as pool:
        array = np.ones(MIB)
        assert await pool.execute("fork_and_return", {"value": array}) == MIB
        await pool.execute("keep", {"value": array})
        assert await pool.execute("fork_and_return", {"value": array}) == MIB
        assert await pool.execute("kept_total") == MIB


async def test_without_zero_copy_nothing_is_shared() -> None:
    async with shm_pool(zero_copy=ZeroCopy(enabled=False)) as pool:
        assert await pool.execute("total", {"array": np.ones(MIB)}) == MIB
        assert pool.stats().shared_memory is None
        assert pool.empty(10).shape == (10,)
        assert len(pool.buffer(10)) == 10


async def test_what_is_below_the_threshold_is_not_shared() -> None:
    async with shm_pool(zero_copy=ZeroCopy(threshold=4 * MIB, budget_mb=64)) as pool:
        assert await pool.execute("total", {"array": np.ones(MIB // 4)}) == MIB // 4
        assert memory(pool).references == 0
        assert await pool.execute("total", {"array": np.ones(MIB // 2)}) == MIB // 2
        assert memory(pool).references == 1


async def test_options_that_are_wrong_are_refused() -> None:
    with pytest.raises(ConfigError, match="zero_copy"):
        async with open_pool(Sharer, zero_copy=True):  # type: ignore[arg-type]
            pass
    with pytest.raises(ConfigError, match="'shm'"):
        async with open_pool(Sharer, transport="smh"):
            pass


def test_blocking_code_gives_memory_out_as_well() -> None:
    with open_pool_sync(Sharer, size=1, transport="shm", stop=PATIENT) as pool:
        array = pool.empty(MIB)
        array[:] = 2
        assert pool.execute("total", {"array": array}) == 2 * MIB
        assert len(pool.buffer(100)) == 100
        stats = pool.stats().shared_memory
        assert stats is not None
        assert stats.copies == 0
    assert (array == 2).all()


HOST_WITHOUT_DESCRIPTORS = """
import os, resource
import anyio, numpy as np, snakepit
from shm_adapters import Sharer, MIB

async def main():
    async with snakepit.open_pool(Sharer, size=1, transport="shm") as pool:
        (worker,) = pool.workers()
        highest = max(map(int, os.listdir("/dev/fd")))
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, limits[1]))
        array = np.ones(MIB)
        assert await pool.execute("total", {"array": array}) == MIB
        assert pool.stats().shared_memory.references == 0
        for _ in range(2):
            try:
                await pool.execute("ones", {"size": MIB})
            except snakepit.SerializationError as error:
                assert "RLIMIT_NOFILE" in str(error)
            else:
                raise AssertionError("it was seen without a descriptor")
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (await pool.execute("ones", {"size": MIB}) == 1).all()
        assert pool.workers()[0].pid == worker.pid
        assert await pool.execute("total", {"array": array}) == MIB
        assert pool.stats().shared_memory.references == 1

if __name__ == "__main__":
    anyio.run(main)
"""


@pytest.mark.blocking_ok("a script is run")
def test_a_host_without_descriptors_goes_on_through_the_pipes(tmp_path: Path) -> None:
    ended = run_script(tmp_path, HOST_WITHOUT_DESCRIPTORS)
    assert ended.returncode == 0, ended.stderr
