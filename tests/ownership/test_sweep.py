"""The table of processes is the registry: orphans of dead hosts are found, and nobody else is."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from _backends import one_loop_each
from _bounds import takes_at_most
from _leaks import is_alive
from family_adapters import KINDS, SyncFamily
from ownership_kit import (
    NAMESPACE,
    WORKER_NETS,
    env_for_hosts,
    host,
    needs_namespaces,
    wait_gone,
)

import snakepit
from snakepit.__main__ import main
from snakepit.process import new_mark
from snakepit.procfs import (
    VARIABLE,
    Mark,
    descendants_of,
    find_marked,
    read_process,
)

pytestmark = one_loop_each

ORPHANS_S = 2.0  # as docs/guarantees.md has it


def mark_of(host_pid: int) -> Mark:
    """As a host with this pid would make it."""
    mark, process = new_mark(), read_process(host_pid)
    assert mark is not None
    assert process is not None
    mark.host_pid, mark.host_start = process.pid, process.start
    return mark


@contextmanager
def sleeper(mark: Mark | str | None) -> Generator[subprocess.Popen[bytes]]:
    """A process with such a mark."""
    env = {"PATH": os.environ["PATH"]} | ({} if mark is None else {VARIABLE: str(mark)})
    with subprocess.Popen(["sleep", "1000"], env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def changed(change: Callable[[Mark], None]) -> Mark:
    """The mark of a dead host, and something else about it."""
    mark = mark_of(os.getpid())
    dead(mark)
    change(mark)
    return mark


def of_another_boot(mark: Mark) -> None:
    mark.boot = "0"


def of_another_namespace(mark: Mark) -> None:
    mark.pid_namespace = 1


def of_a_dead_host() -> Mark:
    mark = mark_of(os.getpid())
    dead(mark)
    return mark


OTHERS: dict[str, Callable[[], Mark | str | None]] = {
    "nobody's": lambda: None,
    "a live host's": lambda: mark_of(os.getpid()),
    "of another boot": lambda: changed(of_another_boot),
    "of another namespace": lambda: changed(of_another_namespace),
    "of another version": lambda: "2" + str(of_a_dead_host())[1:],
    "garbage": lambda: "1:a:b:c:d:e:f",
}


def dead(mark: Mark) -> None:
    """Its host is gone: another process has the number now."""
    mark.host_start += 1


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_orphan_of_ours_is_left_alone(kind: str) -> None:
    with sleeper(OTHERS[kind]()) as process:
        done = snakepit.cleanup()
        assert process.pid not in done.ended + done.left
        assert process.poll() is None


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_orphan_is_ended_and_reported(
    stubborn: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose host's number has been given to another process since."""
    monkeypatch.setattr(snakepit.process._sweep, "ORPHAN_GRACE_S", 0.1)
    with sleeper(of_a_dead_host()) as process:
        if stubborn:
            process.send_signal(signal.SIGSTOP)
        with caplog.at_level(logging.WARNING, "snakepit.process"):
            done = snakepit.cleanup()
        assert process.wait(5) == (-signal.SIGKILL if stubborn else -signal.SIGTERM)
        # Another run of these tests may have been first.
        if process.pid in done.ended:
            assert f"what was below them: ended {len(done.ended)}: " in caplog.text
            assert str(process.pid) in caplog.text
        assert process.pid not in done.left


def test_a_mark_is_what_its_text_says() -> None:
    mark = mark_of(os.getpid())
    again = Mark.parse(str(mark))
    assert again is not None
    assert {name: getattr(again, name) for name in Mark.__slots__} == {
        name: getattr(mark, name) for name in Mark.__slots__
    }
    assert mark.is_from_here()
    assert mark.host_is_alive()
    dead(mark)
    assert not mark.host_is_alive()


@pytest.mark.parametrize("pid", [0, -1, 2**31])
def test_a_mark_with_a_pid_that_is_none_is_no_mark(pid: int) -> None:
    mark = mark_of(os.getpid())
    mark.host_pid = pid
    assert Mark.parse(str(mark)) is None


def test_a_host_that_is_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not mark_of(process.pid).host_is_alive()


async def test_opening_a_pool_ends_the_orphans_of_dead_hosts_and_touches_no_live_one(
    tmp_path: Path,
) -> None:
    """Of two hosts in one directory the one that died had neither a guardian nor a worker that hears."""
    folders = [tmp_path / name for name in ("dead", "alive", "ours")]
    for folder in folders:
        folder.mkdir()
    tools = ["sleep", "hold_gil", "start_and_sleep", "stopped"]
    off = ["guardian", *WORKER_NETS]
    with (
        anyio.fail_after(60),
        host(folders[0], off=off, tools=tools) as doomed,
        host(folders[1], off=off, tools=["sleep"]) as living,
    ):
        doomed.wait_ready()
        living.wait_ready()
        orphans = doomed.pids()
        assert len(orphans) == len(tools) + 1 + len(KINDS)
        doomed.end()
        assert all(map(is_alive, orphans))
        async with snakepit.open_pool(
            SyncFamily, size=1, adapter_args=(str(folders[2]),), sweep=True
        ) as pool:
            with takes_at_most(ORPHANS_S):
                while any(map(is_alive, orphans)):
                    await anyio.sleep(0.01)
            assert all(map(is_alive, living.pids("worker")))
            assert len(doomed.kill_bystanders()) == len(living.kill_bystanders()) == 1
            assert await pool.execute("pid") in map(int, [w.pid or 0 for w in pool.workers()])


async def test_without_a_sweep_nothing_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = []
    monkeypatch.setattr(snakepit.launchers._spawned, "sweep", lambda: swept.append(True))
    async with snakepit.open_pool(
        SyncFamily, size=1, adapter_args=(str(tmp_path),), sweep=False
    ) as pool:
        await pool.execute("pid")
    assert swept == []


@pytest.mark.parametrize("sweep", [None, 1, "yes"])
async def test_a_sweep_that_is_neither_is_a_wrong_option(sweep: object) -> None:
    with pytest.raises(snakepit.ConfigError, match="sweep"):
        async with snakepit.open_pool(SyncFamily, sweep=sweep):  # type: ignore[arg-type]
            pass


# -- other pid namespaces --------------------------------------------------------------------------

IN_NAMESPACE = """
import os, signal, subprocess, sys, snakepit
from _bounds import takes_at_most
from snakepit.__main__ import main
from snakepit.process import new_mark
from snakepit.procfs import VARIABLE

ORPHANS_S = float(sys.argv[1])
assert os.getpid() == 1
mark = new_mark()
live = subprocess.Popen(["sleep", "1000"], env=os.environ | {VARIABLE: str(mark)})
mark.host_start += 1
orphans = [
    subprocess.Popen(["sleep", "1000"], env=os.environ | {VARIABLE: str(mark)}) for _ in range(2)
]
orphans[1].send_signal(signal.SIGSTOP)
with takes_at_most(ORPHANS_S):
    code = main(["cleanup"])
print([orphan.wait() for orphan in orphans], live.poll(), code)
print(main(["cleanup"]))
live.kill()
"""


@needs_namespaces
def test_the_command_says_what_it_ended() -> None:
    """In a namespace of its own, where no other run of the tests can be quicker; as PID 1."""
    run = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", IN_NAMESPACE, str(ORPHANS_S)],
        env=env_for_hosts(),
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["ended", "ended"]
    assert lines[2:] == ["[-15, -9] None 0", "no orphans", "0"]
    assert "orphan" not in run.stderr


@needs_namespaces
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_host_that_is_pid_1_ends_all_its_workers(backend: str, tmp_path: Path) -> None:
    """It looks itself, before its own end takes the namespace and all that is in it along."""
    with host(
        tmp_path, wrapper=NAMESPACE, how="leave", backend=backend, tools=["hold_gil", "start"]
    ) as leaving:
        assert leaving.wait_ready() > 1
        assert leaving.read_line() == "[]"
        assert leaving.popen.wait(30) == 0
        assert len(leaving.pids("worker")) >= 3
        assert all(map(leaving.pids, KINDS))
        leaving.folder = tmp_path / "no pids of this namespace"


@needs_namespaces
def test_a_host_in_another_namespace_is_none_of_our_business(tmp_path: Path) -> None:
    """Its pid means nothing here, or somebody else."""
    with host(tmp_path, wrapper=NAMESPACE, tools=["sleep"]) as inside:
        inside.wait_ready()
        below = {process.pid for process in descendants_of(inside.popen.pid)}
        workers = [pid for pid in marked_anywhere() if pid in below]
        visible = find_marked(lambda mark: True)
        assert not set(workers) & {process.pid for process, _ in visible}
        assert len(workers) >= 2
        done = snakepit.cleanup()
        assert not set(workers) & set(done.ended + done.left)
        assert all(map(is_alive, workers))
        inside.popen.kill()
        inside.folder = tmp_path / "no pids of this namespace"
        wait_gone(workers)


ANOTHER_CLOCK = """
import os, subprocess, sys
from snakepit.process import new_mark
from snakepit.procfs import VARIABLE

env = os.environ | {VARIABLE: str(new_mark())}
with subprocess.Popen(["sleep", "1000"], env=env) as worker:
    command = [sys.executable, "-m", "snakepit", "cleanup"]
    subprocess.run(["unshare", "-Tf", "--boottime", "100000", *command], check=True)
    print(worker.poll(), flush=True)
    worker.kill()
"""


@needs_namespaces
def test_a_host_with_another_clock_is_none_of_our_business() -> None:
    """In a time namespace the kernel tells other start times: every host would seem to be dead."""
    run = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", ANOTHER_CLOCK],
        env=env_for_hosts(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines()[-1] == "None"


def marked_anywhere() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if VARIABLE.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["clean"])
    assert caught.value.code == 2
    assert "cleanup" in capsys.readouterr().err
