"""When the time of a call is up: its time to wait, or its time at all. One alarm for both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit.errors import CallTimeoutError, QueueTimeoutError

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore


def limit_time(core: PoolCore, call: PendingCall) -> None:
    """Set the alarm for the end of its time, unless that of its wait rings before."""
    if call.alarm is None and call.expires_at is not None:
        call.alarm = core.deadlines.at(call.expires_at, lambda: _expire(core, call))


def limit_wait(core: PoolCore, call: PendingCall, now: float) -> None:
    """Start the clock of `Queue.timeout`, unless no worker has ever been ready."""
    limit = core.settings.queue.timeout
    if limit is not None and core.tools is not None:
        call.wait_until = now + limit
        if call.expires_at is None or call.wait_until < call.expires_at:
            core.deadlines.cancel(call.alarm)
            call.alarm = core.deadlines.at(call.wait_until, lambda: _end_wait(core, call))


def waited_too_long(core: PoolCore, call: PendingCall) -> None:
    """Its time to wait is over; if a worker has it or had it, that is no matter any more."""
    limit = core.settings.queue.timeout
    if call.worker is None and not call.settled and not call.may_have_run:
        assert limit is not None
        core.queue_timeouts += 1
        core.give_up(call, QueueTimeoutError(call.tool, limit))


def _end_wait(core: PoolCore, call: PendingCall) -> None:
    call.alarm = None
    limit_time(core, call)
    waited_too_long(core, call)


def _expire(core: PoolCore, call: PendingCall) -> None:
    if call.settled or call.given_up:
        return
    assert call.timeout is not None
    if call.worker is None and not call.may_have_run:
        core.queue_timeouts += 1
        core.give_up(call, QueueTimeoutError(call.tool, call.timeout))
    else:
        core.give_up(call, CallTimeoutError(call.tool, call.timeout))
