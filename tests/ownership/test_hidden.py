"""/proc that hides the processes of others: what cannot be seen is not taken for dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from threading import Thread

import pytest
from other_users import AS_NOBODY, HIDDEN, env_for_nobody, needs_hidden
from ownership_kit import run_well

from snakepit.process import new_mark
from snakepit.procfs import VARIABLE, _guardian, _marks, _table

HOST = """
import subprocess, sys, anyio, snakepit

AS_NOBODY = sys.argv[1:]

async def main():
    command = [*AS_NOBODY, sys.executable, "-m", "snakepit.worker", "family_adapters:Plain"]
    async with snakepit.open_pool(command=command, size=1, sweep=False) as pool:
        before = await pool.execute("pid")
        sweep = [*AS_NOBODY, sys.executable, "-m", "snakepit", "cleanup"]
        print(subprocess.run(sweep, stdout=subprocess.PIPE, text=True).stdout, end="")
        print(await pool.execute("pid") == before)

anyio.run(main)
"""


@needs_hidden
def test_a_worker_of_another_user_starts_and_is_left_alone_where_nobody_sees_its_host() -> None:
    """Neither it, nor the clean-up that its user runs, takes the host for dead."""
    run = run_well([*HIDDEN, sys.executable, "-c", HOST, *AS_NOBODY], env=env_for_nobody(), cwd="/")
    assert run.stdout.splitlines() == ["no orphans", "True"], run.stderr


def test_a_host_that_is_not_shown_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is not there is not."""
    mark = new_mark()
    assert mark is not None
    with subprocess.Popen(["true"]) as process:
        pass
    for module in (_marks, _table):
        monkeypatch.setattr(module, "read_process", lambda _pid: None)
    assert mark.host_is_alive()
    mark.host_pid = process.pid
    assert not mark.host_is_alive()


def test_a_worker_whose_host_is_gone_says_why_it_does_not_start() -> None:
    mark = new_mark()
    assert mark is not None
    mark.host_start += 1
    for _ in range(10):
        run = subprocess.run(
            [sys.executable, "-m", "snakepit.worker"],
            env=os.environ | {VARIABLE: str(mark)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if run.returncode != -signal.SIGTERM:  # by another pool's sweep, for which it is an orphan
            break
    assert run.returncode == 70
    assert run.stderr == "snakepit worker: it ends because its host is gone\n"


def test_the_guardian_goes_by_the_pipe_alone_where_nobody_sees_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_fd, write_fd = os.pipe()
    monkeypatch.setattr(_guardian, "STDIN", read_fd)
    guard = Thread(target=lambda: _guardian.Guardian().serve(None, is_hidden=True))
    guard.start()
    guard.join(0.1)
    assert guard.is_alive()
    os.close(write_fd)
    guard.join(10)
    assert not guard.is_alive()
    os.close(read_fd)
