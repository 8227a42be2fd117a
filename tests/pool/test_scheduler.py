"""The scheduler, against a model that searches lists: who gets which call, and when none does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from math import isclose
from typing import Any

import pytest
from _scheduler_kit import SHORT_S, FakeCall, calls, dispatch, ready_seat, scheduler_with
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from snakepit.pool._scheduler import Scheduler
from snakepit.pool._seat import (
    DURATION_NOTED_MAX_S,
    OVERDUE_S,
    PREFETCH_AVERAGE_MAX_S,
    PREFETCH_MAX,
    PREFETCH_S,
    Phase,
    Seat,
)

LIVE = (Phase.READY, Phase.LEASED)
ENDING = (Phase.DRAINING, Phase.STOPPING)


class ModelSeat:
    """What a seat should be, kept by the test alone."""

    def __init__(self, seat: Seat[FakeCall]) -> None:
        self.seat = seat
        self.phase = Phase.STARTING
        self.calls: list[FakeCall] = []
        self.line: list[FakeCall] = []  # pinned here
        self.asked: list[list[int]] = []  # recalls on their way, not answered
        self.recalled: set[int] = set()
        self.head_since = 0.0
        self.average_s = float("inf")

    @property
    def prefetched(self) -> list[FakeCall]:
        return self.calls[1:]

    @property
    def movable(self) -> list[FakeCall]:
        return [call for call in self.prefetched if call.pin is None]

    def may_prefetch(self, now: float) -> bool:
        return (
            self.phase is Phase.LEASED
            and len(self.calls) < 1 + PREFETCH_MAX
            and self.average_s < PREFETCH_AVERAGE_MAX_S
            and len(self.calls) * self.average_s < PREFETCH_S
            and now - self.head_since < OVERDUE_S
            and not self.recalled
            and all(call.prefetchable for call in self.calls)
        )

    def remove(self, call: FakeCall, now: float, *, ran: bool) -> None:
        if self.calls[0] is call:
            if ran:
                took = min(now - self.head_since, DURATION_NOTED_MAX_S)
                first = self.average_s == float("inf")
                self.average_s = took if first else self.average_s * 0.8 + took * 0.2
            self.head_since = now
        self.calls.remove(call)
        self.recalled.discard(call.id)
        if not self.calls and self.phase is Phase.LEASED:
            self.phase = Phase.READY


def serves(model: ModelSeat) -> bool:
    return model.phase in LIVE


class SchedulerMachine(RuleBasedStateMachine):
    """A pool's life, a step at a time; after each the waiting calls are handed out."""

    @initialize(
        queue_max=st.none() | st.integers(0, 6),
        prefetch=st.sampled_from([True, True, True, False]),
        warm=st.integers(0, 3),
    )
    def begin(self, queue_max: int | None, prefetch: bool, warm: int) -> None:
        """With some workers that have already run a short call."""
        self.scheduler: Scheduler[FakeCall] = Scheduler(queue_max=queue_max, prefetch=prefetch)
        self.queue_max, self.prefetch = queue_max, prefetch
        self.now = 100.0
        self.calls: list[FakeCall] = []
        self.line: list[FakeCall] = []
        self.homeless: list[FakeCall] = []
        self.seats: list[ModelSeat] = []
        self.done: list[FakeCall] = []
        self.put_back: set[int] = set()
        self.begun: list[FakeCall] = []  # in the order of leasing, never put back
        for _ in range(warm):
            model = ModelSeat(ready_seat(average_s=SHORT_S))
            model.phase, model.average_s = Phase.READY, SHORT_S
            model.head_since = model.seat.head_since
            self.seats.append(model)
            self.file(model)

    # -- what happens --------------------------------------------------------------------------

    @rule(prefetchable=st.sampled_from([True, True, True, False]), count=st.integers(1, 7))
    def submit(self, prefetchable: bool, count: int) -> None:
        for _ in range(count):
            call = FakeCall(len(self.calls) + 1, prefetchable=prefetchable)
            self.calls.append(call)
            self.line.append(call)
            self.scheduler.submit(call)
        self.dispatch()

    @rule(pick=st.integers(0), count=st.integers(1, 3))
    @precondition(lambda self: self.seats)
    def submit_with_a_hint(self, pick: int, count: int) -> None:
        """Calls that would rather run on one worker."""
        for _ in range(count):
            call = FakeCall(len(self.calls) + 1)
            call.hint = self.pick(pick, lambda model: True).seat
            self.calls.append(call)
            self.line.append(call)
            self.scheduler.submit(call)
        self.dispatch()

    @rule(
        prefetchable=st.sampled_from([True, True, True, False]),
        pick=st.integers(0),
        count=st.integers(1, 7),
    )
    def submit_pinned(self, prefetchable: bool, pick: int, count: int) -> None:
        """Calls that one worker alone may run; without any ready one they wait for that."""
        home = self.pick(pick, serves) if self.any_seat(*LIVE) else None
        full = self.queue_max is not None and self.waiting() >= self.queue_max
        must_wait = home is None or home.phase is not Phase.READY
        assert self.scheduler.is_full_for(home and home.seat) is (full and must_wait)
        for _ in range(count):
            call = FakeCall(len(self.calls) + 1, prefetchable=prefetchable)
            self.calls.append(call)
            (self.homeless if home is None else home.line).append(call)
            self.scheduler.pin(call, home and home.seat, self.now)
        self.dispatch()

    @rule(pick=st.integers(0))
    @precondition(lambda self: self.calls)
    def withdraw(self, pick: int) -> None:
        """A call that waits leaves its line; one that is elsewhere cannot."""
        call = self.calls[pick % len(self.calls)]
        lines = [line for line in self.lines() if call in line]
        assert self.scheduler.withdraw(call) is bool(lines)
        for line in lines:
            line.remove(call)
            self.done.append(call)

    @rule(tainted_s=st.sampled_from([0.0, 0.0, 0.002, 1.0, 5.0]))
    @precondition(lambda self: len(self.seats) < 8)
    def start_seat(self, tainted_s: float) -> None:
        seat: Seat[FakeCall] = Seat(tainted_until=self.now + tainted_s)
        self.seats.append(ModelSeat(seat))
        self.file(self.seats[-1])

    @rule(pick=st.integers(0))
    @precondition(lambda self: self.any_seat(Phase.STARTING))
    def seat_is_ready(self, pick: int) -> None:
        model = self.pick(pick, lambda model: model.phase is Phase.STARTING)
        model.seat.ready()
        model.phase = Phase.READY
        assert self.scheduler.take_homeless() == self.homeless
        for call in self.homeless:
            self.scheduler.pin(call, model.seat, self.now)
        model.line, self.homeless = self.homeless, []
        self.file(model)

    @rule(pick=st.integers(0), took_s=st.sampled_from([0.0, 0.0002, 0.0004, 0.0009, 0.0009, 0.003]))
    @precondition(lambda self: any(model.calls for model in self.seats))
    def running_call_ends(self, pick: int, took_s: float) -> None:
        model = self.pick(pick, lambda model: bool(model.calls))
        self.now += took_s
        self.settle(model, model.calls[0], ran=True)
        self.file(model)

    @rule(pick=st.integers(0))
    @precondition(lambda self: any(model.calls for model in self.seats))
    def sent_call_is_given_up_unrun(self, pick: int) -> None:
        model = self.pick(pick, lambda model: bool(model.calls))
        self.settle(model, model.calls[pick % len(model.calls)], ran=False)
        self.file(model)

    @rule(pick=st.integers(0), returned=st.lists(st.booleans(), min_size=9, max_size=9))
    @precondition(lambda self: any(model.asked for model in self.seats))
    def recall_is_answered(self, pick: int, returned: list[bool]) -> None:
        """Some of what was asked for comes back; the rest has begun or ended meanwhile."""
        model = self.pick(pick, lambda model: bool(model.asked))
        asked = model.asked.pop(0)
        if model.seat.pinned_count:  # where order counts: what comes back is what is last
            returned = list(accumulate(returned, max))
        back = [
            call
            for call, comes in zip(list(model.calls), returned, strict=False)
            if call.id in asked and comes
        ]
        for call in back:
            self.settle(model, call, ran=False, over=False)
        model.seat.answered()
        model.recalled.clear()
        self.return_to_line(back)
        self.file(model)

    @rule(pick=st.integers(0), how=st.sampled_from(["drain", "condemn", "die"]))
    @precondition(lambda self: len(self.seats) > 1)
    def seat_ends(self, pick: int, how: str) -> None:
        model = self.pick(pick, lambda model: True)
        if how == "die" and model.phase in (Phase.STOPPING, *LIVE):
            self.die(model)
        elif how == "condemn":
            model.seat.stop()
            model.phase = Phase.STOPPING
            self.file(model)
        else:
            model.seat.drain()
            if model.phase not in ENDING:
                model.phase = Phase.DRAINING
            self.file(model)

    def die(self, model: ModelSeat) -> None:
        """The first call may have run and is over, as are the pinned ones; the others go back."""
        left = model.seat.gone()
        assert left == model.calls
        self.scheduler.update(model.seat, self.now)
        assert self.scheduler.abandon(model.seat) == model.line
        self.seats.remove(model)
        back = [call for call in left[1:] if call.pin is None]
        self.done += [call for call in left if call not in back] + model.line
        self.return_to_line(back)
        self.dispatch()

    @rule(seconds=st.sampled_from([0.0005, 0.001, OVERDUE_S, 0.003, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.dispatch()

    @rule()
    def look_for_overdue(self) -> None:
        """Asked back is what waits behind calls that run for too long, and nothing twice."""
        expected = {
            model.seat: tuple(call.id for call in model.prefetched)
            for model in self.seats
            if model.prefetched and not model.recalled and self.now - model.head_since >= OVERDUE_S
        }
        found = self.scheduler.overdue(self.now)
        assert len(found) == len(expected)
        assert dict(found) == expected
        for seat, ids in found:
            self.note_recall(seat, ids)
        assert self.scheduler.overdue(self.now) == []

    @rule()
    @precondition(lambda self: self.waiting() > 12)
    def clear(self) -> None:
        cleared = self.scheduler.clear()
        assert cleared[: len(self.line)] == self.line
        assert sorted(map(id, cleared)) == sorted(
            id(call) for line in self.lines() for call in line
        )
        self.done += cleared
        for line in self.lines():
            line.clear()

    # -- how the pool acts on it ---------------------------------------------------------------

    def lines(self) -> list[list[FakeCall]]:
        return [self.line, self.homeless, *(model.line for model in self.seats)]

    def waiting(self) -> int:
        prefetched = sum(len(model.prefetched) for model in self.seats)
        return sum(map(len, self.lines())) + prefetched

    def any_seat(self, *phases: Phase) -> bool:
        return any(model.phase in phases for model in self.seats)

    def pick(self, number: int, fits: Callable[[ModelSeat], bool]) -> ModelSeat:
        models = [model for model in self.seats if fits(model)]
        return models[number % len(models)]

    def settle(self, model: ModelSeat, call: FakeCall, *, ran: bool, over: bool = True) -> None:
        assert model.seat.settle(call.id, self.now, ran=ran) is call
        model.remove(call, self.now, ran=ran)
        if over:
            self.done.append(call)

    def return_to_line(self, back: list[FakeCall]) -> None:
        self.scheduler.put_back(back)
        self.line[:0] = [call for call in back if call.pin is None]
        for model in self.seats:
            model.line[:0] = [call for call in back if call.pin is model.seat]
        self.put_back.update(call.id for call in back)

    def file(self, model: ModelSeat) -> None:
        self.scheduler.update(model.seat, self.now)
        self.dispatch()

    def dispatch(self) -> None:
        while (pair := self.scheduler.next(self.now)) is not None:
            self.check_choice(*pair)
        candidates = [m for m in self.seats if m.movable and not m.recalled]
        stolen = self.scheduler.steal()
        if self.line or not self.any_seat(Phase.READY) or not candidates:
            assert stolen is None
        else:
            assert stolen is not None
            (model,) = [model for model in candidates if model.seat is stolen[0]]
            assert stolen[1] == tuple(call.id for call in model.movable)
            self.note_recall(*stolen)
        self.check_nothing_waits_without_need()

    def note_recall(self, seat: Seat[FakeCall], ids: tuple[int, ...]) -> None:
        (model,) = [model for model in self.seats if model.seat is seat]
        model.recalled.update(ids)
        model.asked.append(list(ids))

    def check_choice(self, seat: Seat[FakeCall], call: FakeCall) -> None:
        """The first in line, on an idle worker, a tainted one last; else behind short calls."""
        (model,) = [model for model in self.seats if model.seat is seat]
        if call.pin is None:
            assert call is self.line.pop(0)
            self.check_choice_from_the_common_line(model, call)
        else:
            assert call.pin is seat
            assert call is model.line.pop(0)
            assert all(call.id < other.id for other in self.line[:1]), "an older one waits"
        if model.phase is Phase.READY:
            model.head_since = self.now
        else:
            assert self.prefetch
            assert call.prefetchable
            assert model.may_prefetch(self.now)
        model.calls.append(call)
        model.phase = Phase.LEASED
        if call.id not in self.put_back:
            self.begun.append(call)

    def check_choice_from_the_common_line(self, model: ModelSeat, call: FakeCall) -> None:
        """A worker with a line of its own comes last, and only for what is older than that line."""
        idle = [model for model in self.seats if model.phase is Phase.READY and not model.line]
        untainted = [model for model in idle if model.seat.tainted_until <= self.now]
        hinted = [model for model in idle if model.seat is call.hint]
        if idle:
            assert model in (hinted or untainted or idle)
        elif model.line:
            assert call.id < model.line[0].id
            assert not (call.prefetchable and self.room())

    def room(self) -> list[ModelSeat]:
        """Who may be sent a call ahead, and has no line of its own."""
        return [m for m in self.seats if self.prefetch and m.may_prefetch(self.now) and not m.line]

    def check_nothing_waits_without_need(self) -> None:
        assert not any(model.line for model in self.seats if model.phase is Phase.READY)
        assert not (self.homeless and self.any_seat(*LIVE))
        if not self.line:
            return
        assert not self.any_seat(Phase.READY)
        if self.line[0].prefetchable:
            assert not self.room()

    # -- what holds after every step -----------------------------------------------------------

    @invariant()
    def every_call_is_in_one_place(self) -> None:
        placed = self.scheduler.queued() + self.done
        for model in self.seats:
            placed += model.seat.calls.values()
        assert sorted(call.id for call in placed) == [call.id for call in self.calls]

    @invariant()
    def the_line_and_the_seats_are_as_in_the_model(self) -> None:
        queued = self.scheduler.queued()
        assert queued[: len(self.line)] == self.line
        assert len(queued) == sum(map(len, self.lines()))
        for model in self.seats:
            seat = model.seat
            assert seat.phase is model.phase
            assert list(seat.calls.values()) == model.calls
            assert list(seat.line.values()) == model.line
            assert seat.recalled == model.recalled
            assert seat.pinned_count == sum(call.pin is not None for call in model.calls)
            assert isclose(seat.average_s, model.average_s, rel_tol=1e-6)

    @invariant()
    def calls_that_never_came_back_begin_in_the_order_of_their_coming(self) -> None:
        """In the common line, and in each worker's own."""
        begun = [call for call in self.begun if call.id not in self.put_back]
        for pin in {call.pin for call in begun}:
            numbers = [call.id for call in begun if call.pin is pin]
            assert numbers == sorted(numbers)

    @invariant()
    def pinned_calls_of_a_worker_begin_in_the_order_of_their_coming(self) -> None:
        """Even those that came back: what is running or sent ahead, and then its line."""
        for model in self.seats:
            numbers = [call.id for call in model.calls + model.line if call.pin is not None]
            assert numbers == sorted(numbers)

    @invariant()
    def the_counts_are_exact(self) -> None:
        prefetched = sum(len(model.prefetched) for model in self.seats)
        idle = sum(model.phase is Phase.READY for model in self.seats)
        waiting = self.waiting()
        assert self.scheduler.prefetched == prefetched
        assert self.scheduler.waiting == waiting
        assert self.scheduler.idle == idle
        full = self.queue_max is not None and not idle and waiting >= self.queue_max
        assert self.scheduler.is_full() is full


@pytest.mark.unmeasured
@pytest.mark.timeout(180)
def test_the_scheduler_does_what_the_model_does() -> None:
    """No call lost or had twice, first come first served, nobody waits while a worker idles."""
    run_state_machine_as_test(
        SchedulerMachine, settings=settings(max_examples=200, stateful_step_count=50, deadline=None)
    )


# -- a sentence each -----------------------------------------------------------------------------


def test_the_worker_used_last_is_used_first() -> None:
    """Its caches are warm."""
    one, two, three = ready_seat(), ready_seat(), ready_seat()
    scheduler = scheduler_with(one, two, three)
    scheduler.submit(FakeCall(1))
    assert dispatch(scheduler) == [(three, 1)]
    three.settle(1, 1.0)
    scheduler.update(three, 1.0)
    scheduler.submit(FakeCall(2))
    assert dispatch(scheduler, 1.0) == [(three, 2)]


def test_every_idle_worker_gets_a_call_before_any_gets_two() -> None:
    seats = [ready_seat(average_s=SHORT_S) for _ in range(3)]
    scheduler = scheduler_with(*seats)
    for call in calls(1, 2, 3, 4):
        scheduler.submit(call)
    leased = dispatch(scheduler)
    assert {seat for seat, _ in leased[:3]} == set(seats)
    assert [number for _, number in leased] == [1, 2, 3, 4]


def test_calls_are_prefetched_up_to_the_maximum_and_the_rest_stays_in_line() -> None:
    scheduler = scheduler_with(ready_seat(average_s=SHORT_S))
    for call in calls(*range(14)):
        scheduler.submit(call)
    assert len(dispatch(scheduler)) == 1 + PREFETCH_MAX
    assert [call.id for call in scheduler.queued()] == [9, 10, 11, 12, 13]
    assert (scheduler.prefetched, scheduler.waiting) == (8, 13)


def test_without_prefetch_a_worker_has_one_call() -> None:
    scheduler = scheduler_with(ready_seat(average_s=SHORT_S), prefetch=False)
    for call in calls(1, 2):
        scheduler.submit(call)
    assert len(dispatch(scheduler)) == 1


def test_a_call_that_is_not_prefetchable_waits_for_an_idle_worker_and_holds_its_place() -> None:
    """Those behind it do not overtake it."""
    seat = ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(seat)
    for call in [FakeCall(1), FakeCall(2, prefetchable=False), FakeCall(3)]:
        scheduler.submit(call)
    assert dispatch(scheduler) == [(seat, 1)]
    seat.settle(1, SHORT_S)
    scheduler.update(seat, SHORT_S)
    assert dispatch(scheduler, SHORT_S) == [(seat, 2)]


def test_calls_put_back_are_first_in_line_in_their_order() -> None:
    scheduler = scheduler_with()
    for call in calls(1, 2):
        scheduler.submit(call)
    scheduler.put_back(calls(8, 9))
    scheduler.put_back(iter(calls(7)))
    assert [call.id for call in scheduler.queued()] == [7, 8, 9, 1, 2]


def test_a_withdrawn_call_is_out_of_line_once() -> None:
    scheduler = scheduler_with()
    one, two = calls(1, 2)
    scheduler.submit(one)
    scheduler.submit(two)
    assert scheduler.withdraw(one)
    assert not scheduler.withdraw(one)
    assert scheduler.clear() == [two]
    assert scheduler.waiting == 0


def test_prefetched_calls_count_as_waiting_for_the_bound_of_the_queue() -> None:
    seat = ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(seat, queue_max=2)
    for call in calls(1, 2, 3):
        assert not scheduler.is_full()
        scheduler.submit(call)
        dispatch(scheduler)
    assert scheduler.prefetched == 2
    assert scheduler.is_full()


def test_with_no_room_to_wait_a_call_needs_an_idle_worker() -> None:
    seat = ready_seat()
    scheduler = scheduler_with(seat, queue_max=0)
    assert not scheduler.is_full()
    scheduler.submit(FakeCall(1))
    dispatch(scheduler)
    assert scheduler.is_full()


def test_a_tainted_worker_is_chosen_last() -> None:
    tainted, sound = ready_seat(tainted_until=5.0), ready_seat()
    scheduler = scheduler_with(sound, tainted)
    for call in calls(1, 2):
        scheduler.submit(call)
    assert dispatch(scheduler) == [(sound, 1), (tainted, 2)]


def test_a_tainted_worker_is_chosen_before_a_call_waits_behind_another() -> None:
    tainted, busy = ready_seat(tainted_until=5.0), ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(busy, tainted)
    for call in calls(1, 2):
        scheduler.submit(call)
    assert dispatch(scheduler) == [(busy, 1), (tainted, 2)]


def test_each_taint_ends_at_its_own_time() -> None:
    """Even if a worker that is tainted for longer was filed before it."""
    longer, shorter = ready_seat(tainted_until=9.0), ready_seat(tainted_until=3.0)
    scheduler = scheduler_with(longer, shorter)
    for call in calls(1, 2):
        scheduler.submit(call)
    assert dispatch(scheduler, 3.0) == [(shorter, 1), (longer, 2)]


def test_a_running_call_that_turns_out_long_has_those_behind_it_asked_back() -> None:
    seat = ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(seat)
    for call in calls(1, 2, 3):
        scheduler.submit(call)
    dispatch(scheduler, 10.0)
    assert scheduler.overdue(10.0 + OVERDUE_S * 0.9) == []
    assert scheduler.overdue(10.0 + OVERDUE_S * 1.1) == [(seat, (2, 3))]
    assert scheduler.overdue(10.0 + OVERDUE_S * 1.2) == []


def test_calls_that_came_back_are_not_sent_behind_the_same_long_call_again() -> None:
    """Nor is a new one: a short call must not wait behind a long one."""
    seat = ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(seat)
    for call in calls(1, 2):
        scheduler.submit(call)
    dispatch(scheduler, 10.0)
    now = 10.0 + OVERDUE_S * 2
    assert scheduler.overdue(now) == [(seat, (2,))]
    back = seat.settle(2, now, ran=False)
    assert back is not None
    seat.answered()
    scheduler.put_back([back])
    scheduler.update(seat, now)
    scheduler.submit(FakeCall(3))
    assert dispatch(scheduler, now) == []
    seat.settle(1, now)
    scheduler.update(seat, now)
    assert dispatch(scheduler, now)[0] == (seat, 2)


def test_an_idle_worker_has_calls_asked_back_from_a_busy_one() -> None:
    busy, other = ready_seat(average_s=SHORT_S), ready_seat()
    scheduler = scheduler_with(busy)
    for call in calls(1, 2):
        scheduler.submit(call)
    dispatch(scheduler)
    assert scheduler.steal() is None
    scheduler.update(other, 0.0)
    assert scheduler.steal() == (busy, (2,))
    assert scheduler.steal() is None


def test_nothing_is_asked_back_for_an_idle_worker_while_others_are_in_line() -> None:
    busy, other = ready_seat(average_s=SHORT_S), ready_seat()
    scheduler = scheduler_with(busy)
    for call in calls(1, 2):
        scheduler.submit(call)
    dispatch(scheduler)
    scheduler.update(other, 0.0)
    scheduler.submit(FakeCall(3))
    assert scheduler.steal() is None


@pytest.mark.parametrize("end", ["drain", "stop", "gone"])
def test_a_worker_that_ends_gets_no_call(end: str) -> None:
    idle, busy = ready_seat(), ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(busy)
    scheduler.submit(FakeCall(1))
    dispatch(scheduler)
    scheduler.update(idle, 0.0)
    for seat in (idle, busy):
        getattr(seat, end)()
        scheduler.update(seat, 0.0)
    scheduler.submit(FakeCall(2))
    assert dispatch(scheduler) == []
    assert scheduler.idle == 0


def test_prefetched_calls_of_a_worker_that_is_gone_no_longer_count() -> None:
    seat = ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(seat)
    for call in calls(1, 2, 3):
        scheduler.submit(call)
    dispatch(scheduler)
    assert scheduler.waiting == 2
    seat.gone()
    scheduler.update(seat, 0.0)
    assert scheduler.waiting == 0


# -- the cost -------------------------------------------------------------------------------------


class Counted:
    """Counts every look at an attribute of its instances."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        Counted.looks += 1
        return super().__getattribute__(name)


class CountedCall(Counted, FakeCall):
    pass


class CountedSeat(Counted, Seat[FakeCall]):
    pass


def looks_of_one_call(seat_count: int, waiting: int, *, tainted: bool) -> int:
    """Attributes looked at while one call comes, one goes, one ends and the next one begins."""
    scheduler: Scheduler[FakeCall] = Scheduler()
    seats = [CountedSeat(tainted_until=50.0 if tainted else 0.0) for _ in range(seat_count)]
    for number, seat in enumerate(seats):
        seat.ready()
        scheduler.update(seat, 0.0)
        scheduler.submit(CountedCall(-number - 1))
    dispatch(scheduler)
    queue = [CountedCall(number) for number in range(waiting)]
    for call in queue:
        scheduler.submit(call)
    Counted.looks = 0
    now = 1.0
    scheduler.submit(CountedCall(waiting))
    assert scheduler.withdraw(queue[waiting // 2])
    for seat in (seats[0], seats[-1]):
        seat.settle(next(iter(seat.calls)), now)
        scheduler.update(seat, now)
        pair = scheduler.next(now)
        assert pair is not None
        assert pair[0] is seat
    assert scheduler.next(now) is None
    assert not scheduler.is_full()
    assert scheduler.steal() is None
    return Counted.looks


@pytest.mark.parametrize("tainted", [False, True])
def test_the_cost_of_a_call_does_not_grow_with_the_pool_or_the_line(tainted: bool) -> None:
    """Counted, not timed: 10,000 calls in line at 1,000 workers cost what 10 at 2 do."""
    assert looks_of_one_call(1000, 10_000, tainted=tainted) == looks_of_one_call(
        2, 10, tainted=tainted
    )
