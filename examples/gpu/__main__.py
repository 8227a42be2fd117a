"""`python -m examples.gpu`: what happens to a model on a GPU. Needs a CUDA GPU and PyTorch."""

import importlib.util
import logging
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np
import trio

import snakepit

from .adapter import GpuAdapter

MIB = 2**20
GIVEN_BACK_MIB = 64  # less than this in use: nobody holds a model any more
SIZES_MIB = (1, 16, 256, 1024)


def missing() -> str | None:
    """What this needs and has not."""
    if shutil.which("nvidia-smi") is None:
        return "this machine has no NVIDIA GPU (there is no nvidia-smi)"
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed: pip install torch"
    return None


def used_mib() -> int:
    """How much of the GPU's memory is in use, by all processes."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])


async def cancelled(pool: snakepit.Pool, tool: str, params: dict[str, Any]) -> None:
    """Cancel a call after half a second; is the model still there?"""
    before = await pool.execute("model")
    with trio.move_on_after(0.5) as scope:
        await pool.execute(tool, params)
    took = trio.current_time() - scope.deadline
    seconds = f" of {params['seconds']} s" if params else ""
    kept = await pool.execute("model") == before
    print(
        f"  {tool}{seconds}: its caller left after {took * 1000:.0f} ms,",
        "the model is kept" if kept else "another worker has loaded it anew",
    )


async def scene_cancel() -> None:
    """Calls that keep the GPU busy are cancelled."""
    async with snakepit.open_pool(GpuAdapter, size=1) as pool:
        await cancelled(pool, "many_kernels", {})
        await cancelled(pool, "one_kernel_polled", {"seconds": 3})
        await cancelled(pool, "one_kernel_awaited", {"seconds": 3})
        await cancelled(pool, "one_kernel", {"seconds": 3})
        await cancelled(pool, "one_kernel", {"seconds": 60})


async def scene_poison() -> None:
    """A kernel fails in a way that CUDA does not get over."""
    async with snakepit.open_pool(GpuAdapter, size=1) as pool:
        before = await pool.execute("model")
        try:
            await pool.execute("poison")
        except snakepit.WorkerDiedError as error:
            print("  the call:", str(error).partition("\n")[0])
        after = await pool.execute("model")
        print("  the next call:", "still the old worker" if after == before else "a new worker")


def scene_host_death(base_mib: int) -> None:
    """The host is killed while its workers keep the GPU busy."""
    for tool, params in (("many_kernels", {}), ("one_kernel", {"seconds": 60})):
        argv = [sys.executable, "-m", "examples.gpu", "--host", tool, *map(str, params.values())]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as host:
            assert host.stdout is not None
            host.stdout.readline()
            held = used_mib() - base_mib
            host.kill()
            killed = time.monotonic()
        while used_mib() - base_mib > GIVEN_BACK_MIB and time.monotonic() - killed < 60:
            time.sleep(0.02)
        took = time.monotonic() - killed
        print(f"  {tool}: {held} MiB of the GPU's memory were free again after {took:.1f} s")


async def be_host(tool: str, seconds: list[str]) -> None:
    """Two busy workers, until somebody kills us."""
    params = {"seconds": float(seconds[0])} if seconds else {}
    async with (
        snakepit.open_pool(GpuAdapter, size=2, min_ready=2) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            nursery.start_soon(pool.execute, tool, params)
        await trio.sleep(1)
        print("busy", flush=True)
        await trio.sleep(60)


async def median_ms(pool: snakepit.Pool, tool: str, params: dict[str, Any]) -> float:
    """Of five calls, after one that warms up."""
    took = []
    for _ in range(6):
        begun = time.perf_counter()
        await pool.execute(tool, params)
        took.append(time.perf_counter() - begun)
    return statistics.median(took[1:]) * 1000


async def scene_copies() -> None:
    """What it costs to bring an array from the host to the GPU, and back."""
    header = ("up: segment", "heap", "stdio", "down: segment", "heap", "stdio")
    print(" " * 10 + "".join(f"{name:>15}" for name in header))
    for size in SIZES_MIB:
        down = {"count": size * MIB // 4}
        heap = np.ones(down["count"], "float32")
        async with snakepit.open_pool(GpuAdapter, size=1, transport="shm") as pool:
            segment = pool.empty(down["count"], "float32")
            segment[:] = 1
            up_shared = await median_ms(pool, "upload", {"array": segment})
            up = await median_ms(pool, "upload", {"array": heap})
            down_shared = await median_ms(pool, "download_shared", down)
            down_copied = await median_ms(pool, "download", down)
        async with snakepit.open_pool(GpuAdapter, size=1, transport="stdio") as pool:
            up_stdio = await median_ms(pool, "upload", {"array": heap})
            down_stdio = await median_ms(pool, "download", down)
        row = (up_shared, up, up_stdio, down_shared, down_copied, down_stdio)
        print(f"{size:>6} MiB" + "".join(f"{value:>12.1f} ms" for value in row), flush=True)


def main() -> int:
    """Show all scenes."""
    if lacking := missing():
        print(f"examples.gpu: {lacking}", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", message=".*not writable.*")
    if sys.argv[1:2] == ["--host"]:
        trio.run(be_host, sys.argv[2], sys.argv[3:])
        return 0
    logging.getLogger("snakepit").setLevel(logging.CRITICAL)  # the scenes tell of lost workers
    base_mib = used_mib()
    print("Cancelled after 0.5 s:")
    trio.run(scene_cancel)
    print("A kernel that CUDA does not get over:")
    trio.run(scene_poison)
    print("The host is killed (kill -9) with two workers at work:")
    scene_host_death(base_mib)
    print("An array between the host and the GPU, the median of five calls:")
    trio.run(scene_copies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
