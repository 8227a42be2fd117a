"""Chaos in small: whatever is reused, forwarded, held or lost, no value is ever another one's."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import anyio
import numpy as np
import pytest
from _backends import one_loop_each
from _shares import sampled
from pool_kit import tools_pool, until
from shm_adapters import MIB, Sharer, memory

from snakepit import Pool, WorkerDiedError, ZeroCopy, open_pool

CALLERS = 6
STEPS = 15


def made_of(number: int, size: int) -> Any:
    return np.full(size // 8, number, "i8")


def is_whole(array: Any, number: int) -> bool:
    return bool((array == number).all())


async def _call(pool: Pool, tool: str, params: dict[str, Any]) -> Any:
    """The value, or None if its worker was killed meanwhile."""
    try:
        return await pool.execute(tool, params)
    except WorkerDiedError:
        return None


async def _caller(pool: Pool, chance: Random, first: int) -> None:
    held: list[tuple[int, Any]] = []
    for step in range(STEPS):
        number = first + step
        kind = chance.randrange(4)
        if kind == 0 and held:  # on to whatever worker is free
            number, array = chance.choice(held)
        elif kind == 1:
            array = pool.empty(chance.randrange(MIB // 8, MIB // 2), "i8")
            array[:] = number
        else:
            array = made_of(number, chance.randrange(64 * 1024, 2 * MIB))
        back = await _call(pool, "echo", {"value": [array, number]})
        if back is not None:
            assert back[1] == number
            assert is_whole(back[0], number)
            held.append((number, back[0]))
        half = await _call(pool, "half", {"array": array})
        assert half is None or is_whole(half, number)
        ones = await _call(pool, "ones", {"size": chance.randrange(MIB // 16, MIB)})
        assert ones is None or (ones == 1).all()
        if ones is not None:
            held.append((1, ones))
        while len(held) > 5:
            held.pop(chance.randrange(len(held)))
        assert all(is_whole(array, number) for number, array in held)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("killed", [False, True], ids=["in peace", "with kills"])
async def test_no_value_is_ever_another_one_s(killed: bool) -> None:
    chance = Random(7)
    async with tools_pool(
        Sharer, size=2, transport="shm", zero_copy=ZeroCopy(threshold=2**16, budget_mb=24)
    ) as pool:
        async with anyio.create_task_group() as tasks:
            if killed:
                tasks.start_soon(_kill_now_and_then, pool, chance)
            for caller in range(CALLERS):
                tasks.start_soon(_caller, pool, Random(caller), 1000 * (caller + 1))
        gc.collect()
        # A worker gives back what it looked at once its answer is on its way.
        await until(lambda: memory(pool).leases == memory(pool).used_bytes == 0)
        assert memory(pool).references > CALLERS


async def _kill_now_and_then(pool: Pool, chance: Random) -> None:
    for _ in range(4):
        await anyio.sleep(0.2)
        ready = [worker.pid for worker in pool.workers() if worker.state in ("ready", "leased")]
        if ready:
            pid = chance.choice(ready)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)


class Bounds:
    """What this process has open and mapped, and the most that it may have."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._fds = len(os.listdir("/dev/fd")) + 64  # segments of 2 × 16 MiB in three arenas
        self.calls = 0

    def count(self) -> None:
        """One more call; now and then, look."""
        self.calls += 1
        if self.calls % 200 == 0:
            assert len(os.listdir("/dev/fd")) < self._fds
            assert Path("/proc/self/maps").read_text().count("memfd:snakepit") < 128
            stats = self._pool.stats().shared_memory
            assert stats is not None
            assert stats.used_bytes + stats.idle_bytes <= stats.budget_bytes
            assert stats.leases < 64


async def _hoarder(pool: Pool, chance: Random, bounds: Bounds, calls: int) -> None:
    """Calls with values of any size, some of which it holds for any time, as the workers do."""
    held: list[tuple[int, Any]] = []
    for number in range(calls):
        kind, size = chance.randrange(6), 8 * chance.randrange(2**10, 2 ** chance.randrange(11, 17))
        if kind == 0 and held:
            number, array = chance.choice(held)  # noqa: PLW2901 - it is that one's
        elif kind == 1:
            array = pool.empty(size // 8, "i8")
            array[:] = number
        else:
            array = made_of(number, size)
        if kind == 2:
            ones = await pool.execute("ones", {"size": size // 8})
            assert (ones == 1).all()
            held.append((1, ones))
        elif kind == 3:
            await pool.execute("keep", {"value": array})
        else:
            back = await pool.execute("half" if kind == 4 else "echo", KEYS[kind == 4](array))
            assert is_whole(back, number)
            if chance.randrange(3) == 0:
                held.append((number, back))
        while held and (len(held) > 6 or chance.randrange(4) == 0):
            number, array = held.pop(chance.randrange(len(held)))  # noqa: PLW2901 - as above
            assert is_whole(array, number)
        bounds.count()


KEYS = (lambda array: {"value": array}, lambda array: {"array": array})


@one_loop_each
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("calls", sampled([1_000, 100_000], lambda calls: calls == 1_000))
async def test_calls_of_any_size_held_for_any_time_leave_nothing(calls: int) -> None:
    zero_copy = ZeroCopy(threshold=2**16, budget_mb=16)
    async with open_pool(Sharer, size=2, min_ready=2, transport="shm", zero_copy=zero_copy) as pool:
        bounds = Bounds(pool)
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(_hoarder, pool, Random(number), bounds, calls // 4)
        assert bounds.calls == calls
        async with pool.session() as first, pool.session() as second:
            for session in (first, second):
                await session.execute("forget")
                gc.collect()
                assert await session.execute("in_use") == 0
        stats = pool.stats().shared_memory
        assert stats is not None
        assert (stats.used_bytes, stats.leases) == (0, 0)
        assert stats.references > calls // 20
        assert pool.stats().restarts == 0
