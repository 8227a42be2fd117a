"""Host calls: a tool asks its host to run a function for it, and waits for what comes of it.

A sync tool waits in the thread that asks; if that is the worker's main thread, it reads the wire
itself meanwhile, as an idle one does. An async tool waits as its loop waits, and may have many under
way. No interrupt lands in any of this (see `Interrupt.masked`): a cancelled call wakes its threads, and
the wait itself raises. Who comes to know first that nobody waits any more lets the other side
know, and a reply that crosses this is dropped.
"""

from __future__ import annotations

import itertools
from _queue import SimpleQueue
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from snakepit.errors import (
    InvalidParamsError,
    SerializationError,
    SnakepitError,
    ToolCancelled,
    ToolNotFoundError,
)
from snakepit.protocol import (
    HostCall,
    HostCancel,
    HostFailure,
    HostReply,
    args_of,
    encode_params,
    rebuild_host_error,
)
from snakepit.worker._values import read_value

if TYPE_CHECKING:
    from snakepit.worker._interrupt import Interrupt
    from snakepit.worker._job import Job
    from snakepit.worker._service import Sender

_KINDS: dict[str, type[SnakepitError]] = {
    "not_found": ToolNotFoundError,
    "params": InvalidParamsError,
    "serialization": SerializationError,
}


class HasLoop(Protocol):
    """A lane with an event loop."""

    def is_here(self) -> bool:
        """Is this the thread that runs the loop?"""

    def new_event(self) -> Any:
        """An event of the loop's own kind."""

    def call_soon(self, function: Callable[[], object], /) -> None:
        """Have the loop call this, from any thread."""


class Waiting:
    """One host call without its answer. `wake` lets who waits look for it; from any thread."""

    __slots__ = ("answer", "id", "is_async", "job", "tool", "wake")

    def __init__(
        self, number: int, job: Job, tool: str, wake: Callable[[], object], *, is_async: bool
    ) -> None:
        self.id: int = number
        self.job: Job = job
        self.tool: str = tool
        self.wake: Callable[[], object] = wake
        self.is_async: bool = is_async
        self.answer: HostReply | HostFailure | None = None


class HostCalls:
    """The host calls of one worker.

    `wait` takes the next thing of a queue, in whatever thread; `feed` puts something there. `lane`: the
    one with a loop, where there is one.
    """

    lane: HasLoop | None = None

    def __init__(
        self,
        wire: Sender,
        interrupt: Interrupt,
        wait: Callable[[SimpleQueue[None]], None] = SimpleQueue.get,
        feed: Callable[[SimpleQueue[None], None], object] = SimpleQueue.put,
    ) -> None:
        self._wire, self._interrupt = wire, interrupt
        self._wait, self._feed = wait, feed
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Waiting] = {}

    # -- where tools run ---------------------------------------------------------------------

    def call(self, job: Job, tool: str, params: Mapping[str, Any] | None) -> Any:
        """Call the host and wait, in this thread."""
        lane = self.lane
        if lane is not None and job.is_async and lane.is_here():
            raise RuntimeError(
                "call_host would block the event loop of this worker; `await context().acall_host(...)`"
            )
        return self._interrupt.masked(self._call, job, tool, params)

    async def acall(self, job: Job, tool: str, params: Mapping[str, Any] | None) -> Any:
        """Call the host and wait, as the loop waits."""
        lane, masked = self.lane, self._interrupt.masked
        if lane is None or not job.is_async:
            raise RuntimeError("acall_host is for async tools; this one may use call_host")
        replied = lane.new_event()
        waiting: Waiting = masked(
            self._begin, job, tool, params, lambda: lane.call_soon(replied.set), is_async=True
        )
        try:
            await replied.wait()
        except BaseException:
            masked(self._give_up, waiting)
            raise
        return masked(self._outcome, waiting)

    def finish(self, job: Job) -> None:
        """The call is over: nobody may wait for its host calls any more."""
        self._wake_all(job, also_async=True)

    # -- where messages are read -------------------------------------------------------------

    def answer(self, message: HostReply | HostFailure) -> None:
        """The host has answered; if nobody waits for it any more, that is all."""
        waiting = self._waiting.pop(message.id, None)
        if waiting is not None:
            waiting.answer = message
            waiting.wake()

    def cancel(self, job: Job) -> None:
        """The call is cancelled: wake its threads. Its tasks hear of it from their loop."""
        self._wake_all(job, also_async=False)

    # -- inside ------------------------------------------------------------------------------

    def _wake_all(self, job: Job, *, also_async: bool) -> None:
        for waiting in self._waiting.copy().values():
            if waiting.job is job and (also_async or not waiting.is_async):
                self._waiting.pop(waiting.id, None)
                waiting.wake()

    def _call(self, job: Job, tool: str, params: Mapping[str, Any] | None) -> Any:
        queue: SimpleQueue[None] = SimpleQueue()
        waiting = self._begin(job, tool, params, lambda: self._feed(queue, None), is_async=False)
        self._wait(queue)
        return self._outcome(waiting)

    def _begin(
        self,
        job: Job,
        tool: str,
        params: Mapping[str, Any] | None,
        wake: Callable[[], object],
        *,
        is_async: bool,
    ) -> Waiting:
        body, buffers = encode_params(_checked(tool, params), self._wire.places)
        waiting = Waiting(next(self._numbers), job, tool, wake, is_async=is_async)
        job.asked_host = True
        self._waiting[waiting.id] = waiting
        if (
            job.cancelled or job.over or self._wire.is_closed
        ):  # whoever sets these looks there after
            self._waiting.pop(waiting.id, None)
            self._refuse(job)
        try:
            self._wire.send(HostCall(waiting.id, job.id, tool, body, buffers))
        except OSError:
            pass  # the host is gone, which is the I/O thread's business: it ends the call
        except BaseException:  # it could not be written
            self._waiting.pop(waiting.id, None)
            raise
        return waiting

    def _give_up(self, waiting: Waiting) -> None:
        if self._waiting.pop(waiting.id, None) is None or waiting.job.cancelled:
            return  # it was answered, or the host knows
        try:
            self._wire.send(HostCancel(waiting.id, waiting.job.id))
        except OSError:
            pass

    def _refuse(self, job: Job) -> NoReturn:
        if job.cancelled:
            if self._interrupt.is_home():
                job.interrupted = True
            raise ToolCancelled("this call was cancelled")
        if job.over:
            raise RuntimeError(f"call {job.id} of {job.tool!r} is over; it calls its host no more")
        raise RuntimeError("a forked child is no worker; it cannot call the host")

    def _outcome(self, waiting: Waiting) -> Any:
        answer = waiting.answer
        if answer is None:
            self._refuse(waiting.job)
        if isinstance(answer, HostReply):
            return read_value(answer.body, answer.buffers)
        raise _error(waiting.tool, answer)


def _checked(tool: object, params: object) -> dict[str, Any]:
    if not isinstance(tool, str):
        raise TypeError(f"a host tool is named by a string, not by {tool!r}")
    if params is None:
        return {}
    if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
        raise InvalidParamsError(tool, "params must map argument names to values")
    return dict(params)


def _error(tool: str, failure: HostFailure) -> SnakepitError:
    kind = _KINDS.get(failure.kind)
    if kind is None:
        return rebuild_host_error(failure.error, tool=tool)
    try:
        return kind(*(args_of(failure.error) or ()))
    except TypeError:
        return rebuild_host_error(failure.error, tool=tool)
