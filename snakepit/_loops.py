"""The event loop that runs here: asked for once, and not at each call.

anyio finds out at every operation which loop it is on, which takes longer than the operation.
A pool belongs to one loop, so its hot path asks here when it is opened, and then uses that
loop's own primitives; all else goes through anyio.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.lowlevel
import trio
from sniffio import thread_local as sniffio

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future


class Signal(Protocol):
    """An event: set once, waited for by any number of tasks."""

    def set(self) -> object:
        """Wake all who wait, and all who will."""

    def is_set(self) -> bool:
        """Has it been set?"""

    def wait(self) -> Awaitable[object]:
        """Wait until it is set. No checkpoint if it is."""


class Readable(ABC):
    """A descriptor that one task at a time waits for."""

    @abstractmethod
    def wait(self) -> Awaitable[None]:
        """Wait until it can be read. Always a checkpoint.

        Raises: anyio.ClosedResourceError: `wake` was called meanwhile.
        """

    @abstractmethod
    def wake(self) -> None:
        """Let the task that waits raise. To be called before the descriptor is closed, too."""


class Loop(ABC):
    """One running event loop, seen from the thread that runs it."""

    now: Callable[[], float]
    new_signal: Callable[[], Signal]
    current_task: Callable[[], object]
    checkpoint: Callable[[], Awaitable[object]]
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]

    @abstractmethod
    def is_here(self) -> bool:
        """Is this the loop, and one of its tasks, that runs now in this thread?"""

    @abstractmethod
    def readable(self, fd: int) -> Readable:
        """To wait for this descriptor."""

    @abstractmethod
    def call_soon(self, function: Callable[[], object]) -> None:
        """Have the loop call a function that does not raise. From any thread, and any code.

        Raises: RuntimeError: the loop has ended.
        """


def this_loop() -> Loop:
    """The loop that runs the calling task. Raises as anyio does if there is none."""
    token = anyio.lowlevel.current_token()
    if sniffio.name == "trio":  # and not asyncio on top of trio, as trio-asyncio has it
        return TrioLoop()
    assert token is not None
    return AsyncioLoop()


class TrioSignal:
    """As `trio.Event`, for what is made and waited for once at each call: by one task, nearly always.

    No Ctrl+C gets between what belongs together: a task that was noted and never woken, or twice.
    """

    __slots__ = ("_is_set", "_others", "_task")

    def __init__(self) -> None:
        self._is_set = False
        self._task: trio.lowlevel.Task | None = None
        self._others: trio.Event | None = None

    @trio.lowlevel.enable_ki_protection
    def set(self) -> None:
        """Wake all who wait, and all who will."""
        self._is_set = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
        if self._others is not None:
            self._others.set()

    def is_set(self) -> bool:
        """Has it been set?"""
        return self._is_set

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Wait until it is set. Always a checkpoint."""
        if self._is_set:
            await trio.lowlevel.checkpoint()
        elif self._task is None:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up)
        else:
            if self._others is None:
                self._others = trio.Event()
            await self._others.wait()

    def _give_up(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class TrioLoop(Loop):
    """trio's own primitives."""

    new_signal = staticmethod(TrioSignal)
    current_task = staticmethod(trio.lowlevel.current_task)
    checkpoint = staticmethod(trio.lowlevel.checkpoint)
    checkpoint_if_cancelled = staticmethod(trio.lowlevel.checkpoint_if_cancelled)

    def __init__(self) -> None:
        self.now = trio.lowlevel.current_clock().current_time
        self._root = trio.lowlevel.current_root_task()
        self._token = trio.lowlevel.current_trio_token()

    def is_here(self) -> bool:
        # Not in a host's callback, in guest mode; nor in a task of asyncio's, under trio-asyncio.
        here = trio.lowlevel.in_trio_task() and sniffio.name == "trio"
        return here and trio.lowlevel.current_root_task() is self._root

    def readable(self, fd: int) -> Readable:
        return _TrioReadable(fd)

    def call_soon(self, function: Callable[[], object]) -> None:
        self._token.run_sync_soon(function)


class _TrioReadable(Readable):
    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def wait(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None

    def wake(self) -> None:
        trio.lowlevel.notify_closing(self._fd)


class AsyncioLoop(Loop):
    """asyncio's own primitives."""

    new_signal = staticmethod(asyncio.Event)
    current_task = staticmethod(asyncio.current_task)
    checkpoint = staticmethod(partial(asyncio.sleep, 0))
    checkpoint_if_cancelled = staticmethod(anyio.lowlevel.checkpoint_if_cancelled)

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time

    def is_here(self) -> bool:
        return asyncio._get_running_loop() is self._loop

    def readable(self, fd: int) -> Readable:
        return _AsyncioReadable(self._loop, fd)

    def call_soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)


class _AsyncioReadable(Readable):
    """Stays registered with the loop's selector for as long as somebody keeps waiting."""

    def __init__(self, loop: AbstractEventLoop, fd: int) -> None:
        self._loop, self._fd = loop, fd
        self._waiter: Future[bool] | None = None
        self._registered = False

    async def wait(self) -> None:
        assert self._waiter is None, "one task at a time"
        self._waiter = self._loop.create_future()
        if not self._registered:
            self._loop.add_reader(self._fd, self._ready)
            self._registered = True
        try:
            if not await self._waiter:
                raise anyio.ClosedResourceError
        finally:
            self._waiter = None

    def wake(self) -> None:
        self._unregister()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)

    def _ready(self) -> None:
        if self._waiter is None:
            self._unregister()  # nobody has come back for more
        elif not self._waiter.done():
            self._waiter.set_result(True)

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self._loop.remove_reader(self._fd)
