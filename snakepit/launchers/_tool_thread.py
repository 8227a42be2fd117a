"""The one thread in which an in-process worker runs its sync code.

It begins with the first thing to run and ends with its worker, so whatever is tied to a thread
(sqlite3, say) works as in a worker process. Nothing is abandoned: who asked for something waits
until it has ended, whatever cancels the wait, and the worker ends after its thread. While the
thread runs Python the clock is held; while it waits for the host it is not.
"""

from __future__ import annotations

import os
from _queue import Empty, SimpleQueue
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context
from threading import Thread
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from snakepit.launchers._host_loop import HostLoop
from snakepit.process import fork_generation, shielded

T = TypeVar("T")


class Errand:
    """Something to run in the thread, and what came of it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = anyio.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run it, in the thread."""
        try:
            self.value = self.function()
        except BaseException as error:
            self.error = error


class ToolThread:
    """Runs one thing at a time. `context` is what it sees of context variables."""

    def __init__(self, loop: HostLoop, name: str, context: Context) -> None:
        self._generation = fork_generation()
        self._loop, self._name, self._context = loop, name, context
        self._errands: SimpleQueue[Errand | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._ended = anyio.Event()
        self._wait: list[SimpleQueue[Any]] | None = None  # the queue that the thread waits for
        self._clock_runs = True  # as far as this thread is concerned

    async def run(self, function: Callable[[], T]) -> T:
        """Run it there and return what it gives, or raise what it raises."""
        if self._thread is None:
            self._ended = anyio.Event()
            self._thread = Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        errand = Errand(function)
        self._set_clock(runs=False)
        self._errands.put(errand)
        await shielded(errand.done.wait)
        try:
            if errand.error is not None:
                raise errand.error
            value: T = errand.value
            return value
        finally:
            del errand

    async def end(self) -> None:  # noqa: ASYNC910 - at once if there is none
        """Let the thread end, and wait until it has. It begins anew with the next `run`."""
        if self._thread is not None:
            self._loop.clock.hold()
            self._errands.put(None)
            try:
                await shielded(self._until_gone)
            finally:
                self._loop.clock.release()
            self._thread = None

    async def _until_gone(self) -> None:  # noqa: ASYNC910 - as above
        assert self._thread is not None
        if self._thread.is_alive():  # a forked child has no other threads
            await self._ended.wait()
        while self._thread.is_alive():  # a few instructions more, which `join` would block for
            await anyio.lowlevel.checkpoint()

    def wait(self, queue: SimpleQueue[T]) -> T:
        """In the thread: the next of the queue, which only `feed` fills."""
        waiting: list[SimpleQueue[Any]] = [queue]
        self._wait = waiting
        try:
            # Whatever is put from the store above on takes it back.
            return queue.get_nowait()
        except Empty:
            self._loop.call(self._begin_wait, waiting)
            return queue.get()

    def wait_anywhere(self, queue: SimpleQueue[T]) -> T:
        """The same in any thread; those that a tool has started wait as they wait for anything."""
        here = self._thread is not None and self._thread.ident == get_ident()
        return self.wait(queue) if here else queue.get()

    def feed(self, queue: SimpleQueue[T], item: T) -> None:
        """On the loop: fill a queue that the thread may be waiting for."""
        if self._wait is not None and self._wait[0] is queue:
            self._wait = None
            self._set_clock(runs=False)
        queue.put(item)

    def _begin_wait(self, waiting: list[SimpleQueue[Any]]) -> None:
        if self._wait is waiting:
            self._set_clock(runs=True)

    def _set_clock(self, *, runs: bool) -> None:
        if runs != self._clock_runs:
            self._clock_runs = runs
            if runs:
                self._loop.clock.release()
            else:
                self._loop.clock.hold()

    def _serve(self) -> None:
        self._context.run(self._run_errands)
        self._loop.call(self._ended.set)

    def _run_errands(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand.run()
            if self._generation != fork_generation():
                os._exit(0)  # a forked child that came back from its tool: nobody waits for it
            self._wait = None
            self._loop.call(self._finished, errand)
            del errand

    def _finished(self, errand: Errand) -> None:
        self._set_clock(runs=True)
        errand.done.set()
