"""A block of an event loop in a thread of its own, for blocking code that may be interrupted anywhere.

Python runs signal handlers in the main thread, between any two steps of it, and the one of SIGINT
raises. So that thread does nothing here that has to be done as a whole: a thread that no signal
reaches starts the loop's, and that one opens the block, closes it, and keeps what came of it. Who
waits may be interrupted, and ask again. Nor does it use what `threading` has to wait by: an
interrupt may leave a lock inside of an Event, a Future or a Thread taken, and the loop would stand
still at it for ever.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar

import anyio
from anyio.from_thread import BlockingPortal
from sniffio import current_async_library_cvar

from snakepit._loops import Loop, Signal, this_loop

T = TypeVar("T")


class Latch:
    """An event that one thread opens, once, and no interrupt of those who wait can spoil."""

    def __init__(self) -> None:
        self._is_open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let everybody pass."""
        if not self._is_open:
            self._is_open = True
            self._lock.release()

    def wait(self) -> None:
        """Return when it is open. May be interrupted, and called again."""
        if not self._is_open:
            self._lock.acquire()
            self._lock.release()  # for whoever waits beside us


class LoopThread(Generic[T]):
    """One block, `opening()`, on a loop of its own, with a portal into it.

    `on_end` is called when all is over, in the loop's thread if there ever was one. Closing the block
    is done within `patience_s`; for so long whoever leaves it holds on.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractAsyncContextManager[T]],
        backend: str,
        on_end: Callable[[LoopThread[T]], object],
        patience_s: float,
    ) -> None:
        self._opening, self._backend, self._on_end = opening, backend, on_end
        self._patience_s = patience_s
        self._context = copy_context()  # as a call through the portal has that of who makes it
        self._thread = threading.Thread(
            target=self._run, name=f"{backend} of snakepit", daemon=True
        )
        self.is_entering = False  # somebody waits for it to be open
        self._begun_by: dict[str, str] = {}  # who came first: the thread, or nobody any more
        self._loop: Loop | None = None
        self._leaving: Signal | None = None
        self._scope: anyio.CancelScope | None = None  # of opening
        self._rest: anyio.CancelScope | None = None  # of what goes on after the block
        self._left = self._hurried = self._forgotten = False
        self._opened, self._ended = Latch(), Latch()
        self._block: tuple[T, BlockingPortal] | None = None
        self._error: BaseException | None = None

    def enter(self) -> tuple[T, BlockingPortal]:
        """Open the block. However this ends, `leave` is to be called."""
        try:
            self.is_entering = True
            _thread.start_new_thread(self._start, ())
            self._opened.wait()
        finally:
            self.is_entering = False
        if self._block is None:
            self._raise_error()
            raise RuntimeError("was left before it was open")
        return self._block

    def leave(self, *, hurried: bool) -> None:
        """Close the block, to its end, then raise what interrupted this first, or went wrong.

        `hurried`: cancel what threads still do through the portal, as the first interruption does.
        May be called again.
        """
        self._hurried |= hurried
        patient_until = time.monotonic() + self._patience_s
        interruption: BaseException | None = None
        while True:
            try:
                self._leave()
                break
            except BaseException as error:  # raised below
                interruption = interruption or error
                self._hurried = True
                if time.monotonic() > patient_until:
                    break  # nobody has to wait for ever for what does not end
        if interruption is not None:
            try:
                raise interruption
            finally:
                del interruption
        self._raise_error()

    def forget(self) -> None:
        """In a forked child, where there is no such thread: there is nothing to leave."""
        self._forgotten = True
        if self._block is not None:
            self._block[1]._event_loop_thread_id = None  # so that it knows that it does not run

    def _leave(self) -> None:
        self._left = True
        if self._forgotten:
            return
        if self._begun_by.setdefault("by", "nobody") == "nobody":
            self._end(None)
            return
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon(self._look)
        if threading.get_ident() != self._thread.ident:  # a collector of garbage may come by there
            self._ended.wait()
            if self._thread.ident is not None:  # it could be started
                self._thread.join()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    # -- in threads that no signal reaches -------------------------------------------------------

    def _start(self) -> None:
        if self._begun_by.setdefault("by", "thread") == "thread":
            try:
                self._thread.start()
            except BaseException as error:  # raised where somebody waits
                self._end(error)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._context.run(current_async_library_cvar.set, None)
            self._context.run(partial(anyio.run, self._live, backend=self._backend))
        except BaseException as raised:  # as above
            error = raised
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._error = self._error or error
        self._on_end(self)
        self._opened.open()
        self._ended.open()

    async def _live(self) -> None:
        with anyio.CancelScope() as rest:
            async with BlockingPortal() as portal:
                await self._live_in(portal)
                self._rest = rest
                self._look()

    async def _live_in(self, portal: BlockingPortal) -> None:  # noqa: ASYNC910 - waits to be left
        with anyio.CancelScope() as self._scope:
            loop = this_loop()
            self._leaving = loop.new_signal()
            self._loop = loop
            self._look()
            try:
                async with self._opening() as value:
                    self._block = value, portal
                    self._opened.open()
                    await self._leaving.wait()
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # past the portal, which would wrap it
                self._error = error

    def _look(self) -> None:
        """Is it to be left? Whoever wants that says so first, and looks for the loop then."""
        assert self._leaving is not None
        if self._left:
            self._leaving.set()
            if self._block is None and self._scope is not None:
                self._scope.cancel()
        if self._hurried and self._rest is not None:
            self._rest.cancel()
