"""Both sides are killed, at each step of what they say to each other: nobody is left who has a segment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _leaks import is_alive

HERE = Path(__file__).parent
PATIENCE_S = 30.0

HOST = """
import os, signal, sys
import anyio, numpy as np, snakepit
from shm_adapters import Sharer, MIB

STEP, SIGN = sys.argv[1:]
NEVER_SPEAKS = [sys.executable, "-c", "import time; time.sleep(600)"]

async def exists(path):
    while not os.path.exists(path):
        await anyio.sleep(0.005)

async def main():
    adapter, options = Sharer, {}
    if STEP == "before hello":
        adapter, options = None, {"command": NEVER_SPEAKS, "min_ready": 0}
    async with snakepit.open_pool(adapter, size=1, transport="shm", **options) as pool:
        async with anyio.create_task_group() as tasks:
            while (pid := pool.workers()[0].pid) is None:
                await anyio.sleep(0.005)
            if STEP != "before hello":
                array = pool.empty(4 * MIB)
                array[:] = 1
                made = await pool.execute("born_there", {"size": 4 * MIB})
            if STEP == "in a call":
                tasks.start_soon(pool.execute, "ponder", {"value": array, "sign": SIGN})
                await exists(SIGN)
            elif STEP == "in a copy":
                tasks.start_soon(pool.execute, "total", {"array": np.ones(40 * MIB)})
                await anyio.sleep(0)
            elif STEP == "shown and not looked at":
                os.kill(pid, signal.SIGSTOP)  # so it reads neither the message nor the descriptor
                tasks.start_soon(pool.execute, "total", {"array": array})
                while not pool.stats().shared_memory.references:
                    await anyio.sleep(0.005)
            elif STEP == "in a stream":
                stream = pool.stream("repeat", {"value": array, "times": 100}, window=3)
                items = await stream.__aenter__()
                first = await anext(items)
            elif STEP == "a result on its way":
                tasks.start_soon(pool.execute, "ones_once", {"size": 4 * MIB, "sign": SIGN})
                await exists(SIGN)
            print(os.getpid(), pid, flush=True)
            if STEP == "a result on its way":
                while True:  # the loop reads nothing any more
                    pass
            await anyio.sleep(600)

if __name__ == "__main__":
    anyio.run(main)
"""

STEPS = (
    "before hello",
    "idle, with memory lent both ways",
    "in a copy",
    "shown and not looked at",
    "in a call",
    "in a stream",
    "a result on its way",
)


@contextmanager
def host(step: str, folder: Path) -> Iterator[tuple[int, int]]:
    """A host with a pool that has come to this step; its pid and the worker's."""
    script, sign = folder / "script.py", folder / "sign"
    script.write_text(HOST)
    path = os.pathsep.join(map(str, (HERE.parents[1], HERE)))
    process = subprocess.Popen(
        [sys.executable, str(script), step, str(sign)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        pid, worker = (int(word) for word in process.stdout.readline().split())
        if step == "a result on its way":
            # The worker makes it now, and nobody will read it.
            sign.unlink()
            eventually(lambda: "done" in os.listdir(folder))
        yield pid, worker
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.unmeasured
@pytest.mark.blocking_ok("a script is started and killed")
@pytest.mark.parametrize("step", STEPS)
def test_after_sigkill_of_both_sides_nobody_has_a_segment(step: str, tmp_path: Path) -> None:
    """They have no names, so they, and their memory, go with the last process that has one."""
    with host(step, tmp_path) as pids:
        segments = set[int]().union(*map(segments_of, pids))
        assert segments, "there is something to leave behind"
        order = pids if STEPS.index(step) % 2 else pids[::-1]
        for pid in order:
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, pids)))
    eventually(lambda: not holders_of(segments))


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def holders_of(segments: set[int]) -> list[int]:
    """The processes of this machine, whoever they are, that have one open or mapped."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in numbers if segments & segments_of(pid)]


def segments_of(pid: int) -> set[int]:
    """The inodes of the segments that a process has open or mapped; of a ledger, too."""
    found = set()
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if "memfd:snakepit" in line:
                found.add(int(line.split()[4]))
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if "memfd:snakepit" in os.readlink(descriptor):
                found.add(descriptor.stat().st_ino)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # gone meanwhile, or not ours to look into
    return found
