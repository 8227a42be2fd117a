"""Quarantine with real processes: what an answer clears, and what SIGKILL from outside shows."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import anyio
import pytest
from _backends import one_loop_each
from adapters import touch
from pool_kit import pids, tools_pool, until

from snakepit import Adapter, CallQuarantinedError, CrashBarrier, Pool, WorkerDiedError, tool

pytestmark = one_loop_each


class Fickle(Adapter):
    """Dies where a file is missing; waits for one where it is told to."""

    @tool
    def meet(self, sign: str) -> str:
        if not os.path.exists(sign):
            ctypes.string_at(0)
        return "met"

    @tool
    def wait(self, started: str, release: str) -> str:
        touch(started)
        while not os.path.exists(release):
            signal.sigtimedwait([], 0.005)
        return "waited"


async def test_an_answer_clears_it(tmp_path: Path) -> None:
    """The deaths before it do not count any more."""
    sign = tmp_path / "sign"
    params = {"sign": str(sign)}
    barrier = CrashBarrier(quarantine_after=2, max_restarts=100)
    async with tools_pool(Fickle, crash_barrier=barrier) as pool:
        with pytest.raises(WorkerDiedError):
            await pool.execute("meet", params)
        sign.touch()
        assert await pool.execute("meet", params) == "met"
        sign.unlink()
        for _ in range(2):
            with pytest.raises(WorkerDiedError):
                await pool.execute("meet", params)
        with pytest.raises(CallQuarantinedError):
            await pool.execute("meet", params)


async def kill_while_it_waits(pool: Pool, folder: Path) -> dict[str, str]:
    """SIGKILL to its worker, from here; returns what the call was made with."""
    started = folder / "started"
    params = {"started": str(started), "release": str(folder / "release")}

    async def kill() -> None:
        await until(started.exists)
        os.kill(pids(pool)[0], signal.SIGKILL)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        with pytest.raises(WorkerDiedError):
            await pool.execute("wait", params)
    (folder / "release").touch()
    return params


@pytest.mark.parametrize("somebody_kills", [True, False])
async def test_who_kills_workers_that_have_no_call_is_to_blame_for_the_others_too(
    somebody_kills: bool, tmp_path: Path
) -> None:
    """Where nothing tells of somebody the call is taken for one that asked for too much memory."""
    barrier = CrashBarrier(quarantine_after=1, max_restarts=100)
    async with tools_pool(Fickle, crash_barrier=barrier) as pool:
        if somebody_kills:
            [idle] = pids(pool)
            os.kill(idle, signal.SIGKILL)
            await until(lambda: pool.stats().restarts == 1)
            await pool.ready()
        params = await kill_while_it_waits(pool, tmp_path)
        if somebody_kills:
            assert await pool.execute("wait", params) == "waited"
        else:
            with pytest.raises(CallQuarantinedError):
                await pool.execute("wait", params)
