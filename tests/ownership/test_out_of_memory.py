"""A worker that the kernel really ends for want of memory, in a cgroup of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from snakepit.process._cgroups import memory_groups

LIMIT_BYTES = 200 * 2**20
PROGRAM = """
import os
import snakepit

def fill(mb):
    return len(b"x" * (mb << 20))

if __name__ == "__main__":
    barrier = snakepit.CrashBarrier(max_restarts=0)
    with snakepit.open_pool_sync(size=1, crash_barrier=barrier) as pool:
        try:
            pool.run_sync(fill, 400)
        except snakepit.WorkerDiedError as error:
            print(error.signal, error.certificate)
        try:
            pool.run_sync(os.getpid)
        except snakepit.PoolBrokenError:
            print("broken")
"""


@pytest.fixture
def small_group() -> Generator[Path]:
    """A cgroup with little memory, made below our own or beside it; skips where there can be none."""
    for version, root, own in memory_groups():
        for parent in (own, root):
            group = parent / f"snakepit-test-{os.getpid()}"
            try:
                group.mkdir()
            except OSError:
                continue
            try:
                limit = "memory.limit_in_bytes" if version == 1 else "memory.max"
                (group / limit).write_text(str(LIMIT_BYTES))
            except OSError:
                group.rmdir()
                continue
            yield group
            _remove(group)
            return
    pytest.skip("this user may make no cgroup here whose memory is bounded")


def _remove(group: Path) -> None:
    for _ in range(200):
        try:
            group.rmdir()
        except OSError:  # the dead take a moment to leave it
            time.sleep(0.01)
        else:
            return
    group.rmdir()


def test_who_is_ended_for_want_of_memory_is_told_of_so_and_is_at_fault(
    small_group: Path, tmp_path: Path
) -> None:
    """The certificate says it, and the start counts as fruitless: SIGKILL alone would not."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    join = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    run = subprocess.run(
        ["sh", "-c", join, str(small_group), sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    died, broken = run.stdout.splitlines()
    assert died.startswith("9 ended by SIGKILL; "), run.stderr
    assert "for want of memory the kernel ended 1 of the processes of its cgroup meanwhile" in died
    assert broken == "broken"
