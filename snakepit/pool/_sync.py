"""`open_pool_sync`: the same pool for scripts without `async`, on an event loop in a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import Executor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    contextmanager,
)
from datetime import timedelta
from types import ModuleType
from typing import Any, Final, Literal, TypeVar, TypeVarTuple

from anyio.from_thread import BlockingPortal

from snakepit.errors import ConfigError, PoolClosedError
from snakepit.options import DEFAULT_STOP, Affinity, Stop
from snakepit.pool._host_tools import HostToolCalls
from snakepit.pool._inputs import open_input_in_threads
from snakepit.pool._loop_thread import LoopThread
from snakepit.pool._open import open_pool
from snakepit.pool._pool import Pool
from snakepit.pool._progress import OnProgress
from snakepit.pool._slot import WorkerInfo
from snakepit.pool._stats import PoolStats
from snakepit.pool._sync_session import SyncSession, session_of
from snakepit.pool._sync_typed import SyncTypedCalls
from snakepit.pool._sync_views import SyncBoundPool
from snakepit.pool._sync_wait import Errand, Updates
from snakepit.pool._tools import ToolSpec

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
BACKENDS: Final = ("trio", "asyncio")


class SyncPool(SyncTypedCalls, HostToolCalls):
    """A pool for blocking code; may be used from any number of threads.

    Each method does what its namesake of `Pool` does, and blocks for it. An exception that interrupts
    the wait, Ctrl+C for one, stops the call before it goes on.
    """

    def __init__(self, pool: Pool, portal: BlockingPortal) -> None:
        self._pool, self._portal = pool, portal
        self._closed = False

    def __repr__(self) -> str:
        return f"<snakepit.SyncPool of {self._pool!r}>"

    def execute(
        self,
        tool: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        session: str | SyncSession | None = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run one tool and return its value; see `Pool.execute`.

        `on_progress` is a plain function here. It runs in the calling thread, so it may block, and use
        this pool.
        """
        updates = None if on_progress is None else Updates(on_progress, self._portal)
        return self._wait(
            lambda: self._pool.execute(
                tool,
                params,
                session=session_of(session),
                timeout=timeout,
                idempotent=idempotent,
                on_progress=None if updates is None else updates.hand_over,
            ),
            updates,
        )

    def stream(
        self,
        tool: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        session: str | SyncSession | None = None,
        timeout: float | None = None,
        window: int = 16,
    ) -> AbstractContextManager[Iterator[Any]]:
        """Call a streaming tool: `with pool.stream(...) as chunks: for chunk in chunks`."""
        return self._each_of(
            lambda: self._pool.stream(
                tool, params, session=session_of(session), timeout=timeout, window=window
            )
        )

    def map(
        self,
        tool: str,
        iterable_of_params: Iterable[Mapping[str, Any]],
        /,
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["cancel", "return"] = "cancel",
        timeout: float | None = None,
        session: str | SyncSession | None = None,
    ) -> AbstractContextManager[Iterator[Any]]:
        """Call one tool for each item: `with pool.map(...) as results: for result in results`.

        As `Pool.map`. The input runs in threads, one item at a time, so it may block, and use this
        pool; leaving the block waits for the item that is being made.
        """
        return self._each_of(
            lambda: self._pool.map(
                tool,
                open_input_in_threads(iterable_of_params),
                limit=limit,
                ordered=ordered,
                on_error=on_error,
                timeout=timeout,
                session=session_of(session),
            )
        )

    def bind(
        self,
        *,
        timeout: float | None = None,
        session: str | SyncSession | None = None,
        idempotent: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> SyncBoundPool:
        """A view of this pool whose calls have these options; see `Pool.bind`."""
        return SyncBoundPool(
            self,
            timeout=timeout,
            session=session,
            idempotent=idempotent,
            on_progress=on_progress,
        )

    @contextmanager
    def session(
        self,
        session_id: str | None = None,
        *,
        affinity: Affinity = "strict_queue",
        ttl: float | timedelta | None = None,
    ) -> Generator[SyncSession]:
        """Open a session: `with pool.session("user_42") as session`; see `Pool.session`."""
        self._check_caller()
        opening = self._pool.session(session_id, affinity=affinity, ttl=ttl)
        with self._portal.wrap_async_context_manager(opening) as session:
            yield SyncSession(self, session)

    def end_session(self, session_id: str) -> None:
        """End a session that `execute(session=...)` has made; see `Pool.end_session`."""
        self._wait(lambda: self._pool.end_session(session_id))

    def run_sync(self, func: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run any importable or picklable function in a worker; see `Pool.run_sync`."""
        return self._wait(lambda: self._pool.run_sync(func, *args))

    def add_host_tool(
        self,
        func: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        session: str | SyncSession | None = None,
    ) -> ToolSpec:
        """Let workers call this function; see `Pool.add_host_tool`.

        It runs in the thread of the pool's loop; to use this pool, or to block for long, make it
        async and do that by `anyio.to_thread.run_sync`.
        """
        self._check_caller()
        return self._portal.call(
            lambda: self._pool.add_host_tool(
                func, name=name, description=description, session=session_of(session)
            )
        )

    def _offer(self, func: Callable[..., Any], name: str | None, description: str | None) -> None:
        self.add_host_tool(func, name=name, description=description)

    def as_executor(self) -> Executor:
        """The pool as a `concurrent.futures.Executor`; see `Pool.as_executor`.

        Callbacks of futures run in the thread of the pool's loop.
        """
        self._check_open()
        return self._pool.as_executor()

    def ready(self) -> None:
        """Wait until all workers are ready; see `Pool.ready`."""
        self._wait(self._pool.ready)

    def tools(self) -> dict[str, ToolSpec]:
        """The tools of the workers, by name."""
        self._check_caller()
        return self._portal.call(self._pool.tools)

    def stats(self) -> PoolStats:
        """Counters since the pool was opened, and its state now."""
        self._check_caller()
        return self._portal.call(self._pool.stats)

    def workers(self) -> list[WorkerInfo]:
        """The workers as they are now."""
        self._check_caller()
        return self._portal.call(self._pool.workers)

    def dump(self, worker_id: str) -> str:
        """See `Pool.dump`."""
        self._check_caller()
        return self._portal.call(self._pool.dump, worker_id)

    def _execute(self, tool: str, params: Mapping[str, Any]) -> Any:
        return self.execute(tool, params)

    def _stream(
        self, tool: str, params: Mapping[str, Any]
    ) -> AbstractContextManager[Iterator[Any]]:
        return self.stream(tool, params)

    def empty(self, shape: int | tuple[int, ...], dtype: Any = float) -> Any:
        """An array born in shared memory; see `Pool.empty`."""
        return self._pool.empty(shape, dtype)

    def buffer(self, nbytes: int) -> memoryview:
        """A buffer born in shared memory; see `Pool.buffer`."""
        return self._pool.buffer(nbytes)

    def _check_open(self) -> None:
        self._pool._check_process()
        if self._closed:
            raise PoolClosedError("this pool was closed when its block was left")

    def _check_caller(self) -> None:
        self._check_open()
        if self._pool._desk.is_own_thread():
            raise RuntimeError(
                "this would block the thread of the pool's own loop, in which its host tools and the "
                "callbacks of its futures run: make the host tool async, and use this pool there by "
                "anyio.to_thread.run_sync"
            )

    @contextmanager
    def _each_of(
        self, opening: Callable[[], AbstractAsyncContextManager[AsyncIterator[Any]]]
    ) -> Generator[Iterator[Any]]:
        """The block of a stream or a map."""
        self._check_caller()
        with self._portal.wrap_async_context_manager(opening()) as items:
            yield self._each(items)

    def _each(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        end = object()

        async def following() -> Any:
            return await anext(items, end)

        while (item := self._wait(following)) is not end:
            yield item

    def _wait(
        self, function: Callable[[], Coroutine[Any, Any, T]], updates: Updates | None = None
    ) -> T:
        """Run it on the pool's loop. Whatever interrupts the wait cancels it and sees it end."""
        self._check_caller()
        errand = Errand(function)
        try:
            future = self._portal.start_task_soon(errand.run)
            if updates is not None:
                updates.show_until(future)
            value: T = future.result()
        except BaseException:
            errand.give_up(self._portal)
            raise
        return value


_blocks: dict[LoopThread[Pool], SyncPool | None] = {}  # that have not been left


@contextmanager
def open_pool_sync(
    adapter: str | type | ModuleType | None = None,
    /,
    *,
    backend: str = "trio",
    **options: Any,
) -> Generator[SyncPool]:
    """Open a pool for blocking code; it is closed when the block is left.

    Args:
        adapter: as for `open_pool`.
        backend: the event loop that runs in a thread of its own, "trio" or "asyncio".
        **options: as for `open_pool`.

    Raises: as `open_pool`.
    """
    if backend not in BACKENDS:
        raise ConfigError("backend", backend, "'trio' or 'asyncio'")
    block = LoopThread(
        lambda: open_pool(adapter, **options),
        backend,
        on_end=lambda block: _blocks.pop(block, None),
        patience_s=_bound_s(options.get("stop", DEFAULT_STOP)),
    )
    pool: SyncPool | None = None
    hurried = True
    try:
        try:
            _blocks[block] = None
            _blocks[block] = pool = SyncPool(*block.enter())
            yield pool
            hurried = False
        finally:
            _leave(block, pool, hurried=hurried)
    finally:  # Ctrl+C may have come just before
        _leave(block, pool, hurried=hurried)


def _bound_s(stop: object) -> float:
    """How long leaving the pool takes at most."""
    if not isinstance(stop, Stop):
        return 0.0  # it will never be open
    return stop.cancel_grace + stop.term_grace + stop.drain_timeout + 1


def _leave(block: LoopThread[Pool], pool: SyncPool | None, *, hurried: bool) -> None:
    if pool is not None:
        pool._closed = True
    block.leave(hurried=hurried)


def _leave_at_exit() -> None:
    """Leave what never was: the interpreter would wait for the threads of the loops for ever."""
    with ExitStack() as all_of_them:
        for block, pool in list(_blocks.items()):
            if pool is None and block.is_entering:
                continue  # by a thread that goes on, and leaves it by itself
            all_of_them.callback(_leave, block, pool, hurried=True)
            for executor in list(pool._pool._desk.executors if pool is not None else ()):
                # First: no program ends before the futures of its executors.
                all_of_them.callback(executor.shutdown)


def _forget_in_child() -> None:
    """The thread of the loop stays with the parent: whoever waited for it would wait for ever."""
    for block in _blocks:
        block.forget()
    _blocks.clear()


os.register_at_fork(after_in_child=_forget_in_child)
# As `concurrent.futures` does it. `atexit` comes too late, after the threads have been joined.
threading._register_atexit(_leave_at_exit)  # type: ignore[attr-defined]
