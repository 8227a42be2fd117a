"""What each message of a worker does to the call that it names."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from snakepit.errors import (
    InvalidParamsError,
    ProtocolError,
    SerializationError,
    SnakepitError,
    ToolNotFoundError,
)
from snakepit.pool._ancestry import stalled
from snakepit.pool._call import PendingCall
from snakepit.pool._host_calls import begin_host_call, cancel_host_call
from snakepit.pool._pumps import route_to_pump
from snakepit.protocol import (
    End,
    Failure,
    Goodbye,
    HostCall,
    HostCancel,
    InputCredit,
    InputStop,
    Item,
    Progress,
    Result,
    Returned,
    Settled,
    ToHost,
    rebuild,
)

if TYPE_CHECKING:
    from snakepit.pool._core import PoolCore
    from snakepit.pool._worker import Worker

LAST_WORDS: Final = (End, Failure, Settled)  # of a call: exactly one of these, or a Result


def route(core: PoolCore, worker: Worker, messages: list[ToHost], now: float) -> None:
    """Act on the messages. Raises ProtocolError at one that has no place here; those before it count."""
    settle = worker.seat.settle
    for message in messages:
        if type(message) is Result:  # by far the most
            call = settle(message.id, now, took_us=message.took_us)
            if call is None:
                raise _stranger(message.id)
            if not call.settled:  # else its caller did not have to wait for this
                call.result = (message.body, message.buffers)
                if call.window:
                    call.error = ProtocolError("a stream was answered like a plain call")
                core.settle(call)
        elif isinstance(message, Item):
            call = _stream(worker, message)
            if not call.given_up:
                call.items.append(message)
                call.wake()
                if not call.credit and call.below:
                    stalled(core, call)
        elif isinstance(message, LAST_WORDS):
            call = _take(
                worker, message.id, now, ran=not isinstance(message, Settled) or message.ran
            )
            if not call.settled:  # as above
                _conclude(worker, call, message)
                core.settle(call)
        elif isinstance(message, InputCredit | InputStop):
            route_to_pump(core, worker, message)
        elif isinstance(message, Progress):
            _show(worker, message)
        elif isinstance(message, HostCall):
            begin_host_call(core, worker, message)
        elif isinstance(message, HostCancel):
            cancel_host_call(worker, message)
        elif isinstance(message, Returned):
            _put_back(core, worker, message, now)
        elif isinstance(message, Goodbye):
            worker.goodbye()
        else:
            raise ProtocolError(f"{type(message).__name__} is out of place here")


def _conclude(worker: Worker, call: PendingCall, message: End | Failure | Settled) -> None:
    """Note on the call how it ended."""
    if isinstance(message, Failure):
        call.error = _error(worker, call, message)
    elif isinstance(message, Settled):
        if not call.given_up:
            call.error = ProtocolError("the worker ended a call that nobody had cancelled")
        elif not message.ran:
            worker.never_ran(call)
    elif not call.window:
        call.error = ProtocolError("a plain call was answered like a stream")


def _take(worker: Worker, call_id: int, now: float, *, ran: bool = True) -> PendingCall:
    call = worker.seat.settle(call_id, now, ran=ran)
    if call is None:
        raise _stranger(call_id)
    return call


def _stranger(call_id: int) -> ProtocolError:
    return ProtocolError(f"call {call_id} is not running on this worker")


def _stream(worker: Worker, item: Item) -> PendingCall:
    call = worker.seat.calls.get(item.id)
    if call is None or not call.window:
        raise ProtocolError(f"call {item.id} is no stream on this worker")
    call.credit -= 1
    if call.credit < 0:
        raise ProtocolError(f"call {item.id} sent more items than it had credit for")
    return call


def _show(worker: Worker, update: Progress) -> None:
    call = worker.seat.calls.get(update.id)
    if call is None:
        raise ProtocolError(f"call {update.id}, of which it told progress, is not on this worker")
    for number in (update.done, update.total or 0):
        if not 0 <= number < inf:
            raise ProtocolError(f"the progress of call {update.id} makes no sense: {number}")
    if call.feed is not None and not call.given_up:
        call.feed.put(update)
        call.wake()


def _put_back(core: PoolCore, worker: Worker, returned: Returned, now: float) -> None:
    again: list[PendingCall] = []
    strangers = False
    for call_id in returned.ids:
        call = worker.seat.settle(call_id, now, ran=False)
        if call is None:
            strangers = True
        elif call.settled:
            continue
        elif call.given_up:
            worker.never_ran(call)
            core.settle(call)
        else:
            again.append(call)
    worker.seat.answered()
    core.put_back(again, now)
    if strangers:
        raise ProtocolError(f"it gave back calls that it does not have: {returned.ids}")


def _error(worker: Worker, call: PendingCall, failure: Failure) -> SnakepitError:
    """The exception for a failed call."""
    data = failure.error
    if failure.kind == "not_found":
        return ToolNotFoundError(call.tool)
    if failure.kind == "params":
        return InvalidParamsError(call.tool, data.message.removeprefix(f"tool {call.tool!r}: "))
    if failure.kind == "serialization":
        return SerializationError(f"{call.tool!r}: {data.message}")
    return rebuild(data, tool=call.tool, worker_id=worker.id)
