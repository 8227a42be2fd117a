"""`transport="auto"`: shared memory where it can be had, pipes where not, and each worker says which."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from _backends import one_loop_each
from pool_kit import PATIENT, ROOT, tools_pool
from shm_adapters import MIB, Sharer, memory

from snakepit import Pool, ZeroCopy, open_pool
from snakepit.pool import _settings
from snakepit.shm import _opening, can_share
from snakepit.transports import _shm
from snakepit.worker._wire import GRPC_VARIABLE, SHM_VARIABLE

pytestmark = one_loop_each

HERE = Path(__file__).parent
PATH = os.pathsep.join(map(str, (ROOT, HERE, ROOT / "tests")))
WORKER = ["-m", "snakepit.worker", "shm_adapters:Sharer"]


def ways(pool: Pool) -> tuple[str, list[str]]:
    """What runs: in the pool, and with each worker."""
    return pool.stats().transport, [worker.transport for worker in pool.workers()]


async def total(pool: Pool) -> Any:
    return await pool.execute("total", {"array": np.ones(MIB)})


async def test_it_is_shared_memory_here() -> None:
    async with tools_pool(Sharer, size=2) as pool:
        assert ways(pool) == ("shm", ["shm", "shm"])
        assert await total(pool) == MIB
        assert memory(pool).references == 1


@pytest.mark.parametrize("reason", ["it cannot be had", "it is not wanted"])
async def test_it_is_pipes_where(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "it cannot be had":
        monkeypatch.setattr(_settings, "can_share", lambda: False)
    async with tools_pool(Sharer, zero_copy=ZeroCopy(enabled=reason == "it cannot be had")) as pool:
        assert ways(pool) == ("stdio", ["stdio"])
        assert await total(pool) == MIB
        assert pool.stats().shared_memory is None


async def test_other_transports_are_named_as_they_were_asked_for() -> None:
    for transport in ("stdio", "memory"):
        async with tools_pool(Sharer, transport=transport) as pool:
            assert ways(pool) == (transport, [transport])


@pytest.mark.parametrize("fault", ["no memfd", "no seals", "no room"])
def test_it_is_tried_and_not_believed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_share()

    def refused(*_: object, **__: object) -> Any:
        raise OSError(38, "not here")

    if fault == "no memfd":
        monkeypatch.setattr(os, "memfd_create", refused)
    elif fault == "no seals":  # as in a sandbox that says yes to everything
        monkeypatch.setattr(_opening, "create", lambda _: (os.memfd_create("open to all"), None))
    else:
        monkeypatch.setattr(os, "posix_fallocate", refused)
    assert not can_share()


async def test_a_command_that_runs_a_worker_of_ours_shares_memory() -> None:
    command = ["sh", "-c", 'exec "$0" "$@"', sys.executable, *WORKER]
    async with open_pool(command=command, size=1, env={"PYTHONPATH": PATH}, stop=PATIENT) as pool:
        assert ways(pool) == ("shm", ["shm"])
        assert await total(pool) == MIB
        assert memory(pool).references == 1


async def test_where_a_program_between_closes_the_descriptor_there_are_the_pipes() -> None:
    """As sudo and subprocess do; the variable that names it gets through."""
    between = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    command = [sys.executable, "-c", between, sys.executable, *WORKER]
    async with open_pool(command=command, size=1, env={"PYTHONPATH": PATH}, stop=PATIENT) as pool:
        assert ways(pool) == ("shm", ["stdio"])
        assert await total(pool) == MIB
        assert memory(pool).references == 0


async def test_a_worker_in_another_language_gets_everything_through_the_pipes() -> None:
    script = ROOT / "tests" / "foreign" / "worker_from_the_spec.py"
    async with open_pool(command=[sys.executable, str(script)], size=1, stop=PATIENT) as pool:
        assert ways(pool) == ("shm", ["stdio"])
        value = bytes(2 * MIB)
        assert await pool.execute("echo", {"value": value}) == value
        shared = memory(pool)
        assert (shared.references, shared.used_bytes, shared.idle_bytes) == (0, 0, 0)


async def test_a_worker_for_which_no_descriptor_is_left_gets_everything_through_the_pipes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> Any:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(_shm, "ShmLink", refused)
    async with tools_pool(Sharer) as pool:
        assert ways(pool) == ("shm", ["stdio"])
        array = pool.empty((MIB, 4), "f4")  # shared memory all the same, with the next worker
        array[:] = 1
        assert await pool.execute("total", {"array": array[:, ::2]}) == 2 * MIB
        table = pyarrow.table({"n": array.reshape(-1)})
        back = await pool.execute("echo", {"value": [table, array.T[::2]]})
        assert back[0] == table
        assert (back[1] == 1).all()
        assert memory(pool).references == 0


def test_what_a_worker_was_offered_is_not_offered_to_its_own_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A foreign worker may leave the variables where they are, and open a pool itself."""
    for variable in (SHM_VARIABLE, GRPC_VARIABLE):
        monkeypatch.setenv(variable, "99")
    assert {SHM_VARIABLE, GRPC_VARIABLE}.isdisjoint(_settings._environment(None, 1))
