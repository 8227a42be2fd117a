"""A host that lives on as something else: as another program, or as another user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _bounds import watched_machine
from _leaks import is_alive
from other_users import NOBODY, env_for_nobody, needs_other_users
from ownership_kit import host, pid_of, run_well, wait_gone


@pytest.mark.parametrize(
    ("how", "backend", "transport"), [("exec", "trio", "stdio"), ("fork_exec", "asyncio", "shm")]
)
def test_nothing_outlives_a_host_that_executes_another_program(
    how: str, backend: str, transport: str, tmp_path: Path
) -> None:
    """Its process lives on, and so may a child that it forked; its workers, also stuck ones, do not."""
    tools = ["sleep", "hold_gil", "stopped"]
    options = {"how": how, "backend": backend, "transport": transport}
    with host(tmp_path, tools=tools, **options) as changed:
        guardian = changed.wait_ready()
        everybody = changed.pids()
        assert len(everybody) == len(tools) + 1
        changed.tell_to_end()
        wait_gone([*everybody, guardian])
        assert changed.popen.poll() is None
        assert len(changed.kill_bystanders()) == (how == "fork_exec")


BECOMES_NOBODY = """
import os, sys, time
from pathlib import Path
import anyio, snakepit
from family_adapters import SyncFamily
from snakepit.process import guardian

folder, backend, transport, user, *tools = sys.argv[1:]
stop = snakepit.Stop(cancel_grace=0.3, term_grace=0.3, drain_timeout=0.4)
options = {"adapter_args": (folder,), "transport": transport, "stop": stop, "sweep": False}

async def watch_the_loop(gaps):
    while True:
        last = time.monotonic()
        await anyio.sleep(0.01)
        gaps.append(time.monotonic() - last)

async def main():
    size = len(tools) + 1
    gaps = []
    async with anyio.create_task_group() as watching:
        watching.start_soon(watch_the_loop, gaps)
        async with (
            snakepit.open_pool(SyncFamily, size=size, min_ready=size, **options) as pool,
            anyio.create_task_group() as tasks,
        ):
            for name in tools:
                tasks.start_soon(pool.execute, name)
            while len(list(Path(folder).glob("busy-*"))) < len(tools):
                await anyio.sleep(0.005)
            print(guardian.pid)
            os.setresuid(*[int(user)] * 3)
            began = time.monotonic()
            gaps.clear()
            tasks.cancel_scope.cancel()
        watching.cancel_scope.cancel()
    print(time.monotonic() - began, max(gaps))

anyio.run(main, backend=backend)
"""
# As if the guardian were too slow to do what it is asked while the host waits for it.
ASKS_IN_VAIN = "from snakepit.process import _ladder, guardian; guardian.send = print; _ladder.KILLED_EXIT_S = 0.1"
BOUND_S = 0.3 + 0.3 + 0.4 + 1


def run_to_its_end(
    program: str, folder: Path, backend: str, transport: str, tools: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run a host that becomes another user."""
    argv = [sys.executable, "-c", program, folder, backend, transport, str(NOBODY), *tools]
    return run_well(argv, env=env_for_nobody())


@needs_other_users
@pytest.mark.parametrize(
    ("backend", "transport", "tools"),
    [("trio", "stdio", ["sleep", "hold_gil", "swallow"]), ("asyncio", "shm", [])],
    ids=["stuck", "idle"],
)
def test_a_host_that_has_become_another_user_leaves_nothing_behind(
    backend: str, transport: str, tools: list[str], tmp_path: Path
) -> None:
    """It may not signal its workers, nor the guardian, which does it in its place; nobody waits in vain."""
    with watched_machine() as machine:
        run = run_to_its_end(BECOMES_NOBODY, tmp_path, backend, transport, tools)
    guardian, times = run.stdout.splitlines()
    took_s, gap_s = map(float, times.split())
    workers = [pid_of(path) for path in tmp_path.glob("worker-*")]
    assert len(workers) >= len(tools) + 1
    assert not any(map(is_alive, workers))
    assert "left to the guardian" not in run.stderr
    wait_gone([int(guardian)])
    assert took_s < machine.allows(BOUND_S)
    assert gap_s < machine.allows(BOUND_S / 2)


@needs_other_users
def test_what_a_host_could_not_end_the_guardian_ends_by_itself(tmp_path: Path) -> None:
    """When the last pool has closed, and it is let go of."""
    program = f"{ASKS_IN_VAIN}\n{BECOMES_NOBODY}"
    run = run_to_its_end(program, tmp_path, "trio", "stdio", ["hold_gil"])
    guardian, *asked, _ = run.stdout.splitlines()
    assert asked
    assert "left to the guardian: " in run.stderr
    wait_gone([int(guardian), *[pid_of(path) for path in tmp_path.glob("worker-*")]])
