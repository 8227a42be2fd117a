"""What is measured inside a contender's process: each function is one turn of one contender.

Times are in seconds, memory in MiB.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import cache
from itertools import cycle
from typing import Any, Final

import anyio
import psutil

from benchmarks import _work
from benchmarks._array_measures import ARRAY_MEASURES
from benchmarks._contender import Calls
from benchmarks._timing import clock as _clock
from benchmarks._timing import p50 as _p50

SHORT_CALLERS: Final = 64


async def round_trip(calls: Calls, *, seconds: float) -> float:
    """One caller, one call after the other: the median of the calls of this time."""
    return await _p50(calls.nothing, seconds)


async def values(calls: Calls, *, value: str, seconds: float) -> float:
    """The median time that a value takes to a worker and back."""
    sent = _VALUES[value]()
    assert await calls.echo(sent) == sent
    return await _p50(lambda: calls.echo(sent), seconds)


async def load(calls: Calls, *, callers: int, seconds: float) -> float:
    """Seconds per call while so many callers call all the time."""
    return await _under_load([calls.nothing] * callers, seconds)


async def sessions(calls: Calls, *, count: int, seconds: float) -> float:
    """Seconds per call through so many open sessions, each used in its turn, and not for the first time."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(calls.pool.session(f"s{number}"))
            for number in range(count)
        ]
        for session in opened:
            await session.execute("nothing")  # it gets its worker, which takes some 4 µs
        turns = cycle(opened)
        return await _under_load([lambda: next(turns).execute("nothing")] * SHORT_CALLERS, seconds)


async def stream(calls: Calls, *, count: int) -> float:
    """Seconds per chunk of one stream of so many small chunks, its beginning and end included."""
    seen = 0
    start = _clock()
    async with calls.pool.stream("numbers", {"count": count}) as chunks:
        async for _ in chunks:
            seen += 1
    cost = (_clock() - start) / count
    assert seen == count
    return cost


async def host_call(calls: Calls, *, seconds: float) -> float:
    """One caller: the median call of a tool that calls the host once, which does nothing."""
    _offer_nothing(calls.pool)
    return await _p50(lambda: calls.pool.execute("ask"), seconds)


async def one_long_call(calls: Calls, *, seconds: float) -> dict[str, float]:
    """How long short calls took while a call of this length kept one worker busy."""
    times: list[float] = []
    began = anyio.Event()
    over = False

    async def caller() -> None:
        while not over:
            start = _clock()
            await calls.nothing()
            if began.is_set():
                times.append(_clock() - start)

    async with anyio.create_task_group() as tasks:
        for _ in range(SHORT_CALLERS):
            tasks.start_soon(caller)
        await anyio.sleep(seconds / 10)  # until calls are sent ahead
        began.set()
        await calls.pause(seconds)
        over = True
    times.sort()
    return {"longest": times[-1], "median": times[len(times) // 2], "count": len(times)}


async def idle_memory(calls: Calls) -> float:
    """MiB of memory that one idle worker has for itself; the helper processes count too."""
    del calls
    await anyio.sleep(0.5)
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a helper that has just ended
            total += _uss(child.pid)
    return total


async def memory_growth(calls: Calls, *, first: int, last: int) -> dict[str, float]:
    """MiB that host and workers gained between the `first` call and the `last`."""
    made = 0

    async def caller(until: int) -> None:
        nonlocal made
        while made < until:
            made += 1
            await calls.nothing()

    seen: list[list[float]] = []
    for until in (first, last):
        async with anyio.create_task_group() as tasks:
            for _ in range(SHORT_CALLERS):
                tasks.start_soon(caller, until)
        gc.collect()
        seen.append([_uss(pid) for pid in (os.getpid(), *_worker_pids(calls))])
    growth = [after - before for before, after in zip(*seen, strict=True)]
    return {"host": growth[0], "worker": max(growth[1:])}


async def worker_memory(calls: Calls) -> float:
    """MiB of the largest worker of a pool, before it was given any call but one."""
    await anyio.sleep(0.5)
    return max(_uss(pid) for pid in _worker_pids(calls))


@cache  # a pool takes a name once
def _offer_nothing(pool: Any) -> None:
    pool.add_host_tool(_work.nothing)


def _worker_pids(calls: Calls) -> list[int]:
    return [worker.pid for worker in calls.pool.workers() if worker.pid is not None]


def _uss(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().uss) / 2**20


async def _under_load(callers: list[Callable[[], Awaitable[Any]]], seconds: float) -> float:
    """Seconds per call in the steady state: after each caller's first call, none leaving."""
    finished = 0
    over = False
    warm = anyio.Event()

    async def caller(call: Callable[[], Awaitable[Any]]) -> None:
        nonlocal finished
        while not over:
            await call()
            finished += 1
            if finished == len(callers):
                warm.set()

    async with anyio.create_task_group() as tasks:
        for call in callers:
            tasks.start_soon(caller, call)
        await warm.wait()
        start, before = _clock(), finished
        while finished == before or _clock() - start < seconds:  # noqa: ASYNC110 - at least once
            await anyio.sleep(seconds)
        cost = (_clock() - start) / (finished - before)
        over = True
    return cost


@cache
def _mixed_dict() -> dict[str, Any]:
    """A thousand keys; the values of eight kinds in turn, as configurations and records have."""
    chance = random.Random(1)
    kinds: tuple[Callable[[int], Any], ...] = (
        lambda number: number * 1001,
        lambda _: chance.random(),
        lambda number: f"the value of key {number}",
        lambda number: number % 3 == 0,
        lambda _: None,
        lambda number: chance.randbytes(number % 32),
        lambda number: [number, number + 1, number + 2],
        lambda number: {"name": f"item {number}", "weight": chance.random()},
    )
    return {f"key {number}": kinds[number % len(kinds)](number) for number in range(1000)}


@cache
def _floats() -> list[float]:
    chance = random.Random(1)
    return [chance.random() for _ in range(100_000)]


_VALUES: Final[dict[str, Callable[[], Any]]] = {"floats": _floats, "dict": _mixed_dict}

MEASURES: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    measure.__name__: measure
    for measure in (
        round_trip,
        values,
        load,
        sessions,
        stream,
        host_call,
        one_long_call,
        idle_memory,
        worker_memory,
        memory_growth,
        *ARRAY_MEASURES,
    )
}
