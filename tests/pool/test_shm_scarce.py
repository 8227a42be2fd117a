"""Shared memory where much is missing: NumPy and Arrow, descriptors, room in /dev/shm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _leaks import unmeasured_env
from _venvs import HOSTS, make_venv
from pool_kit import run_script

TOOLS = """
import sys
from snakepit import Adapter, tool

class Plain(Adapter):
    @tool
    def echo(self, value):
        assert "numpy" not in sys.modules and "pyarrow" not in sys.modules
        return value
    @tool
    def copied(self):
        from snakepit.worker import _empty
        return _empty.find_heap().copied_bytes
"""
WITHOUT_LIBRARIES = """
import sys
import anyio, snakepit
from plain_tools import Plain

async def main():
    for wanted in ("numpy", "pyarrow"):
        try:
            __import__(wanted)
        except ImportError:
            continue
        raise AssertionError(wanted)
    own = snakepit.ZeroCopy(copy_results=True)
    async with snakepit.open_pool(Plain, size=1, transport="shm") as pool:
        buffer = pool.buffer(2 * 2**20)
        buffer[:5] = b"snake"
        back = await pool.execute("echo", {"value": {"deep": [buffer]}})
        view = back["deep"][0]
        assert bytes(view[:5]) == b"snake" and view.readonly
        buffer[:5] = b"SNAKE"
        assert bytes(view[:5]) == b"SNAKE"  # it is the same memory
        assert pool.stats().shared_memory.copied_bytes == 0
        heap = memoryview(bytearray(b"x" * (6 * 2**20)))
        assert await pool.execute("echo", {"value": heap}) == heap
        assert await pool.execute("copied") == 0
        assert await pool.execute("echo", {"value": bytes(heap)}) == bytes(heap)
        assert await pool.execute("echo", {"value": heap[::2]}) == heap[::2]
    async with snakepit.open_pool(Plain, size=1, transport="shm", zero_copy=own) as pool:
        mine = await pool.execute("echo", {"value": heap})
        mine[:3] = b"abc"
    global kept
    kept = [buffer, view, back, [mine]]  # seen by nobody but Python as it ends
    kept.append(kept)

if __name__ == "__main__":
    anyio.run(main)
"""


@pytest.mark.unmeasured
@pytest.mark.blocking_ok("a script is run")
def test_without_numpy_and_pyarrow_memoryviews_travel_without_copies(tmp_path: Path) -> None:
    """Host and worker live in an environment that has what the package requires, and no more."""
    python = make_venv(tmp_path / "venv", {"snakepit", "msgspec"} | HOSTS) / "bin" / "python"
    (tmp_path / "plain_tools.py").write_text(TOOLS)
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_LIBRARIES)
    ended = subprocess.run(
        [str(python), str(script)],
        env=unmeasured_env(),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


FEW_DESCRIPTORS = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import anyio, numpy as np, snakepit
from shm_adapters import Sharer, MIB

async def main():
    zero_copy = snakepit.ZeroCopy(budget_mb=1024)
    async with snakepit.open_pool(Sharer, size=1, transport="shm", zero_copy=zero_copy) as pool:
        held = []
        for number in range(80):  # each in a segment of its own, on either side
            array = np.full(5 * MIB // 8, number)
            held.append(await pool.execute("echo", {"value": array}))
        assert all((array == number).all() for number, array in enumerate(held))
        stats = pool.stats().shared_memory
        assert 20 < stats.references < 80, stats

if __name__ == "__main__":
    anyio.run(main)
"""


@pytest.mark.blocking_ok("a script is run")
def test_with_64_descriptors_what_cannot_be_shown_goes_through_the_pipes(tmp_path: Path) -> None:
    ended = run_script(tmp_path, FEW_DESCRIPTORS)
    assert ended.returncode == 0, ended.stderr


LITTLE_ROOM = """
import anyio, numpy as np, os, snakepit
from shm_adapters import Sharer, MIB

async def main():
    room = os.statvfs("/dev/shm")
    assert room.f_frsize * room.f_blocks == 64 * MIB
    zero_copy = snakepit.ZeroCopy(budget_mb=512)
    async with snakepit.open_pool(Sharer, size=1, transport="shm", zero_copy=zero_copy) as pool:
        array = np.ones(16 * MIB)
        assert await pool.execute("total", {"array": array}) == 16 * MIB
        assert pool.stats().shared_memory.references == 1
    assert not os.listdir("/dev/shm")

if __name__ == "__main__":
    anyio.run(main)
"""


@pytest.mark.blocking_ok("a script is run")
def test_a_small_dev_shm_is_no_limit(tmp_path: Path) -> None:
    """As in a container: 64 MiB there, and an array of 128 MiB."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("a mount namespace of its own needs root")
    script = tmp_path / "script.py"
    script.write_text(LITTLE_ROOM)
    here = Path(__file__)
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh",
         sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parents[2]), str(here.parent)])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "mount" in ended.stderr and "denied" in ended.stderr:
        pytest.skip("a mount namespace may not be made here")
    assert ended.returncode == 0, ended.stderr
