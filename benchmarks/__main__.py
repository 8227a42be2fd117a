"""`make bench`: what a call costs, as ratios to the floor, medians over interleaved rounds."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

import snakepit
from benchmarks._floor import ping_pong, round_trips
from snakepit import Adapter, tool

ROUNDS = 7
CALLS = 1000
CALLERS = 64


class Nothing(Adapter):
    """A tool that does nothing."""

    @tool
    def nothing(self) -> None:
        """Do nothing."""


async def one_caller(pool: snakepit.Pool) -> float:
    """Seconds per call, one after the other."""
    start = time.perf_counter()
    for _ in range(CALLS):
        await pool.execute("nothing")
    return (time.perf_counter() - start) / CALLS


async def many_callers(pool: snakepit.Pool) -> float:
    """Seconds per call, from many tasks at once."""

    async def caller() -> None:
        for _ in range(CALLS // 16):
            await pool.execute("nothing")

    start = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(CALLERS):
            tasks.start_soon(caller)
    return (time.perf_counter() - start) / (CALLERS * (CALLS // 16))


Measure = Callable[[snakepit.Pool], Coroutine[Any, Any, float]]


def measure(backend: str, what: Measure, size: int) -> float:
    """One round of one contender, in an event loop of its own."""

    async def main() -> float:
        async with snakepit.open_pool(Nothing, size=size) as pool:
            await pool.ready()
            await what(pool)  # warm up
            return await what(pool)

    return anyio.run(main, backend=backend)


def main() -> int:
    """Measure and print."""
    contenders = {
        "1 caller, 1 worker, trio": lambda: measure("trio", one_caller, 1),
        "1 caller, 1 worker, asyncio": lambda: measure("asyncio", one_caller, 1),
        f"{CALLERS} callers, 2 workers, trio": lambda: measure("trio", many_callers, 2),
        f"{CALLERS} callers, 2 workers, asyncio": lambda: measure("asyncio", many_callers, 2),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    floors: list[float] = []
    with ping_pong() as child:
        for _ in range(ROUNDS):
            floors.append(round_trips(child, CALLS))
            for name, contender in contenders.items():
                seconds = contender()
                times[name].append(seconds)
                ratios[name].append(seconds / floors[-1])
    print(
        f"python {sys.version.split()[0]}, {ROUNDS} rounds, medians; ratio: to the floor's round trip"
    )
    print(f"{'floor: blocking ping-pong':36} {statistics.median(floors) * 1e6:7.1f} µs")
    for name in contenders:
        low, middle, high = (f(ratios[name]) for f in (min, statistics.median, max))
        print(
            f"{name:36} {statistics.median(times[name]) * 1e6:7.1f} µs per call   "
            f"ratio {middle:.2f} ({low:.2f} to {high:.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
