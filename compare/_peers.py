"""The other pools, each with the best way that its documentation has to stop a call."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import trio

from compare._contender import Contender, FuturesContender, Run, Stops


def _spawn() -> Any:
    return importlib.import_module("multiprocessing").get_context("spawn")


class ProcessPoolExecutor(FuturesContender):
    """The standard library's. From Python 3.14 on it can kill its workers, all of them."""

    name = "ProcessPoolExecutor"
    death = "BrokenProcessPool"

    def __init__(self) -> None:
        self._library = importlib.import_module("concurrent.futures").ProcessPoolExecutor
        self._pool: Any = None
        if hasattr(self._library, "kill_workers"):
            self.stops: Stops = "the pool"
            self.how = "`executor.kill_workers()`, and a new executor"
        else:
            self.stops = "nothing"
            self.how = "nothing before Python 3.14, which has `executor.kill_workers()`"

    def submit(self, workers: int, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._pool is None:
            self._pool = self._library(workers, mp_context=_spawn())
        return self._pool.submit(func, *args)

    def stop(self, future: Any) -> None:
        if not future.cancel() and self.stops == "the pool":
            pool, self._pool = self._pool, None
            pool.kill_workers()


class MultiprocessingPool(FuturesContender):
    """`multiprocessing.Pool`: it has no word for one call, and `terminate` for all of them."""

    name = "multiprocessing.Pool"
    stops: Stops = "the pool"
    how = "`pool.terminate()`, and a new pool"

    def __init__(self) -> None:
        self._pool: Any = None

    def submit(self, workers: int, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._pool is None:
            self._pool = _spawn().Pool(workers)
        future: Future[Any] = Future()
        self._pool.apply_async(
            func, args, callback=future.set_result, error_callback=future.set_exception
        )
        return future

    def stop(self, future: Any) -> None:
        pool, self._pool = self._pool, None
        pool.terminate()


class Loky(FuturesContender):
    """Its reusable executor, asked for again at each call, as its documentation has it."""

    name = "loky"
    distribution = "loky"
    stops: Stops = "the pool"
    how = "`executor.shutdown(kill_workers=True)`, and the next `get_reusable_executor()`"
    death = "BrokenProcessPool"

    def submit(self, workers: int, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self._pool = importlib.import_module("loky").get_reusable_executor(max_workers=workers)
        return self._pool.submit(func, *args)

    def stop(self, future: Any) -> None:
        if not future.cancel():
            self._pool.shutdown(kill_workers=True)


class Pebble(FuturesContender):
    """A `ProcessPool`, whose futures can be cancelled while they run."""

    name = "pebble"
    distribution = "pebble"
    how = "`future.cancel()`"
    death = "ProcessExpired"

    def __init__(self) -> None:
        self._pool: Any = None

    def submit(self, workers: int, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._pool is None:
            self._pool = importlib.import_module("pebble").ProcessPool(workers, context=_spawn())
        return self._pool.schedule(func, args=args)

    def stop(self, future: Any) -> None:
        future.cancel()


class Deadpool(FuturesContender):
    """`Deadpool`, with the call that also kills."""

    name = "deadpool"
    distribution = "deadpool-executor"
    how = "`future.cancel_and_kill_if_running()`"
    death = "ProcessError"

    def __init__(self) -> None:
        self._pool: Any = None

    def submit(self, workers: int, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._pool is None:
            self._pool = importlib.import_module("deadpool").Deadpool(max_workers=workers)
        return self._pool.submit(func, *args)

    def stop(self, future: Any) -> None:
        future.cancel_and_kill_if_running()


class TrioParallel(Contender):
    """`run_sync` in a worker context of its own."""

    name = "trio-parallel"
    distribution = "trio-parallel"
    how = "the task is cancelled, `kill_on_cancel=True`"
    death = "BrokenWorkerError"

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Run]:
        library = importlib.import_module("trio_parallel")
        async with library.open_worker_context() as context:
            limiter = trio.CapacityLimiter(workers)
            yield partial(context.run_sync, kill_on_cancel=True, limiter=limiter)


class AnyioToProcess(Contender):
    """`anyio.to_process.run_sync`: no pool to open, a limiter says how many workers."""

    name = "anyio.to_process"
    distribution = "anyio"
    how = "the task is cancelled, `cancellable=True`"
    death = "BrokenWorkerProcess"

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Run]:
        library = importlib.import_module("anyio.to_process")
        yield partial(library.run_sync, cancellable=True, limiter=anyio.CapacityLimiter(workers))


PEERS: Final[tuple[Contender, ...]] = (
    ProcessPoolExecutor(),
    MultiprocessingPool(),
    Loky(),
    Pebble(),
    Deadpool(),
    TrioParallel(),
    AnyioToProcess(),
)
