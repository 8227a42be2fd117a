"""The other pools, each driven from trio by the fastest way that is fair to it.

Pools that have an async face are used through it. The others hand out futures or take a
callback; those wake the calling task through `TrioToken.run_sync_soon`. A thread that waits for
each call, `trio.to_thread.run_sync(future.result)`, costs them twice to four times as much under
many callers, and about the same under one.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable
from concurrent import futures
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import trio
from outcome import Error, Outcome, Value

from benchmarks._contender import Calls, Contender

STANDARD: Final = "concurrent.futures.process"
Done = Callable[[Outcome[Any]], None]


async def until_done(start: Callable[[Done], object]) -> Any:
    """Begin a call, and sleep until a thread of the pool's says that it is done."""
    task = trio.lowlevel.current_task()
    token = trio.lowlevel.current_trio_token()

    def done(outcome: Outcome[Any]) -> None:
        token.run_sync_soon(trio.lowlevel.reschedule, task, outcome)

    start(done)
    return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


def _call_back(done: Done, future: futures.Future[Any]) -> None:
    error = future.exception()
    done(Value(future.result()) if error is None else Error(error))


class Futures(Contender):
    """Pools that return a `concurrent.futures.Future`.

    `module`: what is imported; `pool`: makes one from the module and a number of workers.
    """

    def __init__(self, name: str, module: str, pool: Callable[[Any, int], Any]) -> None:
        self.name = name
        self._module = module
        self._pool = pool

    def submit(self, pool: Any, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Begin a call."""
        return pool.submit(func, *args)

    def load(self) -> None:
        self._library = importlib.import_module(self._module)

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        with self._pool(self._library, workers) as pool:

            def start(func: Callable[..., Any], args: tuple[Any, ...], done: Done) -> None:
                self.submit(pool, func, args).add_done_callback(partial(_call_back, done))

            async def run(func: Callable[..., Any], *args: Any) -> Any:
                return await until_done(partial(start, func, args))

            yield Calls.through(run)


class Pebble(Futures):
    """pebble's own word for submit."""

    def submit(self, pool: Any, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return pool.schedule(func, args=args)


class MultiprocessingPool(Contender):
    """`multiprocessing.Pool`, with callbacks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> None:
        importlib.import_module("multiprocessing.pool")

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        with _context("spawn").Pool(workers) as pool:

            def start(func: Callable[..., Any], args: tuple[Any, ...], done: Done) -> None:
                pool.apply_async(
                    func,
                    args,
                    callback=lambda value: done(Value(value)),
                    error_callback=lambda error: done(Error(error)),
                )

            async def run(func: Callable[..., Any], *args: Any) -> Any:
                return await until_done(partial(start, func, args))

            yield Calls.through(run)


class AnyioToProcess(Contender):
    """`anyio.to_process.run_sync`: no pool to open, a limiter says how many workers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> None:
        importlib.import_module("anyio.to_process")

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        to_process = importlib.import_module("anyio.to_process")
        yield Calls.through(partial(to_process.run_sync, limiter=anyio.CapacityLimiter(workers)))


class TrioParallel(Contender):
    """`trio_parallel.run_sync`, in a worker context of its own."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> None:
        self._library = importlib.import_module("trio_parallel")

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        async with self._library.open_worker_context() as context:
            yield Calls.through(partial(context.run_sync, limiter=trio.CapacityLimiter(workers)))


def spawning(library: Any, workers: int) -> Any:
    """The standard library's pool, whose workers are spawned."""
    return library.ProcessPoolExecutor(workers, mp_context=_context("spawn"))


def _context(method: str) -> Any:
    return importlib.import_module("multiprocessing").get_context(method)


PEERS: Final[tuple[Contender, ...]] = (
    AnyioToProcess("anyio.to_process"),
    TrioParallel("trio-parallel"),
    MultiprocessingPool("multiprocessing.Pool"),
    Futures("ProcessPoolExecutor spawn", STANDARD, spawning),
    Futures(
        "ProcessPoolExecutor forkserver",
        STANDARD,
        lambda lib, workers: lib.ProcessPoolExecutor(workers, mp_context=_context("forkserver")),
    ),
    Futures("loky", "loky", lambda lib, workers: lib.ProcessPoolExecutor(workers)),
    Pebble(
        "pebble",
        "pebble",
        lambda lib, workers: lib.ProcessPool(workers, context=_context("spawn")),
    ),
)
