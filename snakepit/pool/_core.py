"""The pool's state: every change of it is one of these synchronous functions.

They are called from callers' tasks, from the slots' reader tasks and from the deadline watcher, all
on one event loop; none of them awaits, so none is ever seen half-done. I/O happens at their
edges: a message is handed to a channel, an event is set.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio
from msgspec import Raw
from trio.lowlevel import enable_ki_protection

from snakepit._loops import Loop, this_loop
from snakepit.errors import (
    PoolBrokenError,
    PoolSaturatedError,
    WorkerDiedError,
)
from snakepit.pool._ancestry import choose_place, join, leave, link, recheck_all, watch
from snakepit.pool._call import Follower, PendingCall
from snakepit.pool._codec import Codec
from snakepit.pool._deadlines import Deadlines
from snakepit.pool._gate import Gate
from snakepit.pool._host_tools import HostTools
from snakepit.pool._scheduler import Scheduler
from snakepit.pool._seat import OVERDUE_S, Phase, Seat
from snakepit.pool._sessions import SessionTable
from snakepit.pool._suspects import Suspects
from snakepit.pool._time_limits import limit_time, limit_wait, waited_too_long
from snakepit.protocol import Buffers, EndSession, Places, ToolInfo

if TYPE_CHECKING:
    from snakepit.pool._attending import Nursery
    from snakepit.pool._pumps import Pump
    from snakepit.pool._sessions import SessionRecord
    from snakepit.pool._settings import Settings
    from snakepit.pool._slot import Slot
    from snakepit.pool._worker import Worker

_log = logging.getLogger("snakepit.pool")
_call_numbers = itertools.count(1)


class PoolCore(Gate):
    """The state machine of one pool."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.loop: Loop = this_loop()
        self.now: Callable[[], float] = self.loop.now
        self.scheduler: Scheduler[PendingCall] = Scheduler(queue_max=settings.queue.max_size)
        self.deadlines: Deadlines = Deadlines()
        self.slots: list[Slot] = []
        self.tools: dict[str, ToolInfo] | None = None  # None until a worker was ready
        self.progress: anyio.Event = anyio.Event()  # replaced at each change of a slot's readiness
        self.starting: anyio.Semaphore = anyio.Semaphore(settings.startup.batch_size)
        self.requests: int = 0
        self.errors: int = 0
        self.queue_timeouts: int = 0
        self.saturated: int = 0
        self.restarts: int = 0
        self._worker_of: dict[Seat[PendingCall], Worker] = {}
        self.sessions: SessionTable = SessionTable(
            settings.sessions, self.scheduler, self.deadlines, self.now, self._forget_session
        )
        self._pipeline_check = False
        self.nursery: Nursery | None = None  # for tasks of calls that have no task of their own
        self.may_attend: bool = False  # any call may come to have such tasks
        self.has_nested: bool = False  # calls were made for others
        self.host_tools: HostTools = HostTools()
        self.suspects: Suspects = Suspects(settings.crash_barrier)
        self.places: Places | None = settings.places  # for values that are sent
        self.codec: Codec = Codec(
            own=settings.copies_results, uses_threads=settings.transport != "memory"
        )

    # -- what callers do ---------------------------------------------------------------------

    @enable_ki_protection
    def submit(
        self,
        tool: str,
        body: Raw,
        buffers: Buffers,
        *,
        info: ToolInfo | None,
        timeout: float | None,
        idempotent: bool | None = None,
        window: int = 0,
        attended: bool = False,
        follower: Follower | None = None,
        session: str | SessionRecord | None = None,
        pumps: Sequence[Pump] = (),
    ) -> PendingCall:
        """Take a call in, if `refuse_if_shut` does not; it begins at once where a worker is free."""
        now, suspect = self.now(), None
        if self.suspects.known and not pumps:
            suspect = self.suspects.check(tool, body, buffers, now)
        place = None if session is None else self._place(session)
        if (above := link.get()) is not None:
            place = choose_place(self, place, above, tool, awaited=not window)
        if place is None and self.scheduler.is_full():
            self.saturated += 1
            raise self.saturated_error(self.scheduler.waiting)
        if timeout is None and info is not None:
            timeout = info.timeout_s
        if timeout is None:
            timeout = self.settings.call_timeout
        repeats = info.idempotent if idempotent is None and info is not None else bool(idempotent)
        call = PendingCall(
            next(_call_numbers),
            tool,
            body,
            buffers,
            self.loop.new_signal,
            info=info,
            timeout=timeout,
            expires_at=None if timeout is None else now + timeout,
            retries_left=self.settings.retries if repeats and not window else 0,
            window=window,
            pumps=pumps,
        )
        call.attended = attended
        if suspect is not None:
            call.suspect = suspect
        if follower is not None:  # it may change its mind until the call begins
            call.follower, call.on_settled = follower, follower.settled
            call.prefetchable = False
        if above is not None:
            join(self, call, above)
        self.requests += 1
        seat = None
        if place is None and follower is None:
            seat = self.scheduler.lease_idle(call, now)
        if seat is None:
            limit_wait(self, call, now)
        limit_time(self, call)
        if seat is not None:
            self._worker_of[seat].send(call, now)
            return call
        if place is not None:
            self.sessions.begin(call, *place, now)
            self.dispatch(now)
        elif self.scheduler.submit(call):  # else those before it wait, and so does it
            self.dispatch(now)
        if above is not None:
            watch(self, call)
        return call

    @enable_ki_protection
    def give_up(self, call: PendingCall, fate: BaseException | None = None) -> None:
        """Stop the call wherever it is. It settles at once if no worker has it."""
        if call.settled or call.given_up:
            return
        call.given_up, call.fate = True, fate
        if call.attendants is not None:
            call.attendants.cancel()
        if self.scheduler.withdraw(call):
            self.settle(call)
        else:
            assert call.worker is not None
            call.worker.cancel(call)

    # -- what workers do ---------------------------------------------------------------------

    def dispatch(self, now: float | None = None) -> None:
        """Hand out waiting calls to whoever can take them."""
        scheduler = self.scheduler
        if not scheduler.has_work():
            return
        if now is None:
            now = self.now()
        served: dict[Worker, None] = {}
        while (pair := scheduler.next(now)) is not None:
            seat, call = pair
            known = self.suspects.known  # empty, but for a while after deaths
            if (known or call.follower is not None) and not self._begins(call, seat, now):
                continue
            worker = self._worker_of[seat]
            for leased in (call, *scheduler.fill(seat, now)):
                if known and leased is not call and not self._begins(leased, seat, now):
                    continue
                if leased.session is not None:
                    self.sessions.sent(leased, seat)
                worker.queue(leased, now)
            served[worker] = None
        for worker in served:
            worker.flush()
        stolen = scheduler.steal()
        if stolen is not None:
            seat, ids = stolen
            self._worker_of[seat].recall(ids)
        if scheduler.may_recall and not self._pipeline_check:
            self._pipeline_check = True
            self.deadlines.at(now + OVERDUE_S, self._ask_back_overdue)

    def _begins(self, call: PendingCall, seat: Seat[PendingCall], now: float) -> bool:
        """Its turn has come. False: it is not to be sent after all, and has settled."""
        if self.suspects.known and not self.suspects.may_begin(call, now):
            pass
        elif call.follower is not None and not call.follower.begins():
            call.given_up = True
        else:
            return True
        seat.settle(call.id, now, ran=False)
        self.scheduler.update(seat, now)
        self.settle(call)
        return False

    def settle(self, call: PendingCall) -> None:
        """The call is over; its caller may go on."""
        assert not call.settled
        call.settled = True
        if call.suspect is not None:
            self.suspects.settled(call, self.now())
        if call.session is not None:
            self.sessions.settled(call, None if call.worker is None else call.worker.seat)
        call.worker = None
        if call.link is not None:
            leave(call)
        self.deadlines.cancel(call.alarm)
        if call.given_up or call.error is not None:
            self.errors += 1
            if call.feed and (call.given_up or isinstance(call.error, WorkerDiedError)):
                call.feed.stop()
        if call.attendants is not None:
            call.attendants.end()
        call.wake()
        if call.on_settled is not None and not call.attendants:  # else the last of these does
            call.on_settled(call)

    def ready(self, worker: Worker, tools: dict[str, ToolInfo]) -> None:
        """A worker may take calls."""
        first, self.tools = self.tools is None, tools
        now = self.now()
        self._worker_of[worker.seat] = worker
        for slot in self.slots:
            if slot.worker is worker:
                slot.start_error = None
        worker.seat.ready()
        if first:
            for call in self.scheduler.queued():
                call.learn(tools.get(call.tool))
                limit_wait(self, call, now)
        self.scheduler.update(worker.seat, now)
        self.sessions.worker_ready(worker.seat, now)
        self.dispatch(now)
        self.slots_changed()

    def gone(self, worker: Worker, death: WorkerDiedError) -> None:
        """A worker's process has been reaped: settle or requeue what it had.

        The worker runs calls in the order they were sent, so only the first one may have run; if it
        was not heard to the end, as after garbage, it may have gone on with any of them.
        """
        now = self.now()
        left = worker.seat.gone()
        self.scheduler.update(worker.seat, now)
        self._worker_of.pop(worker.seat, None)
        if worker.died_by_itself and not self.closing.is_set():
            self.suspects.buried(worker, left, self._worker_of.values(), now)
        for call in self.sessions.worker_gone(worker.seat, now, death):
            self._settle_as_lost(call)
        again: list[PendingCall] = []
        for position, call in enumerate(left):
            may_have_run = call.reached_worker and (position == 0 or not worker.heard_out)
            if call.settled:
                continue
            if call.given_up:
                worker.abandoned(call, may_have_run=may_have_run)
                if may_have_run:
                    call.ended_with(death)
                self.settle(call)
            elif may_have_run and not call.retries_left:
                call.error = WorkerDiedError(*death.args)
                self.settle(call)
            elif call.pin is not None:
                self._settle_as_lost(call)
            else:
                if may_have_run:
                    call.retries_left -= 1
                    call.may_have_run = True
                    if call.attendants is not None:
                        call.attendants.cancel()
                again.append(call)
        self.put_back(again, now)
        if self.closing.is_set():
            self._drop_queue()
        self.dispatch(now)
        self.slots_changed()

    def put_back(self, calls: list[PendingCall], now: float) -> None:
        """Calls have come back from a worker, unrun or to be repeated: they wait again."""
        for call in calls:
            call.worker = call.sent = None
            call.reached_worker = True
        self.scheduler.put_back(calls)
        for call in calls:
            if call.wait_until is None:
                limit_wait(self, call, now)  # it has not waited before
            elif call.wait_until <= now:
                waited_too_long(self, call)

    def slot_given_up(self, certificate: str) -> None:
        """A slot will not be filled again; without any left the pool is broken."""
        self.slots_changed()
        if any(not slot.given_up for slot in self.slots):
            return
        broken = self.shut_as_broken(certificate)
        _log.error("%s", broken)
        for call in self.scheduler.clear():
            call.error = PoolBrokenError(*broken.args)
            self.settle(call)

    def slots_changed(self) -> None:
        """Wake whoever waits for readiness."""
        self.progress.set()
        self.progress = anyio.Event()
        if self.has_nested:
            recheck_all(self.scheduler.queued())

    # -- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Begin to close: refuse, drop the queue, stop what runs, let the slots end."""
        if self.closing.is_set():
            return
        self.shut_as_closing()
        self._drop_queue()
        for slot in self.slots:
            slot.worker.close()
        self.slots_changed()

    def _place(
        self, session: str | SessionRecord
    ) -> tuple[SessionRecord, Seat[PendingCall] | None]:
        try:
            return self.sessions.place(session)
        except PoolSaturatedError:
            self.saturated += 1
            raise

    def _settle_as_lost(self, call: PendingCall) -> None:
        assert call.session is not None
        call.error = call.session.lost_error()
        self.settle(call)

    def _forget_session(self, seat: Seat[PendingCall], session_id: str) -> None:
        """Tell the worker, unless it is on its way out: it takes everything along."""
        if seat.phase in (Phase.READY, Phase.LEASED):
            self._worker_of[seat].tell(EndSession(session_id))

    def _drop_queue(self) -> None:
        for call in self.scheduler.clear():
            call.given_up, call.fate = True, self.closed_error()
            self.settle(call)

    def _ask_back_overdue(self) -> None:
        """Ask prefetched calls back from workers whose running call turned out long."""
        self._pipeline_check = False
        now = self.now()
        for seat, ids in self.scheduler.overdue(now):
            self._worker_of[seat].recall(ids)
        if self.scheduler.may_recall:  # a worker that was asked answers in its own time
            self._pipeline_check = True
            self.deadlines.at(now + OVERDUE_S, self._ask_back_overdue)
