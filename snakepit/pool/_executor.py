"""`pool.as_executor()`: the pool for code that speaks `concurrent.futures`."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from snakepit.pool._desk import Desk, Errand, PoolFuture
from snakepit.pool._functions import pickle_call, refuse_async
from snakepit.protocol import encode_params
from snakepit.worker._functions import run_chunk

P = ParamSpec("P")
T = TypeVar("T")


class PoolExecutor(Executor):
    """A `concurrent.futures.Executor` whose functions run in the workers of a pool."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._max_workers = desk.core.settings.size  # by this name others look for it
        self._lock = threading.RLock()
        self._shut = False
        self._pending: set[Future[Any]] = set()
        desk.executors.add(self)

    def __repr__(self) -> str:
        state = "shut down" if self._shut else "open"
        name = self._desk.core.settings.name
        return f"<executor of snakepit.Pool {name!r}, {state}: {len(self._pending)} pending>"

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker call `fn(*args, **kwargs)`; arguments are pickled before this returns."""
        future = self._make(partial(fn, **kwargs) if kwargs else fn, args)
        errand = future.errand
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._desk.refuse_if_shut()
            if errand is None:
                return future
            self._pending.add(future)
        try:
            future.add_done_callback(self._is_done)
            self._desk.put(errand)
        except BaseException:  # Ctrl+C: nobody has this future
            self._is_done(future)
            raise
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As `Executor.map`. `buffersize` bounds the calls (of `chunksize`) that are under way."""
        refuse_async(fn)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        arguments = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(arguments, chunksize)), [])
        futures: deque[Future[list[T]]] = deque()
        try:
            for chunk in itertools.islice(chunks, buffersize):
                futures.append(self.submit(run_chunk, fn, chunk))
        except BaseException:
            _cancel(futures)
            raise
        more = chunks if buffersize is not None else iter(())

        def results() -> Iterator[T]:
            try:
                while futures:
                    for chunk in itertools.islice(more, 1):
                        futures.append(self.submit(run_chunk, fn, chunk))
                    left = None if end is None else end - time.monotonic()
                    values = _result_or_cancel(futures.popleft(), left)
                    values.reverse()
                    while values:
                        yield values.pop()  # and keep no reference
            finally:
                _cancel(futures)

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the base class
        """Take no more; with `wait`, until all futures are done. The pool stays open.

        Raises: RuntimeError: waiting for unfinished futures in the thread of the pool's event loop,
            which would never end. The executor is shut down nevertheless.
        """
        with self._lock:
            self._shut = True
            pending = list(self._pending)
        elsewhere = not self._desk.is_own_thread()
        if cancel_futures:
            if elsewhere:
                self._desk.catch_up()
            _cancel(pending)
        if not wait:
            return
        if elsewhere:
            wait_for(pending)
        elif not all(future.done() for future in pending):
            raise RuntimeError(
                "this thread runs the pool's event loop, and would wait for itself for ever; await "
                "the futures first, or use `await anyio.to_thread.run_sync(executor.shutdown)`"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In the loop's thread an error in flight goes before the complaint that we cannot wait.
        self.shutdown(wait=kind is None or not self._desk.is_own_thread())

    def _is_done(self, future: Future[Any]) -> None:
        self._pending.discard(future)

    def _make(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> PoolFuture:
        try:
            body, buffers = encode_params(pickle_call(function, arguments, as_is=True))
        except Exception as error:
            future = PoolFuture(None)
            future.set_exception(error)
            return future
        return Errand(self._desk, body, buffers).future


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


def _result_or_cancel(future: Future[T], timeout: float | None) -> T:
    try:
        return future.result(timeout)
    finally:
        future.cancel()
        del future  # its exception's traceback would hold it
