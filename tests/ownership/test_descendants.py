"""What tools start ends with a cancelled call, or else with the worker, however it hides."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import anyio
import pytest
from _backends import one_loop_each
from _bounds import watched_machine
from _leaks import is_alive
from _transports import OF_PROCESSES
from family_adapters import KINDS, Family, Nested, SyncFamily
from ownership_kit import ROOT, env_for_hosts, pid_of, wait_gone

from snakepit import Pool, Stop, WorkerDiedError, open_pool
from snakepit.process import new_mark
from snakepit.procfs import VARIABLE, Process, _table, _tree, kill_marked, kill_tree, read_process

PATIENT = Stop(cancel_grace=20, term_grace=10, drain_timeout=10)
BRISK = Stop(cancel_grace=0.2, term_grace=0.2, drain_timeout=2)
MARKED = [kind for kind in KINDS if kind != "bare"]


def pids(folder: Path, name: str = "*") -> list[int]:
    return [pid_of(path) for path in folder.glob(f"{name}-*") if "busy" not in path.name]


async def busy(folder: Path) -> None:
    while not list(folder.glob("busy-*")):
        await anyio.sleep(0.005)


async def cancel_once_busy(pool: Pool, folder: Path, tool: str) -> None:
    """Start every kind of process in a call, and cancel it when they run."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, tool, {"kinds": list(KINDS), "folder": str(folder)})
        await busy(folder)
        tasks.cancel_scope.cancel()


@one_loop_each
@pytest.mark.parametrize("transport", OF_PROCESSES)
@pytest.mark.parametrize("tool", ["start_and_sleep", "start_and_await"])
async def test_what_a_cancelled_call_has_started_is_gone_when_it_is_left(
    tool: str, transport: str, tmp_path: Path
) -> None:
    """The worker is kept, and so is what `initialize` and a completed call have started."""
    initial, completed, cancelled = (tmp_path / name for name in ("one", "two", "three"))
    for folder in (initial, completed, cancelled):
        folder.mkdir()
    adapter = Family if tool == "start_and_await" else SyncFamily
    with anyio.fail_after(40):
        async with open_pool(
            adapter,
            size=1,
            adapter_args=(str(initial), (), ("child", "daemon")),
            transport=transport,
            stop=PATIENT,
        ) as pool:
            worker = await pool.execute("pid")
            await pool.execute("start", {"kinds": ["session", "daemon"], "folder": str(completed)})
            await anyio.sleep(0.02)  # the kernel tells starts in hundredths of a second
            await cancel_once_busy(pool, cancelled, tool)
            assert not any(map(is_alive, pids(cancelled)))
            assert len(pids(cancelled)) == len(KINDS)
            assert await pool.execute("pid") == worker
            while len(pids(initial)) < 3:
                await anyio.sleep(0.005)
            assert all(map(is_alive, pids(initial) + pids(completed)))
        wait_gone([*pids(completed), *pids(initial, "child"), *pids(initial, "daemon")])


@one_loop_each
@pytest.mark.parametrize(
    ("adapter", "transport"), [(SyncFamily, "stdio"), (Family, "shm"), (SyncFamily, "grpc")]
)
async def test_what_a_stream_has_started_is_gone_when_its_block_is_left_early(
    adapter: type[Family], transport: str, tmp_path: Path
) -> None:
    """To leave it is to cancel it; one that is read to its end is a completed call."""
    with anyio.fail_after(40):
        async with open_pool(
            adapter, size=1, adapter_args=(str(tmp_path),), transport=transport, stop=PATIENT
        ) as pool:
            async with pool.stream("start_and_stream", {"kinds": ["session"]}) as items:
                assert [item async for item in items] == list(range(1000))
            completed = pids(tmp_path, "session")
            await anyio.sleep(0.02)  # as above
            async with pool.stream("start_and_stream", {"kinds": ["bare", "daemon"]}) as items:
                async for _ in items:
                    break
            assert len(pids(tmp_path, "bare") + pids(tmp_path, "daemon")) == 2
            assert not any(map(is_alive, pids(tmp_path, "bare") + pids(tmp_path, "daemon")))
            assert all(map(is_alive, completed))


@pytest.mark.parametrize("tool", ["start_and_sleep", "hold_gil"])
async def test_a_worker_that_is_ended_takes_everything_along(tool: str, tmp_path: Path) -> None:
    """Also what has no environment and a session of its own: it is below a worker that is stopped."""
    with anyio.fail_after(40):
        async with open_pool(SyncFamily, size=1, adapter_args=(str(tmp_path),), stop=BRISK) as pool:
            await pool.execute("start", {"kinds": list(KINDS)})
            with watched_machine() as machine:
                async with anyio.create_task_group() as tasks:
                    params = {"kinds": []} if tool == "start_and_sleep" else {}
                    tasks.start_soon(pool.execute, tool, params)
                    await busy(tmp_path)
                    os.kill(pool.workers()[0].pid, signal.SIGSTOP)  # so that it hears no cancel
                    cancelled_at = time.monotonic()
                    tasks.cancel_scope.cancel()
                seconds = time.monotonic() - cancelled_at
            assert seconds <= machine.allows(BRISK.cancel_grace + BRISK.term_grace)
            for kind in KINDS:
                assert not any(map(is_alive, pids(tmp_path, kind))), kind


async def test_a_worker_that_dies_leaves_nothing_that_bears_its_mark(tmp_path: Path) -> None:
    """What has cleared its environment is out of reach then, and is not started here."""
    with anyio.fail_after(40):
        async with open_pool(
            SyncFamily, size=1, adapter_args=(str(tmp_path),), stop=PATIENT
        ) as pool:
            with pytest.raises(WorkerDiedError, match="exited with code 7"):
                await pool.execute("start_and_die", {"kinds": MARKED})
            for kind in MARKED:
                assert not any(map(is_alive, pids(tmp_path, kind))), kind


@one_loop_each
async def test_the_workers_of_a_worker_that_dies_are_ended_by_its_guardian(tmp_path: Path) -> None:
    """Also one that holds the GIL. They bear another mark than their host."""
    with anyio.fail_after(40):
        async with open_pool(Nested, size=1, adapter_args=(str(tmp_path),), stop=PATIENT) as pool:
            with pytest.raises(WorkerDiedError, match="exited with code 7"):
                await pool.execute("hold_gil_below_and_die")
    wait_gone([pid_of(path) for path in tmp_path.glob("busy-*")])


async def test_the_dead_that_a_worker_adopted_are_reaped_one_by_one(tmp_path: Path) -> None:
    """And its tools' own children are not: their exit codes are for who started them."""
    with anyio.fail_after(40):
        async with open_pool(
            SyncFamily, size=1, adapter_args=(str(tmp_path),), stop=PATIENT
        ) as pool:
            await pool.execute("start", {"kinds": ["daemon", "session", "child"]})
            for kind in ("daemon", "session", "child"):
                for pid in pids(tmp_path, kind):
                    os.kill(pid, signal.SIGKILL)
            (daemon,) = pids(tmp_path, "daemon")
            while Path(f"/proc/{daemon}").exists():  # until the worker has been idle for a while
                await pool.execute("pid")
                await anyio.sleep(0.15)
            assert await pool.execute("zombies") == ["Z", "Z"]


@pytest.mark.parametrize("adapter", [SyncFamily, Family])
async def test_a_cancelled_call_leaves_no_dead_either(
    adapter: type[Family], tmp_path: Path
) -> None:
    """What its shell had started is adopted by the worker, and nobody else could reap it."""
    with anyio.fail_after(40):
        async with open_pool(adapter, size=1, adapter_args=(str(tmp_path),), stop=PATIENT) as pool:
            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(pool.execute, "sleep_in_a_shell")
                    await busy(tmp_path)
                    tasks.cancel_scope.cancel()
                while await pool.execute("zombies"):  # one whose parent has only just died
                    await anyio.sleep(0.15)
                for sign in tmp_path.glob("busy-*"):
                    sign.unlink()


DEAF = ["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"]


@pytest.mark.parametrize("command", [["sleep", "1000"], DEAF], ids=["polite", "deaf"])
async def test_a_cancelled_call_that_waits_for_what_it_has_started_keeps_its_worker(
    command: list[str], tmp_path: Path
) -> None:
    """What it waits for is ended in the second half of its grace, so that it can end itself."""
    with anyio.fail_after(40):
        async with open_pool(
            SyncFamily, size=1, adapter_args=(str(tmp_path),), stop=PATIENT
        ) as pool:
            worker = await pool.execute("pid")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.execute, "wait_in_a_block", {"command": command})
                await busy(tmp_path)
                tasks.cancel_scope.cancel()
            assert await pool.execute("pid") == worker
            assert not any(map(is_alive, pids(tmp_path, "child")))


IGNORING = """
import signal, sys, anyio, snakepit
from pathlib import Path
from family_adapters import SyncFamily
if __name__ == "__main__":
    {how}

    async def main():
        with anyio.fail_after(40):
            stop = snakepit.Stop(cancel_grace=0.2, term_grace=0.2, drain_timeout=2)
            async with snakepit.open_pool(
                SyncFamily, size=2, min_ready=2, adapter_args=(sys.argv[1],), stop=stop
            ) as pool:
                await pool.execute("start", {{"kinds": sys.argv[3:]}})
                try:
                    await pool.execute("start_and_die", {{"kinds": []}})
                except snakepit.WorkerDiedError as error:
                    print(error.exit_code, error.signal)
                await pool.ready()
                with anyio.move_on_after(0.5):
                    await pool.execute("hold_gil")

    anyio.run(main, backend=sys.argv[2])
"""
STEALING = """
    import os, threading
    def steal():
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                threading.Event().wait(0.001)
    threading.Thread(target=steal, daemon=True).start()
"""


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize(
    "how", ["signal.signal(signal.SIGCHLD, signal.SIG_IGN)", STEALING.strip()], ids=["ign", "steal"]
)
def test_it_is_all_the_same_where_somebody_else_reaps(
    how: str, backend: str, tmp_path: Path
) -> None:
    """SIGCHLD ignored, or another thread that waits for any child: nothing hangs, nothing is left."""
    script = tmp_path / "host.py"
    script.write_text(IGNORING.format(how=how), encoding="utf-8")
    folder = tmp_path / "pids"
    folder.mkdir()
    run = subprocess.run(
        [sys.executable, str(script), str(folder), backend, *MARKED],
        env=env_for_hosts(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "None None\n"), run.stderr
    wait_gone([pid for kind in (*MARKED, "worker") for pid in pids(folder, kind)])


# Each of several forks and ends all the time, so that no list of processes shows it for long.
RESTLESS = """
import os, time
from snakepit.procfs import adopt_orphans

adopt_orphans()
end = time.monotonic() + 20
for _ in range({count}):
    if os.fork() == 0:
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            os.setsid()
            time.sleep(0.003)
        os._exit(0)
os.write(1, b"go")
time.sleep({stays})
"""


@contextmanager
def restless(count: int, *, stays: bool) -> Generator[tuple[subprocess.Popen[bytes], str]]:
    """Its stdout ends when all of them have; and the mark that they bear."""
    mark = new_mark()
    assert mark is not None
    code = RESTLESS.format(count=count, stays=20 if stays else 0)
    env = env_for_hosts() | {VARIABLE: str(mark)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(2) == b"go"
            yield process, mark.instance
        finally:
            process.kill()


def has_ended(stream: IO[bytes] | None) -> bool:
    assert stream is not None
    return bool(select.select([stream.fileno()], [], [], 0.5)[0])


def test_what_ended_while_a_tree_was_walked_is_a_reason_to_look_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may have started another one, which was not to be seen yet."""
    looks: list[int] = []

    def blinking(pid: int) -> Iterator[Process | None]:
        looks.append(pid)
        return iter([None]) if len(looks) == 1 else youngest_first(pid)

    youngest_first = _table.youngest_first
    monkeypatch.setattr(_tree, "youngest_first", blinking)
    with subprocess.Popen(
        ["sh", "-c", "sleep 1000 & echo; wait"], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        root = read_process(parent.pid)
        assert root is not None
        assert kill_tree(root) == []
        assert has_ended(parent.stdout)


def test_processes_that_fork_and_end_all_the_time_do_not_slip_away() -> None:
    """The youngest is stopped first."""
    with restless(4, stays=True) as (process, _):
        root = read_process(process.pid)
        assert root is not None
        assert kill_tree(root) == []
        assert has_ended(process.stdout)


def test_one_that_forks_and_ends_all_the_time_is_found_by_its_mark() -> None:
    """What has begun while the table was read is read as well, and stopped where it is seen."""
    with restless(1, stays=False) as (process, instance):
        process.wait()
        assert kill_marked(frozenset({instance})) == []
        assert has_ended(process.stdout)


def test_a_mark_is_enough_where_a_worker_has_become_another_user() -> None:
    """As root's may; whoever else runs this shows no more than that its own are found."""
    mark = new_mark()
    assert mark is not None
    user = 65534 if os.geteuid() == 0 else None
    env = {"PATH": os.environ["PATH"], VARIABLE: str(mark)}
    with subprocess.Popen(["sleep", "1000"], env=env, user=user, cwd="/") as process:
        try:
            assert kill_marked(frozenset({mark.instance})) == []
            assert process.wait(5) == -signal.SIGKILL
        finally:
            process.kill()


def test_who_is_killed_by_its_mark_is_not_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not noticed yet that it is stopped would run its handler of SIGTERM."""
    sent: list[int] = []

    def noted(process: Process | _table.Handle, number: int) -> bool:
        sent.append(number)
        return send_to(process, number)

    send_to = _table.send_to
    monkeypatch.setattr(_tree, "send_to", noted)
    with restless(1, stays=True) as (process, instance):
        assert kill_marked(frozenset({instance})) == []
        assert has_ended(process.stdout)
    assert set(sent) == {signal.SIGSTOP, signal.SIGKILL}
