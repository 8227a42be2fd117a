"""Tasks that belong to a call: what the host does for it while its tool runs.

Such a task is started for one call, from wherever the pool learns that there is something to do, and
runs where the call's caller can see it: in the caller's own task group, with its context
variables, under its cancel scopes. It is cancelled when the call is given up or settles, and the call's
outcome is not told before it has ended. What it raises ends the call and is raised by it.

A call that nobody does anything for has none of this. A caller who waits opens its task group when
the first task comes; a stream's block and that of `map` have one for the calls that may need it. What
has no task of its own, as a future has none, is served in the pool's nursery.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup
from trio.lowlevel import enable_ki_protection

from snakepit.pool._ancestry import Link, link
from snakepit.pool._block import guarded

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore

_log = logging.getLogger("snakepit.pool")


class Nursery:
    """Where tasks of calls run: a task group, and the context variables of who has opened it."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks, self._context = tasks, copy_context()

    def start(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Start a task, from any task of this loop."""
        self._context.run(partial(self._tasks.start_soon, function, name=name))


class Attendant:
    """One task of a call. `cancel` it when nobody needs it any more."""

    def __init__(
        self,
        attendants: Attendants,
        function: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        end: Callable[[], object] | None,
        forgo: Callable[[], object] | None,
    ) -> None:
        self._attendants, self._function, self._forgo = attendants, function, forgo
        self.end: Callable[[], object] = end or self.cancel  # when the call has settled
        self.name: str = name
        expires_at = attendants.call.expires_at
        self._scope = anyio.CancelScope(deadline=inf if expires_at is None else expires_at)

    @property
    def is_cancelled(self) -> bool:
        """It was told to end; it may be the call that is over."""
        return self._scope.cancel_called

    def cancel(self) -> None:
        """Cancel the task; if it has not begun it does nothing."""
        self._scope.cancel()

    def forgo(self) -> None:
        """It will never begin."""
        if self._forgo is not None:
            self._forgo()

    async def run(self) -> None:  # noqa: ASYNC910 - as long as its function
        """The task."""
        attendants = self._attendants
        # What it calls is called for this call, by the pool's rule of who may wait for whom.
        here = Link(attendants.core, attendants.call, self.name)
        link.set(here)
        try:
            with self._scope:
                if self.is_cancelled:
                    self.forgo()
                else:
                    await self._function()
        except anyio.get_cancelled_exc_class() as error:
            # With those around it, or by itself, as only asyncio can: then the call hears of it.
            attendants.core.give_up(attendants.call, error)
            raise
        except BaseException as error:
            attendants.failed(error)
        finally:
            here.is_broken = True
            attendants.ended(self)


class Attendants:
    """The tasks of one call; made with the first of them."""

    def __init__(self, core: PoolCore, call: PendingCall) -> None:
        self.core: PoolCore = core
        self.call: PendingCall = call
        self._live: dict[Attendant, None] = {}
        self._posted: list[Attendant] = []  # for a caller who has yet to open a task group
        self.late_error: BaseException | None = None  # came when the call was over

    def __bool__(self) -> bool:
        return bool(self._live)

    def start(
        self,
        function: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        end: Callable[[], object] | None = None,
        forgo: Callable[[], object] | None = None,
    ) -> Attendant:
        """Start a task now, or as soon as the caller has woken up; never if the call ends before."""
        call = self.call
        assert not call.settled
        assert not call.given_up
        attendant = Attendant(self, function, name, end, forgo)
        nursery = nursery_of(self.core, call)
        if nursery is None:
            self._posted.append(attendant)
            call.wake()
        else:
            self._start_in(nursery, attendant)
        return attendant

    def move_in(self, nursery: Nursery) -> None:
        """The caller has opened a task group: start what has waited for it."""
        posted, self._posted = self._posted, []
        for attendant in posted:
            self._start_in(nursery, attendant)

    def cancel(self) -> None:
        """The call is given up: cancel them all. What has not been started never is."""
        self._forgo_posted()
        for attendant in self._live:
            attendant.cancel()

    def end(self) -> None:
        """The call is over: let each end in its way."""
        self._forgo_posted()
        for attendant in self._live:
            attendant.end()

    def _forgo_posted(self) -> None:
        posted, self._posted = self._posted, []
        for attendant in posted:
            attendant.forgo()

    def _start_in(self, nursery: Nursery, attendant: Attendant) -> None:
        self._live[attendant] = None
        nursery.start(attendant.run, attendant.name)

    @enable_ki_protection
    def failed(self, error: BaseException) -> None:
        """One of them has raised."""
        call = self.call
        if not (call.settled or call.given_up):
            self.core.give_up(call, error)
        elif self.late_error is None and (call.nursery or call.on_settled) is not None:
            self.late_error = error
        else:
            self.log(error)

    def log(self, error: BaseException) -> None:
        """Tell of an error that nobody can be given any more."""
        _log.error("a task of the call of %r raised while it ended", self.call.tool, exc_info=error)

    @enable_ki_protection
    def ended(self, attendant: Attendant) -> None:
        """One of them is over; with the last of them the call's outcome may be told."""
        del self._live[attendant]
        call = self.call
        if call.settled and not self._live and call.on_settled is not None:
            if self.late_error is not None and call.fate is None:
                call.error = self.late_error
            call.on_settled(call)


def nursery_of(core: PoolCore, call: PendingCall) -> Nursery | None:
    """Where tasks of the call can be started now; None: where its caller is about to open a task group."""
    if call.nursery is None and (call.follower is not None or call.window):
        return core.nursery
    return call.nursery


def start_for(
    core: PoolCore,
    call: PendingCall,
    function: Callable[[], Coroutine[Any, Any, None]],
    name: str,
    *,
    end: Callable[[], object] | None = None,
    forgo: Callable[[], object] | None = None,
) -> Attendant:
    """Start a task that belongs to this call, which must not be over or given up.

    `function` runs once, from its first checkpoint at the latest under the caller's cancel scopes. It may end
    before the call does. An Exception that it lets out gives the call up and is what its caller gets. When the call
    is given up it is cancelled; when the call settles, `end` is called, which has to see to its end, or it is cancelled.
    One that is cancelled before it has begun never runs; `forgo` is called in its place.
    """
    if call.attendants is None:
        call.attendants = Attendants(core, call)
    return call.attendants.start(function, name, end, forgo)


@guarded
@asynccontextmanager
async def attending(core: PoolCore, call: PendingCall) -> AsyncGenerator[None]:
    """A block of the caller's in which tasks of its call run. The call is over when it is left."""
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            call.nursery = Nursery(tasks)
            if call.attendants is not None:
                call.attendants.move_in(call.nursery)
            try:
                yield
            except BaseException as error:
                failure = error  # past the task group, which would wrap it, or make it anew
            if not call.settled:
                core.give_up(call)
                await call.until_settled()
    except BaseException as error:  # a cancellation, while its tasks ended
        failure = failure or error
    finally:
        call.nursery = None
    attendants = call.attendants
    if attendants is not None and attendants.late_error is not None:
        if failure is None:
            failure = attendants.late_error
        else:
            attendants.log(attendants.late_error)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


def block_of(core: PoolCore, call: PendingCall) -> AbstractAsyncContextManager[None]:
    """What a block of the caller's needs around it, so that its call may have tasks."""
    return attending(core, call) if core.may_attend or call.pumps else nullcontext()


async def finish(core: PoolCore, call: PendingCall) -> None:  # noqa: ASYNC910 - no call settles before it was sent
    """Wait in the caller's task until the call has settled; if that is cut short, stop it first."""
    try:
        while not call.settled:
            worker = call.worker
            if call.attendants is not None:
                async with attending(core, call):
                    await _settled(call)
            elif worker is not None and worker.reading is not None and worker.reading.is_free:
                await worker.reading.read_as_caller(call)
            else:
                call.attended = False
                await call.next_change().wait()
                if call.host_calls is not None:
                    await call.host_calls.answer()
    except BaseException:
        call.attended = False
        core.give_up(call)
        await call.until_settled()  # noqa: ASYNC102 - until_settled shields itself
        call.check_stopped()
        raise


async def _settled(call: PendingCall) -> None:  # noqa: ASYNC910 - as above
    call.attended = False
    while not call.settled:
        await call.changed()
