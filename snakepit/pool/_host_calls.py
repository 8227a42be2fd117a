"""The host calls of one call: what its tool asks of the host while it runs.

A host tool runs for the call that caused it: in its caller's context, under its scopes, until its
deadline. It is cancelled with it, and when the worker gives the host call up.

What may wait has a task among those of its call (`_attending.py`). A plain function does not wait, so
where the caller only waits for its answer the function runs in the caller's own task, which most often
reads what the worker says (`_reading.py`): that costs neither a task nor a turn of the loop. Once the
call has tasks, each of its host calls has one.
"""

from __future__ import annotations

import difflib
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.lowlevel
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from snakepit.errors import PoolSaturatedError, ProtocolError, ToolNotFoundError
from snakepit.pool._ancestry import Link, link
from snakepit.pool._attending import Attendant, nursery_of, start_for
from snakepit.protocol import (
    HostCall,
    HostCancel,
    HostFailure,
    HostReply,
    Places,
    TakesLongError,
    decode_value,
    describe,
    encode_value,
)

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._codec import Codec
    from snakepit.pool._core import PoolCore
    from snakepit.pool._host_tools import HostTool
    from snakepit.pool._worker import Worker

HOST_CALLS_MAX: Final = 1000  # of one call at a time
_UNREAD: Final = object()

T = TypeVar("T")


class Request:
    """One host call, until it is answered."""

    def __init__(self, worker: Worker, message: HostCall) -> None:
        self.worker: Worker = worker
        self.message: HostCall = message
        self.key: tuple[str, int] = (worker.id, message.id)
        self.title: str = f"host tool {message.tool!r}"
        self.attendant: Attendant | None = None  # its task, if it has one
        self._kind = "serialization"  # of failure, if one comes now

    def find(self, core: PoolCore, call: PendingCall, params: Any = _UNREAD) -> Callable[[], Any]:
        """The function that is asked for, with its arguments; raises what is wrong with these.

        And TakesLongError if `read` has to read them first.
        """
        if params is _UNREAD:
            work_max = core.codec.work_max
            params = decode_value(self.message.body, self.message.buffers, work_max=work_max)
        self._kind = "not_found"
        tool = _find(core, call, self.message.tool)
        self._kind = "params"
        tool.check(params)
        self._kind = "tool"
        return partial(tool.function, **params)

    async def read(self, codec: Codec) -> Any:
        """Its arguments, if they take long."""
        return await codec.read_arguments(self.message.body, self.message.buffers)

    def reply(self, value: object, places: Places | None, work_max: int | None) -> HostReply:
        """The answer. Raises SerializationError, and TakesLongError."""
        self._kind = "serialization"
        return HostReply(self.message.id, *encode_value(value, places=places, work_max=work_max))

    def failure(self, error: Exception) -> HostFailure:
        """The answer that it has failed."""
        return HostFailure(self.message.id, self._kind, describe(error))


class HostCalls:
    """Those of one call; made with the first of them."""

    def __init__(self, core: PoolCore, call: PendingCall) -> None:
        self._core, self._call = core, call
        self._under_way: dict[tuple[str, int], Request] = {}  # by worker and number
        self._asked: deque[Request] = deque()  # for the caller's own task

    # -- where messages are read -------------------------------------------------------------

    def begin(self, worker: Worker, message: HostCall) -> None:
        """The tool asks. Raises ProtocolError."""
        call, request = self._call, Request(worker, message)
        if request.key in self._under_way or message.id < 1:
            raise ProtocolError(f"host call {message.id} came twice, or is no number of one")
        if len(self._under_way) >= HOST_CALLS_MAX:
            problem = f"{HOST_CALLS_MAX} host calls of call {call.id} are under way already"
            worker.tell(HostFailure(message.id, "tool", describe(PoolSaturatedError(problem))))
            return
        self._under_way[request.key] = request
        if call.attendants is not None or nursery_of(self._core, call) is not None:
            self._start(request)
        else:
            self._asked.append(request)
            call.wake()

    def cancel(self, worker: Worker, message: HostCancel) -> None:
        """The worker gives one up; it may have been answered meanwhile."""
        request = self._under_way.pop((worker.id, message.id), None)
        if request is not None and request.attendant is not None:
            request.attendant.cancel()

    # -- in the caller's task ----------------------------------------------------------------

    @enable_ki_protection
    async def answer(self) -> None:  # noqa: ASYNC910 - only between two of them
        """Run here what was asked for, and start tasks for what has to wait.

        Raises what is no Exception. Then, and when cancelled, the call has to be given up.
        """
        asked = self._asked
        while asked:
            request = asked.popleft()
            if request.key not in self._under_way:
                pass  # the worker has given it up
            elif not self._is_wanted(request):
                del self._under_way[request.key]
            elif self._call.attendants is not None:
                self._start(request)
            else:
                try:
                    self._serve_here(request)
                except TakesLongError:
                    await self._read_and_serve_here(request)
                if asked and self._call.attendants is None:
                    await anyio.lowlevel.checkpoint()

    def _serve_here(self, request: Request, params: Any = _UNREAD) -> None:
        """Raises TakesLongError if the arguments have to be read before."""
        reply: HostReply | HostFailure
        try:
            value = self._run_here(request, params)
            if inspect.isawaitable(value):
                self._start(request, value)
                return
            try:
                reply = request.reply(value, self._core.places, self._core.codec.work_max)
            except TakesLongError:
                self._start(request, _given(value))
                return
        except TakesLongError:
            raise
        except Exception as error:
            reply = request.failure(error)
        except BaseException:
            self._under_way.pop(request.key, None)
            raise
        self._answer(request, reply)

    async def _read_and_serve_here(self, request: Request) -> None:  # noqa: ASYNC910 - the thread is one
        try:
            params = await request.read(self._core.codec)
        except Exception as error:
            self._answer(request, request.failure(error))
        except BaseException:
            self._under_way.pop(request.key, None)
            raise
        else:
            if self._is_wanted(request):
                self._serve_here(request, params)
            else:
                self._under_way.pop(request.key, None)

    def _run_here(self, request: Request, params: object) -> Any:
        call = self._call
        function = request.find(self._core, call, params)
        here = Link(self._core, call, request.title)
        deadline = call.expires_at
        try:
            with nullcontext() if deadline is None else anyio.CancelScope(deadline=deadline):
                # In a context of its own, as a task has: what it sets is not set for the caller.
                return copy_context().run(_run_for, here, function)
        finally:
            here.is_broken = True

    # -- in a task of the call's -------------------------------------------------------------

    def _start(self, request: Request, value: object = None) -> None:
        """Start a task: for all of it, or for the rest, where it has given something to wait for."""
        request.attendant = start_for(
            self._core,
            self._call,
            partial(self._serve, request, value),
            request.title,
            forgo=value.close if inspect.iscoroutine(value) else None,
        )

    async def _serve(self, request: Request, value: Any) -> None:  # noqa: ASYNC910 - as the function
        reply: HostReply | HostFailure
        try:
            if value is None:
                value = (await self._find(request))()
            if inspect.isawaitable(value):
                value = await value
            reply = await self._reply(request, value)
        except Exception as error:
            reply = request.failure(error)
        except BaseException:
            self._under_way.pop(request.key, None)
            raise
        self._answer(request, reply)

    async def _find(self, request: Request) -> Callable[[], Any]:  # noqa: ASYNC910 - only for a thread
        try:
            return request.find(self._core, self._call)  # noqa: ASYNC910 - as above
        except TakesLongError:
            pass
        params = await request.read(self._core.codec)
        return request.find(self._core, self._call, params)

    async def _reply(self, request: Request, value: object) -> HostReply:  # noqa: ASYNC910 - as above
        core = self._core
        try:
            return request.reply(value, core.places, core.codec.work_max)  # noqa: ASYNC910 - as above
        except TakesLongError:
            pass
        return await core.codec.in_thread(partial(request.reply, value, core.places, None))

    def _answer(self, request: Request, reply: HostReply | HostFailure) -> None:
        under_way = self._under_way.pop(request.key, None) is not None
        if under_way and self._is_wanted(request):
            request.worker.tell(reply)

    def _is_wanted(self, request: Request) -> bool:
        call = self._call
        return call.worker is request.worker and not (call.settled or call.given_up)


def begin_host_call(core: PoolCore, worker: Worker, message: HostCall) -> None:
    """A worker asks for a host tool. Raises ProtocolError."""
    call = worker.seat.calls.get(message.call)
    if call is None:
        raise ProtocolError(f"call {message.call}, which called the host, is not on this worker")
    if call.settled or call.given_up:
        return  # it does not know yet
    if call.host_calls is None:
        call.host_calls = HostCalls(core, call)
    call.host_calls.begin(worker, message)


def cancel_host_call(worker: Worker, message: HostCancel) -> None:
    """The worker gives a host call up."""
    call = worker.seat.calls.get(message.call)
    if call is not None and call.host_calls is not None:
        call.host_calls.cancel(worker, message)


async def _given(value: T) -> T:  # noqa: ASYNC910 - there is nothing to wait for
    return value  # noqa: ASYNC910 - as above


@disable_ki_protection
def _run_for(here: Link, function: Callable[[], Any]) -> Any:
    # What it calls is called for this call, by the pool's rule of who may wait for whom.
    link.set(here)
    return function()


def _find(core: PoolCore, call: PendingCall, name: str) -> HostTool:
    offers: list[Mapping[str, HostTool]] = [core.host_tools]
    if call.session is not None and call.session.host_tools is not None:
        offers.insert(0, call.session.host_tools)
    for offer in offers:
        if name in offer:
            return offer[name]
    known = [known for offer in offers for known in offer]
    raise ToolNotFoundError(name, tuple(difflib.get_close_matches(name, known)), "host")
