"""How a worker's call is stopped: it is asked, and if that does not help the worker is ended.

A worker that somebody else has started cannot be ended. It is asked, given the time that the whole
ladder takes, and hung up on: its tool may go on, and the caller is told so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from snakepit.errors import CallTimeoutError, QueueTimeoutError, WorkerDiedError
from snakepit.pool._seat import Phase
from snakepit.protocol import Call, Cancel, HostFailure, HostReply, describe

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore
    from snakepit.pool._seat import Seat
    from snakepit.protocol import ToWorker
    from snakepit.transports import Channel

UNRESPONSIVE = "unresponsive"
READS_AGAIN_S = 1.0  # however short the grace: one that is well may be busy with what it has read
LOOK_AGAIN_S = 0.01  # whether a cancelled call that waits behind another one has begun


class StopsCalls:
    """A worker, as far as stopping its calls is concerned."""

    _core: PoolCore
    _channel: Channel | None
    _is_spawned: bool  # by this pool; else it is not ours to end
    _reason: str
    _is_watched = False  # whether it reads
    seat: Seat[PendingCall]
    death: WorkerDiedError | None

    def tell(self, message: ToWorker) -> None:
        """Send a message, unless the link is gone."""
        raise NotImplementedError

    def condemn(
        self,
        reason: str,
        *,
        ask: Callable[[], object] | None = None,
        ask_grace_s: float = 0.0,
        dump: bool = False,
        fruitful: bool = False,
        by_itself: bool = False,
    ) -> None:
        """This worker is to be stopped."""
        raise NotImplementedError

    def seat_changed(self, now: float) -> None:
        """File the seat anew, and hand out work."""
        raise NotImplementedError

    def _need_reading(self) -> None:
        raise NotImplementedError

    def cancel(self, call: PendingCall) -> None:
        """Stop a call that was sent to this worker: by asking, then by ending the worker."""
        assert self._channel is not None
        assert call.sent is not None
        if self._channel.withdraw(call.sent):
            self.seat.settle(call.id, self._core.now(), ran=False)
            self.never_ran(call)
            self._core.settle(call)
            self.seat_changed(self._core.now())
            self._expect_reading()
            return
        info = call.info
        kills = info is not None and info.on_cancel == "kill" and self._is_spawned
        if kills and self._runs(call):
            reason = f"was ended because the call of {call.tool!r} was cancelled"
            self.condemn(reason, fruitful=True)
            return
        self.tell(Cancel(call.id))
        self._need_reading()
        self._give_grace(call, self._grace_of(call), self._core.now())

    def unsendable(self, message: ToWorker, error: Exception) -> None:
        """This could not be written: what it was for fails of it, and nothing else does."""
        if isinstance(message, HostReply):
            self.tell(HostFailure(message.id, "serialization", describe(error)))
            return
        call = (
            self.seat.settle(message.id, self._core.now(), ran=False)
            if isinstance(message, Call)
            else None
        )
        if call is None:
            self.condemn(f"could not be told what it must know ({error})")
        elif not call.settled:
            call.error = error
            self._core.settle(call)
        self.seat_changed(self._core.now())

    def _grace_of(self, call: PendingCall) -> float:
        """How long its worker has to stop it."""
        stop, info = self._core.settings.stop, call.info
        grace = stop.cancel_grace
        if info is not None and info.cancel_grace_s is not None:
            grace = info.cancel_grace_s
        # One that is not ours is asked, and that is all.
        return grace if self._is_spawned else grace + stop.term_grace

    def _expect_reading(self) -> None:
        """A call was taken back while it was written: the worker has a while to read on.

        One that never reads again could begin no other call either, and nobody would notice.
        """
        assert self._channel is not None
        before = self._channel.stalled_at
        if before is not None and not self._is_watched:
            self._is_watched = True
            stop = self._core.settings.stop
            grace = max(stop.cancel_grace, READS_AGAIN_S)
            grace += 0 if self._is_spawned else stop.term_grace
            when = self._core.now() + grace
            self._core.deadlines.at(when, lambda: self._has_it_read(before, grace))

    def _has_it_read(self, before: int, grace: float) -> None:
        self._is_watched = False
        channel = self._channel
        if channel is None or self.seat.phase in (Phase.STOPPING, Phase.GONE):
            return
        if channel.stalled_at != before:
            self._expect_reading()  # it reads; slowly, if there is still more
            return
        for position, call in enumerate(self.seat.calls.values()):
            if call.sent is not None and channel.withdraw(call.sent):
                call.reached_worker = False
            elif position == 0:
                self._expect_reading()  # it runs a call, which may hold the GIL: it is let alone
                return
        self._end_for(f"was ended because it read nothing of what was sent to it for {grace:g} s")

    def _give_grace(self, call: PendingCall, grace: float, since: float) -> None:
        ring = self._core.deadlines.at(since + grace, lambda: self._grace_is_over(call, grace))
        if not call.settled:  # then it ends with the call, and does not keep its arguments
            self._core.deadlines.cancel(call.alarm)  # no other limit matters any more
            call.alarm = ring

    def _grace_is_over(self, call: PendingCall, grace: float) -> None:
        """A cancelled call is still here: end the worker, if it is this call that runs.

        A call behind another one has not begun, and the one before it must not pay for its
        cancellation: its caller is let go, and its own grace begins with it, if it ever does.
        """
        if call.id not in self.seat.calls:
            return
        if not self._runs(call):
            if not call.settled:
                self._core.settle(call)
            # Without any grace this would ring again at once, and for ever.
            self._give_grace(call, grace, self._core.now() + LOOK_AGAIN_S)
        elif self._core.now() < self.seat.head_since + grace:
            self._give_grace(call, grace, self.seat.head_since)
        else:
            self._end_for(
                f"was ended because {call.tool!r} did not stop within {grace:g} s "
                "of being cancelled"
            )

    def _end_for(self, reason: str) -> None:
        """A call does not stop. One that is not ours goes on with it, out of our sight."""
        if self._is_spawned:
            self.condemn(reason, dump=True, fruitful=True)
        else:
            self.condemn(UNRESPONSIVE, fruitful=True)

    def _runs(self, call: PendingCall) -> bool:
        return next(iter(self.seat.calls), None) == call.id

    def abandoned(self, call: PendingCall, *, may_have_run: bool) -> None:
        """A call that was given up ends with the worker: tell its caller the truth."""
        if not may_have_run:
            self.never_ran(call)
        elif not self._is_spawned:
            assert self.death is not None
            call.fate = call.unstopped = WorkerDiedError(*self.death.args)

    def never_ran(self, call: PendingCall) -> None:
        """A call that was given up turns out not to have begun: tell its caller so."""
        if isinstance(call.fate, CallTimeoutError) and not call.may_have_run:
            self._core.queue_timeouts += 1
            call.fate = QueueTimeoutError(*call.fate.args)
