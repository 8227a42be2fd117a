"""How a thread waits for what the pool's loop does for it, and is shown progress meanwhile."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
from anyio.from_thread import BlockingPortal

from snakepit.pool._progress import OnProgress, check_on_progress

T = TypeVar("T")
Update: TypeAlias = tuple[float, float | None, str | None]


class Errand(Generic[T]):
    """What the pool's loop does for a thread that waits.

    The wait may be interrupted at any moment, also when the loop has been told and the thread does
    not know that yet.
    """

    def __init__(self, function: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._function = function
        self._given_up = False
        self._scope: anyio.CancelScope | None = None  # from when it has begun
        self._ended = threading.Event()

    async def run(self) -> T:  # noqa: ASYNC910 - as the function
        """The task."""
        try:
            with anyio.CancelScope() as scope:
                if self._given_up:
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
                self._scope = scope
                return await self._function()
            raise RuntimeError("nobody waits any more")
        finally:
            self._ended.set()

    def give_up(self, portal: BlockingPortal) -> None:
        """See it end; if it has yet to begin it never will."""
        self._given_up = True
        if not self._ended.is_set():
            with suppress(RuntimeError):  # the loop has ended, and with it all that it did
                portal.call(self._cancel)
                if self._scope is not None:
                    self._ended.wait()

    def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class Updates:
    """Brings the updates of one call from the pool's loop to the thread that waits for the call."""

    def __init__(self, on_progress: OnProgress, portal: BlockingPortal) -> None:
        check_on_progress(on_progress)
        if inspect.iscoroutinefunction(on_progress):
            raise TypeError(f"on_progress must be a plain function here, not {on_progress!r}")
        self._on_progress, self._portal = on_progress, portal
        self._come: SimpleQueue[tuple[Update, anyio.Event] | None] = SimpleQueue()

    async def hand_over(self, *update: *Update) -> None:
        """The `on_progress` on the loop: it lasts as long as the one in the thread."""
        shown = anyio.Event()
        self._come.put((update, shown))
        await shown.wait()

    def show_until(self, future: Future[Any]) -> None:
        """Show what comes until the call has ended."""
        future.add_done_callback(lambda _: self._come.put(None))
        while (come := self._come.get()) is not None:
            update, shown = come
            self._on_progress(*update)
            with suppress(RuntimeError):  # the loop is gone: nobody waits for it any more
                self._portal.start_task_soon(shown.set)
