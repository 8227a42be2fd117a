"""Where grpclib runs: on the host's own loop under asyncio, else in one asyncio thread per host.

grpclib is asyncio's. Under trio a thread has an event loop for all links of the host, and this is
the bridge to it. A task that crosses it is structured: when its scope is cancelled it is left once
the other side has ended. What crosses often crosses as `to_grpc` and `to_host`, plain calls into
the other loop, each of which carries all that has come up to then.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any, Final, TypeAlias

import anyio
import outcome
import trio
from sniffio import thread_local as sniffio

from snakepit.process import fork_generation

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_thread_home: Final[trio.lowlevel.RunVar[ThreadHome | None]] = trio.lowlevel.RunVar(
    "snakepit_grpc", default=None
)


class Home(ABC):
    """The loop on which grpclib runs for this host. `leave` it once for each `home()`."""

    loop: asyncio.AbstractEventLoop

    @abstractmethod
    def to_grpc(self, function: Callable[[], object]) -> None:
        """From the host: have grpclib's loop call a function that does not raise."""

    @abstractmethod
    def to_host(self, function: Callable[[], object]) -> None:
        """From grpclib's loop: have the host's loop call a function that does not raise."""

    @abstractmethod
    async def run(self, function: Work) -> None:
        """Run this on grpclib's loop, in a task of its own there.

        If the host's scope is cancelled, so is that task, once; this returns when it has ended.
        """

    def leave(self) -> None:  # noqa: B027 - the host's own loop is not ours to end
        """This link needs it no more; not a checkpoint."""


def home() -> Home:
    """The home of the running host."""
    if _is_trio():
        found = _thread_home.get()
        if found is None or not found.is_ours:
            found = ThreadHome()
            _thread_home.set(found)
        found.links += 1
        return found
    return AsyncioHome()


def _is_trio() -> bool:
    anyio.get_current_task()  # raises where no loop runs
    return sniffio.name == "trio"


class AsyncioHome(Home):
    """The host's loop is grpclib's."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def to_grpc(self, function: Callable[[], object]) -> None:
        function()

    def to_host(self, function: Callable[[], object]) -> None:
        function()

    async def run(self, function: Work) -> None:
        # A task without anyio's scopes around it: those cancel again at each step, and grpclib has
        # to be let say goodbye.
        task = self.loop.create_task(function())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                with anyio.CancelScope(shield=cancelled is not None):
                    await asyncio.wait([task])
            except asyncio.CancelledError as error:
                if cancelled is None:
                    task.cancel()
                cancelled = error
        if cancelled is not None:
            raise cancelled
        await task


class ThreadHome(Home):
    """An asyncio thread beside a trio run, from the first link to the last."""

    def __init__(self) -> None:
        self.links = 0
        self.loop = asyncio.new_event_loop()
        self._token = trio.lowlevel.current_trio_token()
        self._generation = fork_generation()
        self._thread = Thread(target=self._run, name="snakepit-grpc", daemon=True)
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """False in a forked child, which has no such thread."""
        return self._generation == fork_generation()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def to_grpc(self, function: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(function)

    def to_host(self, function: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            pass

    async def run(self, function: Work) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        host_task = trio.lowlevel.current_task()
        grpc_task: asyncio.Task[None] | None = None
        raise_cancel: Callable[[], object] | None = None

        def start() -> None:
            nonlocal grpc_task
            grpc_task = self.loop.create_task(function())
            grpc_task.add_done_callback(finish)

        def finish(task: asyncio.Task[None]) -> None:
            result = outcome.capture(task.result)
            self.to_host(lambda: trio.lowlevel.reschedule(host_task, result))

        def cancel() -> None:
            assert grpc_task is not None, "calls into a loop keep their order"
            grpc_task.cancel()

        def abort(raise_it: Callable[[], object]) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = raise_it
            self.to_grpc(cancel)
            return trio.lowlevel.Abort.FAILED

        self.to_grpc(start)
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        except asyncio.CancelledError:
            assert raise_cancel is not None, "only a cancelled host cancels it"
            raise_cancel()

    def leave(self) -> None:
        """The last link ends the thread, whose tasks have ended before: so the wait is short."""
        self.links -= 1
        if self.links == 0 and self.is_ours:
            _thread_home.set(None)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()
