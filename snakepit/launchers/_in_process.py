"""Workers that are tasks of this process: the real service, lanes and tools, over a link in memory.

For tests of what uses a pool, and for virtual time. Async tools run on the pool's own loop; sync
tools, sync hooks and the constructor of an adapter that has any run in one thread per worker, which
begins with the first of these to run: the kernel takes longer to wake one of a thousand threads. What
cannot be had without a process is not there: a sync tool is never interrupted (it may ask
`context().check_cancelled()`), and one that does not end delays its caller and the pool.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from threading import Lock
from threading import enumerate as threads
from traceback import format_stack
from types import ModuleType
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from attrs import frozen
from trio.lowlevel import enable_ki_protection

from snakepit.errors import ProtocolError
from snakepit.launchers._base import Launched, Launcher
from snakepit.launchers._host_loop import HostLoop
from snakepit.launchers._in_process_lanes import make_lane
from snakepit.launchers._loop_reporter import LoopReporter
from snakepit.launchers._memory_wire import MemoryWire
from snakepit.launchers._tool_thread import ToolThread
from snakepit.process import ExitStatus, fork_generation
from snakepit.protocol import PROTOCOL_VERSION, Goodbye, Hello, Start, ToWorker, describe
from snakepit.transports import MemoryTransport
from snakepit.transports._memory import MemoryLink
from snakepit.worker._execution import Execution
from snakepit.worker._host_calls import HostCalls
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._offer import (
    Offer,
    build,
    could_not_start,
    do_nothing,
    does_nothing,
    has_no_constructor,
    is_async_only,
)
from snakepit.worker._reader import ORPHAN_EXIT_CODE, ORPHAN_GRACE_S
from snakepit.worker._service import Service
from snakepit.worker._target import Target, check_tools, find_in, load_target, parse_spec
from snakepit.worker._toolbox import is_coroutine_function

current_worker: ContextVar[InProcessWorker | None] = ContextVar("snakepit_worker", default=None)

_importing = Lock()
_log = logging.getLogger("snakepit.worker")


class Crashed(BaseException):
    """Unwinds a tool whose worker has crashed; nobody hears of it."""


class InProcessWorker(Launched):
    """A worker without a process. Its parts are made on the loop, by its own task."""

    pid = None

    def __init__(self, link: MemoryLink, adapter: Any, worker_id: str) -> None:
        self.channel = link.connect()
        self._adapter, self._id = adapter, worker_id
        self._generation = fork_generation()
        self._complaints: list[str] = []
        self._status: ExitStatus | None = None
        self._begun = False
        self._ended = anyio.Event()
        self._scope = anyio.CancelScope()
        self._loop = HostLoop()
        self._wire = MemoryWire(link, self._loop, self._die)
        self._service: Service | None = None
        self._lane: Any = None

    # -- what the host does --------------------------------------------------------------------

    @property
    def is_ours(self) -> bool:
        return self._generation == fork_generation()

    @property
    def output_tail(self) -> str:
        """What tools print goes where this process prints; here are the worker's own complaints."""
        return "\n".join(self._complaints)

    @enable_ki_protection
    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.channel.run)
            # Of its own, as in another process: what callers have in theirs does not leak in.
            Context().run(tasks.start_soon, self._live)

    async def dump(self) -> str:
        """Of this process: its threads are ours."""
        await anyio.lowlevel.checkpoint()
        names = {thread.ident: thread.name for thread in threads()}
        return "\n".join(
            f"Thread {names.get(ident)} (most recent call last):\n{''.join(format_stack(frame))}"
            for ident, frame in sys._current_frames().items()
        )

    async def wait_exit(self) -> None:
        await self._ended.wait()

    def send_signal(self, number: signal.Signals) -> None:
        if self._status is not None or (self._wire.is_silent and number != signal.SIGKILL):
            return
        if number == signal.SIGTERM and self._service is not None and self._lane.started:
            self._service.terminate()
        else:
            self._die(ExitStatus(signal=number))

    def request_dump(self) -> None:
        """There are no stacks of its own to show."""

    def kill_and_reap(self) -> ExitStatus:
        self.send_signal(signal.SIGKILL)
        assert self._status is not None
        return self._status

    # -- how it ends ---------------------------------------------------------------------------

    def crash(self, exit_code: int) -> NoReturn:
        """End it as `os._exit` would, and unwind what called this, on the loop or in the thread."""
        self._loop.call(self._die, ExitStatus(exit_code=exit_code))
        raise Crashed

    def _die(self, status: ExitStatus) -> None:
        """End it here and now; only the unwinding of its code is left to do."""
        if self._status is not None:
            return
        self._status = status
        self._wire.close()
        self._scope.cancel()
        if self._lane is not None:
            self._lane.kill()
        if not self._begun:
            self._ended.set()

    def _complain(self, text: str) -> None:
        self._complaints += text.splitlines()
        _log.warning("%s: %s", self._id, text, extra={"worker_id": self._id})

    # -- its own task --------------------------------------------------------------------------

    @enable_ki_protection
    async def _live(self) -> None:
        self._begun = True
        current_worker.set(self)
        try:
            with self._scope:
                await self._main()
        finally:
            self._die(ExitStatus(signal=signal.SIGKILL))
            self._ended.set()

    async def _main(self) -> None:
        thread = ToolThread(self._loop, f"snakepit {self._id}", copy_context())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._wire.deliver)
            try:
                exit_code = await self._serve(tasks, thread)
                await self._wire.drained()
                self._die(ExitStatus(exit_code=exit_code))
            finally:
                await thread.end()  # noqa: ASYNC102 - it ends what it runs, and that is all

    async def _serve(self, tasks: TaskGroup, thread: ToolThread) -> int:
        wire = self._wire
        wire.send(Hello(PROTOCOL_VERSION, os.getpid(), f"python {sys.version.split()[0]}"))
        start, came = await self._await_start()
        if start is None:
            return 1
        try:
            offer, hooks = await self._make_offer(start, thread)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            wire.send(could_not_start(error))
            return 1
        interrupt = Interrupt()
        reporter = LoopReporter(wire, interrupt, self._loop)
        host_calls = HostCalls(wire, interrupt, thread.wait_anywhere, thread.feed)
        execution = Execution(wire, interrupt, offer.callable, thread.wait, reporter, host_calls)
        execution.tells_time = False
        lane = make_lane(
            self._loop.is_trio, execution, interrupt, hooks, thread, offer.callable, wire.drained
        )
        service = Service(
            wire, lane, interrupt, offer.callable, cancel_grace_s=start.cancel_grace_s
        )
        self._lane, self._service = lane, service
        tasks.start_soon(self._read, service, came)
        tasks.start_soon(reporter.serve)
        is_ready = False

        def ready() -> None:
            nonlocal is_ready
            wire.send(offer.ready())
            is_ready = True

        try:
            await lane.serve(ready)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            if is_ready:
                self._complain(f"it ends because of an error:\n{describe(error).traceback}")
            else:
                wire.send(could_not_start(error))
            return 1
        wire.send(Goodbye())
        return 0

    async def _await_start(self) -> tuple[Start | None, list[ToWorker]]:
        came: list[ToWorker] = []
        try:
            while await self._wire.read(came.extend):
                if came:
                    if not isinstance(came[0], Start):
                        self._complain("the host did not say Start")
                        break
                    return came[0], came[1:]
        except ProtocolError as error:
            self._complain(str(error))
        return None, []  # noqa: ASYNC910 - a refusal, after a read

    async def _read(  # noqa: ASYNC910 - a breach may have come with Start
        self, service: Service, came: list[ToWorker]
    ) -> None:
        try:
            service.handle_all(came)
            while await self._wire.read(service.handle_all):
                pass
        except ProtocolError as error:
            self._complain(str(error))
        try:
            if service.begin_end():
                await anyio.sleep(ORPHAN_GRACE_S)
        finally:
            self._die(ExitStatus(exit_code=ORPHAN_EXIT_CODE))

    # -- the adapter ---------------------------------------------------------------------------

    async def _make_offer(
        self, start: Start, thread: ToolThread
    ) -> tuple[Offer, list[Callable[[], Any]]]:
        """The adapter, and its hooks as coroutine functions."""
        await anyio.lowlevel.checkpoint()
        target = self._adapter
        if isinstance(target, str):
            # What is there already needs no thread; what has to be imported may take its time.
            module = sys.modules.get(parse_spec(target)[0])
            if module is not None and not _is_being_imported(module):
                target = find_in(module, target)
            else:
                target = await thread.run(partial(_import_target, target))
        elif target is not None:
            check_tools(target, repr(target))
        make = partial(_make_offer, target, start)
        if is_async_only(target):
            await thread.end()
            offer = make()
        elif has_no_constructor(target):
            offer = make()
        else:
            offer = await thread.run(make)
        return offer, [self._hook(hook, thread) for hook in offer.hooks]

    def _hook(self, hook: Callable[[], Any], thread: ToolThread) -> Callable[[], Any]:
        async def run() -> None:
            await anyio.lowlevel.checkpoint()
            if does_nothing(hook):
                return
            found = hook() if is_coroutine_function(hook) else await thread.run(hook)
            if hasattr(found, "__await__"):
                await found

        return run


def _is_being_imported(module: object) -> bool:
    """Another thread is at it: the import has to wait for that."""
    return getattr(getattr(module, "__spec__", None), "_initializing", False)


def _make_offer(target: Any, start: Start) -> Offer:
    return Offer(None if target is None else build(target, start), do_nothing)


def _import_target(spec: str) -> Any:
    with _importing:  # a file that is half imported must not be found by another worker
        return load_target(Target(spec))


@frozen
class InProcessLauncher(Launcher):
    """Makes workers of an adapter: a class, a module, or the name of one; None has `run_sync` alone."""

    transport: MemoryTransport
    adapter: str | type | ModuleType | None

    @contextmanager
    def launch(self, worker_id: str, slot: int) -> Generator[Launched]:  # noqa: ARG002 - all alike
        with self.transport.open_link() as link:
            worker = InProcessWorker(link, self.adapter, worker_id)
            try:
                yield worker
            finally:
                worker.kill_and_reap()
