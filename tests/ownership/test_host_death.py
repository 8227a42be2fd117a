"""Nothing outlives its host: each of the three nets, with the other two switched off."""

from __future__ import annotations

import os
import signal
import time
from itertools import product
from pathlib import Path

import anyio
import pytest
from _backends import one_loop_each
from _bounds import takes_at_most
from _leaks import is_alive
from _shares import sampled
from family_adapters import KINDS, SyncFamily
from host_program import STOP
from ownership_kit import (
    NAMESPACE,
    WORKER_NETS,
    host,
    needs_namespaces,
    wait_gone,
    wait_until,
)

from snakepit import Stop, open_pool
from snakepit.process import guardian
from snakepit.procfs import descendants_of, find_marked

QUIET_S = 0.5  # a net takes a tenth of that
# What docs/guarantees.md promises once the host has been told to end.
GUARDIAN_S = STOP.term_grace + 2
WORKERS_S = 1.0  # for tools that stop and a `cleanup` that takes no time
NEW_GUARDIAN_S = 1.0
STUCK = ["sleep", "spin", "hold_gil", "start_and_sleep", "stopped"]


@pytest.mark.parametrize(
    ("how", "backend", "transport"),
    [
        ("kill", "trio", "shm"),
        ("kill", "asyncio", "stdio"),
        ("segv", "trio", "stdio"),
        ("exit", "asyncio", "grpc"),
        ("fork", "trio", "grpc"),
    ],
)
def test_the_guardian_alone_ends_workers_and_all_that_they_started(
    how: str, backend: str, transport: str, tmp_path: Path
) -> None:
    """The host cannot, and the workers hear nothing: idle, asleep, in a loop, holding the GIL, stopped."""
    options = {"how": how, "backend": backend, "transport": transport}
    with host(tmp_path, off=WORKER_NETS, tools=STUCK, **options) as doomed:
        its_guardian = doomed.wait_ready()
        everybody = doomed.pids()
        assert len(everybody) == len(STUCK) + 1 + len(KINDS)
        with takes_at_most(GUARDIAN_S):
            doomed.end()
            wait_gone([*everybody, its_guardian])
        assert doomed.pids("cleaned")  # those that could, on its SIGTERM
        assert len(doomed.kill_bystanders()) == 1 + (how == "fork")


TRANSPORTS = ("shm", "grpc", "stdio")  # in turns
SAMPLE = (("pdeathsig", "fork"), ("eof", "exit"), ("pidfd", "segv"))


@pytest.mark.parametrize(
    "case",
    sampled(
        product(WORKER_NETS, ("kill", "segv", "exit", "fork")),
        lambda case: case[1] == "kill" or case in SAMPLE,
    ),
    ids="-".join,
)
def test_each_net_of_the_workers_alone_ends_them_and_all_that_they_started(
    case: tuple[str, str], tmp_path: Path
) -> None:
    """They clean up first; also in the middle of a call, with or without an event loop."""
    net, how = case
    off = ["guardian", *(other for other in WORKER_NETS if other != net)]
    tools = ["sleep", "spin", "start_and_sleep"] if how == "kill" else ["start_and_sleep"]
    options = {
        "how": how,
        "adapter": "Family" if how in ("exit", "kill") else "SyncFamily",
        "backend": "trio" if how in ("segv", "exit") else "asyncio",
        "transport": TRANSPORTS[(WORKER_NETS.index(net) + len(how)) % len(TRANSPORTS)],
    }
    with host(tmp_path, off=off, tools=tools, **options) as doomed:
        assert doomed.wait_ready() == 0
        everybody, workers = doomed.pids(), doomed.pids("worker")
        assert len(everybody) == len(tools) + 1 + len(KINDS)
        with takes_at_most(WORKERS_S):
            doomed.end()
            wait_gone(everybody)
        assert sorted(doomed.pids("cleaned")) == sorted(workers)
        assert len(doomed.kill_bystanders()) == (net != "eof") + (how == "fork")


@needs_namespaces
def test_without_any_net_nobody_notices(tmp_path: Path) -> None:
    """So the tests above show what each net does. In a namespace, where no sweep of others comes."""
    wrapper = (*NAMESPACE, "sh", "-c", '"$@"; echo gone; exec sleep 1000', "sh")
    off = ["guardian", *WORKER_NETS]
    with host(tmp_path, wrapper=wrapper, off=off, tools=["sleep", "spin"]) as doomed:
        doomed.wait_ready()
        assert len(doomed.pids("worker")) == 3
        doomed.tell_to_end()
        assert doomed.read_line() == "gone"
        before = {process.pid for process in descendants_of(doomed.popen.pid)}
        time.sleep(QUIET_S)
        after = {process.pid for process in descendants_of(doomed.popen.pid)}
        assert after == before
        assert doomed.pids("cleaned") == []
        doomed.popen.kill()
        doomed.folder = tmp_path / "no pids of this namespace"
        wait_gone([*after])


def test_with_the_guardian_killed_first_the_workers_notice_the_death_of_their_host(
    tmp_path: Path,
) -> None:
    """In the same moment: no other guardian has begun yet."""
    tools = ["sleep", "spin", "start_and_sleep"]
    with host(tmp_path, tools=tools) as doomed:
        its_guardian = doomed.wait_ready()
        everybody, workers = doomed.pids(), doomed.pids("worker")
        with takes_at_most(WORKERS_S):
            os.kill(its_guardian, signal.SIGKILL)
            doomed.end()
            wait_gone(everybody)
        assert sorted(doomed.pids("cleaned")) == sorted(workers)


@pytest.mark.parametrize(("backend", "transport"), [("trio", "grpc"), ("asyncio", "shm")])
def test_the_host_alone_ends_all_that_its_workers_started(
    backend: str, transport: str, tmp_path: Path
) -> None:
    """It leaves the block; there is no guardian, and no worker that would notice."""
    tools = [*STUCK, "start_and_sleep"]
    options = {"how": "leave", "backend": backend, "transport": transport}
    with host(tmp_path, off=["guardian", *WORKER_NETS], tools=tools, **options) as leaving:
        assert leaving.wait_ready() == 0
        assert leaving.popen.wait(30) == 0
        everybody = leaving.pids()
        assert len(leaving.pids("worker")) >= len(tools) + 1
        assert not any(map(is_alive, everybody))
        leaving.kill_bystanders()


def test_a_guardian_ends_the_workers_of_its_own_host_and_no_others(tmp_path: Path) -> None:
    """Two hosts in one directory, and under one user; one of them is killed."""
    folders = [tmp_path / "dead", tmp_path / "alive"]
    for folder in folders:
        folder.mkdir()
    with (
        host(folders[0], off=WORKER_NETS, tools=["hold_gil"]) as doomed,
        host(folders[1], off=WORKER_NETS, tools=["sleep"]) as living,
    ):
        doomed.wait_ready()
        others = [living.wait_ready(), *living.pids("worker")]
        assert len(run_ids(doomed.pid)) == len(run_ids(living.pid)) == 1
        assert run_ids(doomed.pid) != run_ids(living.pid)
        with takes_at_most(GUARDIAN_S):
            doomed.end()
            wait_gone(doomed.pids("worker"))
        assert len(others) == 3
        assert all(map(is_alive, others))
        assert living.popen.poll() is None
        for one in (doomed, living):
            one.kill_bystanders()


def test_hosts_that_crash_and_come_again_leave_nothing_behind(tmp_path: Path) -> None:
    """Eight workers, forty calls, twice; the third host finds the table as the first one did."""
    tools = ["sleep"] * 4 + ["spin"] * 2 + ["start_and_sleep"]
    crashed: list[int] = []
    for number, transport in enumerate(("shm", "stdio")):
        folder = tmp_path / str(number)
        folder.mkdir()
        with host(folder, tools=tools, transport=transport, calls=40 - len(tools)) as doomed:
            its_guardian = doomed.wait_ready()
            everybody = [its_guardian, *doomed.pids()]
            assert len(everybody) == 1 + 8 + len(KINDS)
            with takes_at_most(GUARDIAN_S):
                doomed.end()
                wait_gone(everybody)
            crashed.append(doomed.pid)
    assert list(find_marked(lambda mark: mark.host_pid in crashed)) == []
    with host(tmp_path, how="leave", tools=["sleep"]) as third:
        third.wait_ready()
        assert third.popen.wait(30) == 0
        assert not any(map(is_alive, third.pids()))


def test_a_lost_guardian_is_replaced_and_the_new_one_knows_every_worker(tmp_path: Path) -> None:
    with host(tmp_path, off=WORKER_NETS, tools=["hold_gil"]) as doomed:
        first = doomed.wait_ready()
        workers = doomed.pids("worker")
        with takes_at_most(NEW_GUARDIAN_S):
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: guardians(doomed.pid) - {first})
        with takes_at_most(GUARDIAN_S):
            doomed.end()
            wait_gone(workers)


@one_loop_each
async def test_the_guardian_knows_a_worker_until_it_is_reaped(tmp_path: Path) -> None:
    """One that is being ended, too: if its host dies now somebody has to go on with that."""
    stop = Stop(cancel_grace=0.1, term_grace=0.3, drain_timeout=1)
    with anyio.fail_after(40):
        async with open_pool(SyncFamily, size=1, adapter_args=(str(tmp_path),), stop=stop) as pool:
            pid = await pool.execute("pid")
            looks = 0
            async with anyio.create_task_group() as tasks, anyio.create_task_group() as call:
                call.start_soon(pool.execute, "hold_gil")
                while not list(tmp_path.glob("busy-*")):
                    await anyio.sleep(0.005)

                async def look() -> None:
                    nonlocal looks
                    is_known = True
                    while Path(f"/proc/{pid}").exists():  # it is looked at after the list
                        assert is_known
                        looks += 1
                        await anyio.sleep(0.01)
                        is_known = pid in guardian._lines

                tasks.start_soon(look)
                call.cancel_scope.cancel()
            assert looks > 5
            assert pid not in guardian._lines


def test_a_guardian_that_does_not_die_with_its_hosts_group(tmp_path: Path) -> None:
    """Ctrl+C, a closed terminal, a service manager that tells everybody to stop."""
    with host(tmp_path, off=WORKER_NETS, tools=["hold_gil"]) as doomed:
        its_guardian = doomed.wait_ready()
        workers = doomed.pids("worker")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(its_guardian, number)
        assert os.getsid(its_guardian) == its_guardian
        doomed.end()
        wait_gone([*workers, its_guardian])


def run_ids(host_pid: int) -> set[str]:
    """Which its workers bear."""
    return {mark.run for _, mark in find_marked(lambda mark: mark.host_pid == host_pid)}


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def guardians(pid: int) -> set[int]:
    found = set()
    for child in children(pid):
        try:
            if b"_guardian" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(int(child))
        except OSError:
            continue
    return found
