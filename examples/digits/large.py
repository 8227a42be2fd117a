"""One large array, sent to a worker in three ways: what the scene of that name needs."""

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import trio
from numpy.typing import NDArray

import snakepit

from .eye import Eye

SIZE_MB = 256  # where there is room for it
ROUNDS = 3  # the quickest counts: this machine may have other things to do
SHARE = 6  # of the memory that is free, one part in so many is taken for the array


class Sent:
    """What was measured: the size, seconds for each way, bytes that the host had to copy for it."""

    def __init__(self, megabytes: int) -> None:
        self.megabytes = megabytes
        self.nbytes = 0
        self.shared = True
        self.seconds: dict[str, float] = {}
        self.copied: dict[str, int] = {}
        self.unlike = 0


async def send_in_three_ways(images: NDArray[np.float64], size_mb: int = SIZE_MB) -> Sent:
    """Send as many copies of the images as make up the size: from a segment, the heap, through a pipe."""
    sent = Sent(min(size_mb, free_mb() // SHARE))
    copies = max(1, -(-sent.megabytes * 2**20 // images.nbytes))
    memory = snakepit.ZeroCopy(budget_mb=3 * sent.megabytes + 64)
    async with snakepit.open_pool(Eye, size=1, zero_copy=memory) as pool:
        sent.shared = pool.stats().transport == "shm"
        pixels = pool.empty((copies, *images.shape), images.dtype)
        pixels[:] = images  # made where workers see it
        sent.nbytes = pixels.nbytes
        await measure(pool, "in shared memory", pixels, sent)
        pixels = pixels.copy()  # an ordinary array; the shared memory is free for the next one
        await measure(pool, "from the heap", pixels, sent)
    async with snakepit.open_pool(Eye, size=1, transport="stdio") as pool:
        await measure(pool, "through a pipe", pixels, sent, rounds=1)
    return sent


async def measure(
    pool: snakepit.Pool, way: str, pixels: Any, sent: Sent, rounds: int = ROUNDS
) -> None:
    """Send the array a few times; note the quickest, and whether the worker saw what it should."""
    expected = pixels.size, float(pixels.flat[0]), float(pixels.flat[-1])
    took, copied = [], copied_bytes(pool)
    for _ in range(rounds):
        began = trio.current_time()
        seen = await pool.execute("look", {"pixels": pixels})
        took.append(trio.current_time() - began)
        sent.unlike += seen != expected
    sent.seconds[way] = min(took)
    sent.copied[way] = copied_bytes(pool) - copied


def copied_bytes(pool: snakepit.Pool) -> int:
    """Into shared memory, since the pool was opened."""
    shared = pool.stats().shared_memory
    return 0 if shared is None else shared.copied_bytes


def free_mb() -> int:
    """Memory that may be taken, in MiB: of the machine, and of the container if this is one."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        if limit.strip() != "max":
            free = min(free, int(limit) - int(used))
    except (OSError, ValueError):
        pass  # not in a group of its own
    return max(0, int(free) // 2**20)
