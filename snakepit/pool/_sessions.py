"""The pool's sessions: who is open, where each one lives, when it is over. One synchronous place.

A session's state is kept in one worker at a time, its *home*. A strict session's calls are pinned
to it; those of a hint go where there is time, and its home follows them. Every worker that has
had a call of a session, and is its home no more, is told to forget it.

Nothing here waits or looks at a clock by itself, and no operation looks at more than one session,
but for the death of a worker, which looks at those that it had.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from snakepit.errors import (
    PoolSaturatedError,
    SessionBusyError,
    SessionLostError,
    SessionNotFoundError,
    WorkerDiedError,
)
from snakepit.options import Sessions, duration_s
from snakepit.pool._homes import Homes
from snakepit.pool._seat import Phase, Seat

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._deadlines import Alarm
    from snakepit.pool._host_tools import HostTools
    from snakepit.pool._scheduler import Scheduler

SESSION_ID_CHARS_MAX: Final = 1000  # with its name, its session and all a call has to fit a frame

_SERVING = (Phase.READY, Phase.LEASED)


class Alarms(Protocol):
    """The pool's deadlines."""

    def at(self, when: float, action: Callable[[], None], /) -> Alarm:
        """Call it at that time."""

    def cancel(self, alarm: Alarm | None, /) -> None:
        """Forget it."""


class SessionRecord:
    """One session.

    `held`: a block holds it; otherwise it was made on demand. `seat`: its home, None while it has
    none. `begun`: the home was sent a call. `calls`: those that have not settled. `streams`: blocks
    of streams that have not been left. `over`: why it takes no more calls, "" while it does.
    `lost_with`: the name of the worker that it died with.
    """

    def __init__(
        self, session_id: str, affinity: str, ttl_s: float | None, *, held: bool = False
    ) -> None:
        self.id: str = session_id
        self.affinity: str = affinity
        self.strict: bool = affinity != "hint"
        self.ttl_s: float | None = ttl_s
        self.held: bool = held
        self.metadata: dict[str, Any] = {}
        self.host_tools: HostTools | None = None  # for its calls alone
        self.seat: Seat[PendingCall] | None = None
        self.begun: bool = False
        self.calls: dict[int, PendingCall] = {}
        self.streams: int = 0
        self.over: str = ""
        self.lost_with: str | None = None
        self.lost_by: WorkerDiedError | None = None  # as far as it is known
        self.used_at: float = 0.0
        self.alarm: Alarm | None = None  # at most one, set anew only when it rings

    def refuse_if_over(self) -> None:
        """Raise if no call can be taken any more."""
        if self.lost_with is not None:
            raise self.lost_error()
        if self.over:
            raise self.over_error()

    def lost_error(self) -> SessionLostError:
        """The error of calls that come, or wait, after its worker's death."""
        assert self.lost_with is not None
        error = SessionLostError(self.id, self.lost_with)
        if self.lost_by is not None:
            error.__cause__ = WorkerDiedError(*self.lost_by.args)
        return error

    def over_error(self) -> SessionNotFoundError:
        """The error of calls that come, or still run, when it is over."""
        return SessionNotFoundError(self.id, self.over)


class SessionTable:
    """The sessions of one pool. `forget(seat, id)` tells a worker to drop what it keeps."""

    def __init__(
        self,
        options: Sessions,
        scheduler: Scheduler[PendingCall],
        alarms: Alarms,
        now: Callable[[], float],
        forget: Callable[[Seat[PendingCall], str], None],
    ) -> None:
        self._options = options
        self._ttl_s = duration_s(options.ttl)
        self._scheduler, self._alarms, self._now, self._forget = scheduler, alarms, now, forget
        self._live: dict[str, SessionRecord] = {}
        self._lost: OrderedDict[str, SessionRecord] = OrderedDict()  # nobody has been told yet
        self._at: dict[Seat[PendingCall], dict[str, SessionRecord]] = {}
        self._homes = Homes()

    def __len__(self) -> int:
        return len(self._live)

    def count_at(self, seat: Seat[PendingCall]) -> int:
        """How many sessions live there."""
        return len(self._at.get(seat, ()))

    # -- what callers do ---------------------------------------------------------------------

    def open(self, session_id: str, affinity: str, ttl_s: float | None) -> SessionRecord:
        """A session that a block holds. Raises SessionBusyError, PoolSaturatedError."""
        if session_id in self._live:
            raise SessionBusyError(session_id, "is open already")
        self._refuse_if_full()
        self._forget_lost(session_id)
        record = SessionRecord(session_id, affinity, ttl_s, held=True)
        self._register(record)
        return record

    def place(self, session: str | SessionRecord) -> tuple[SessionRecord, Seat[PendingCall] | None]:
        """The session, made if need be, and the worker that its next call shall go to.

        Changes nothing but that a lost session has been told of; `begin` has to follow.

        Raises: SessionLostError, SessionBusyError, SessionNotFoundError, PoolSaturatedError.
        """
        record = session if isinstance(session, SessionRecord) else self._find(session)
        record.refuse_if_over()
        seat = record.seat
        if seat is None:
            seat = self._choose()
        if record.affinity == "strict_fail_fast" and (
            seat is None or seat.phase is not Phase.READY
        ):
            raise SessionBusyError(record.id, "has no worker that could begin a call now")
        scheduler = self._scheduler
        full = scheduler.is_full_for(seat) if record.strict else scheduler.is_full()
        if full:
            raise PoolSaturatedError(
                f"a call in session {record.id!r} would have to wait, and {scheduler.waiting} calls "
                "do so already (Queue.max_size)"
            )
        return record, seat

    def begin(
        self,
        call: PendingCall,
        record: SessionRecord,
        seat: Seat[PendingCall] | None,
        now: float,
    ) -> None:
        """Take the call in: into the line of its worker, or into the common one with a hint."""
        if self._live.get(record.id) is not record:
            self._register(record)
        record.calls[call.id] = call
        record.streams += call.window > 0
        record.used_at = now
        call.session = record
        if not record.strict:
            call.hint = seat
            self._scheduler.submit(call)
            return
        call.retries_left = 0  # on another worker it would find another state, or none
        if record.seat is not seat and seat is not None:
            self._settle_at(record, seat)
        self._scheduler.pin(call, seat, now)

    def named(self, session: str | SessionRecord) -> SessionRecord:
        """The session, which must be open. Raises SessionNotFoundError, SessionLostError."""
        record = self._live.get(session) if isinstance(session, str) else session
        if record is None:
            raise SessionNotFoundError(str(session), "is not open")
        record.refuse_if_over()
        return record

    def find_to_end(self, session_id: str) -> SessionRecord | None:
        """The session that shall be ended; None if it was lost: then that is all.

        Raises SessionNotFoundError, and SessionBusyError for one that a block holds.
        """
        if self._forget_lost(session_id):
            return None
        record = self._live.get(session_id)
        if record is None:
            raise SessionNotFoundError(session_id, "is not open")
        if record.held:
            raise SessionBusyError(session_id, "is held by a block, which ends it")
        return record

    def end(self, record: SessionRecord) -> None:
        """The session is over and none of its calls is left: forget it, here and in its worker."""
        assert not record.calls
        if self._live.get(record.id) is not record:
            return
        del self._live[record.id]
        self._alarms.cancel(record.alarm)
        record.alarm = None
        seat = record.seat
        self._leave(record)
        if seat is not None and record.begun:
            self._forget(seat, record.id)

    # -- what happens to its calls -----------------------------------------------------------

    def sent(self, call: PendingCall, seat: Seat[PendingCall]) -> None:
        """A call of a session is sent to this worker."""
        record = call.session
        assert record is not None
        old = record.seat
        if old is not seat:
            assert not record.strict
            self._leave(record)
            self._settle_at(record, seat)
            if old is not None:
                self._forget(old, record.id)
        record.begun = True

    def settled(self, call: PendingCall, seat: Seat[PendingCall] | None) -> None:
        """A call of a session has settled; `seat`: on this worker, None: on none."""
        record = call.session
        assert record is not None
        record.calls.pop(call.id, None)
        record.used_at = self._now()
        if seat is not None and seat is not record.seat:
            self._forget(seat, record.id)  # what this call has left there after the move
        self._arm(record)

    def stream_left(self, record: SessionRecord) -> None:
        """The block of a stream in this session is left."""
        record.streams -= 1
        record.used_at = self._now()
        self._arm(record)

    # -- what happens to workers -------------------------------------------------------------

    def worker_ready(self, seat: Seat[PendingCall], now: float) -> None:
        """A worker takes calls; those of strict sessions that waited for any go on."""
        self._at[seat] = {}
        self._homes.add(seat)
        for call in self._scheduler.take_homeless():
            self._pin(call, now)

    def worker_gone(
        self, seat: Seat[PendingCall], now: float, death: WorkerDiedError | None = None
    ) -> list[PendingCall]:
        """A worker is gone: its strict sessions are lost, unless they never had a call there.

        Returns the calls that waited for it, to be settled as lost.
        """
        self._homes.remove(seat)
        for record in self._at.pop(seat, {}).values():
            record.seat = None
            if record.strict and record.begun:
                record.lost_with, record.lost_by = seat.name, death
                if not (record.held or record.over):
                    self._bury(record)
            record.begun = False
        lost = []
        for call in self._scheduler.abandon(seat):
            assert call.session is not None
            if call.session.lost_with is None:
                self._pin(call, now)
            else:
                lost.append(call)
        return lost

    # -- inside ------------------------------------------------------------------------------

    def _find(self, session_id: str) -> SessionRecord:
        """The live session of this id, or a new one that `begin` will know."""
        lost = self._lost.get(session_id)
        if lost is not None:
            self._forget_lost(session_id)
            raise lost.lost_error()
        record = self._live.get(session_id)
        if record is None:
            self._refuse_if_full()
            return SessionRecord(session_id, self._options.affinity, self._ttl_s)
        if record.over:
            raise SessionBusyError(session_id, "is being ended")
        return record

    def _refuse_if_full(self) -> None:
        if len(self._live) >= self._options.max:
            raise PoolSaturatedError(
                f"{len(self._live)} sessions are open already (Sessions.max={self._options.max})"
            )

    def _register(self, record: SessionRecord) -> None:
        self._live[record.id] = record
        record.used_at = self._now()
        self._arm(record)

    def _choose(self) -> Seat[PendingCall] | None:
        """The worker with the fewest sessions; if it has no time and another one does, that."""
        while (seat := self._homes.fewest()) is not None and seat.phase not in _SERVING:
            self._homes.remove(seat)
        if seat is None or (seat.phase is Phase.READY and seat.tainted_until <= self._now()):
            return seat
        return self._scheduler.longest_idle() or seat

    def _pin(self, call: PendingCall, now: float) -> None:
        """Pin the waiting call of a strict session, which has no home if nothing of it is kept."""
        record = call.session
        assert record is not None
        call.pin = None
        if record.seat is None:
            seat = self._choose()
            if seat is not None:
                self._settle_at(record, seat)
        self._scheduler.pin(call, record.seat, now)

    def _settle_at(self, record: SessionRecord, seat: Seat[PendingCall]) -> None:
        record.seat = seat
        record.begun = False
        self._at[seat][record.id] = record
        self._homes.count(seat, 1)

    def _leave(self, record: SessionRecord) -> None:
        seat, record.seat = record.seat, None
        if seat is not None:
            del self._at[seat][record.id]
            self._homes.count(seat, -1)

    def _bury(self, record: SessionRecord) -> None:
        """It is not live any more, but the next one who asks for it is told, until its time is up."""
        del self._live[record.id]
        self._lost[record.id] = record
        if len(self._lost) > self._options.max:
            self._forget_lost(next(iter(self._lost)))

    def _forget_lost(self, session_id: str) -> bool:
        record = self._lost.pop(session_id, None)
        if record is None:
            return False
        self._alarms.cancel(record.alarm)
        record.alarm = None
        record.over = "was lost"
        return True

    def _arm(self, record: SessionRecord) -> None:
        idle = not (record.calls or record.streams or record.over)
        if idle and record.ttl_s is not None and record.alarm is None:
            when = record.used_at + record.ttl_s
            record.alarm = self._alarms.at(when, lambda: self._expire(record))

    def _expire(self, record: SessionRecord) -> None:
        record.alarm = None
        if record.calls or record.streams or record.ttl_s is None:
            return  # armed again when the last of them is over
        if self._now() < record.used_at + record.ttl_s:
            self._arm(record)
        elif self._lost.get(record.id) is record:
            self._forget_lost(record.id)
        elif not record.over:
            record.over = f"was not used for {record.ttl_s:g} s"
            self.end(record)
