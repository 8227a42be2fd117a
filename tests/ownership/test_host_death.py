"""Nothing outlives its host: each of the three nets, with the other two switched off."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from family_adapters import KINDS
from ownership_kit import host, wait_gone, wait_until

STUCK = ["sleep", "spin", "hold_gil", "start_and_sleep"]


@pytest.mark.parametrize(
    ("how", "backend"),
    [("kill", "trio"), ("kill", "asyncio"), ("segv", "trio"), ("exit", "trio"), ("fork", "trio")],
)
def test_the_guardian_alone_ends_workers_and_all_that_they_started(
    how: str, backend: str, tmp_path: Path
) -> None:
    """The host cannot, and the workers hear nothing: idle, asleep, in a loop, or holding the GIL."""
    with host(tmp_path, how=how, backend=backend, deaf=True, tools=STUCK) as doomed:
        guardian = doomed.wait_ready()
        everybody = doomed.pids()
        assert len(everybody) == len(STUCK) + 1 + len(KINDS)
        doomed.end()
        wait_gone([*everybody, guardian])
        if how == "fork":  # the child of the host lives on: it is nobody's worker
            (forked,) = doomed.pids("forked")
            os.kill(forked, signal.SIGKILL)


def test_without_a_guardian_workers_notice_the_death_of_their_host(tmp_path: Path) -> None:
    """They clean up and take along what they started; also in the middle of a call."""
    tools = ["sleep", "spin", "start_and_sleep"]
    with host(tmp_path, guarded=False, tools=tools) as doomed:
        assert doomed.wait_ready() == 0
        everybody, workers = doomed.pids(), doomed.pids("worker")
        assert len(everybody) == len(tools) + 1 + len(KINDS)
        doomed.end()
        wait_gone(everybody)
        assert sorted(doomed.pids("cleaned")) == sorted(workers)


def test_they_notice_it_although_another_process_holds_their_wires_open(tmp_path: Path) -> None:
    """The end of the pipe never comes: the kernel and the host's own handle tell."""
    with host(tmp_path, guarded=False, hold=True, tools=["sleep"]) as doomed:
        doomed.wait_ready()
        workers = doomed.pids("worker")
        (holder,) = [int(pid) for pid in children(doomed.pid) if command(pid) == "sleep"]
        doomed.end()
        wait_gone(workers)
        assert sorted(doomed.pids("cleaned")) == sorted(workers)
        os.kill(holder, signal.SIGKILL)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_host_alone_ends_all_that_its_workers_started(backend: str, tmp_path: Path) -> None:
    """It leaves the block; there is no guardian, and no worker that would notice."""
    tools = [*STUCK, "start_and_sleep"]
    with host(
        tmp_path, how="leave", backend=backend, guarded=False, deaf=True, tools=tools
    ) as leaving:
        assert leaving.wait_ready() == 0
        assert leaving.popen.wait(30) == 0
        assert len(leaving.pids("worker")) >= len(tools) + 1
        wait_gone(leaving.pids())


def test_a_lost_guardian_is_replaced_and_the_new_one_knows_every_worker(tmp_path: Path) -> None:
    with host(tmp_path, deaf=True, tools=["hold_gil"]) as doomed:
        first = doomed.wait_ready()
        workers = doomed.pids("worker")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: guardians(doomed.pid) - {first})
        doomed.end()
        wait_gone(workers)


def test_a_guardian_that_does_not_die_with_its_hosts_group(tmp_path: Path) -> None:
    """Ctrl+C, a closed terminal, a service manager that tells everybody to stop."""
    with host(tmp_path, deaf=True, tools=["hold_gil"]) as doomed:
        guardian = doomed.wait_ready()
        workers = doomed.pids("worker")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(guardian, number)
        assert os.getsid(guardian) == guardian
        doomed.end()
        wait_gone([*workers, guardian])


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def command(pid: str) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def guardians(pid: int) -> set[int]:
    found = set()
    for child in children(pid):
        try:
            if b"_guardian" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(int(child))
        except OSError:
            continue
    return found
