"""Pinned calls and hints in the scheduler, a sentence each: order, fairness, and what it costs."""

from __future__ import annotations

from collections import Counter, deque
from random import Random

import pytest
from _scheduler_kit import SHORT_S, FakeCall, calls, dispatch, ready_seat, scheduler_with
from test_scheduler import Counted, CountedCall, CountedSeat

from snakepit.pool._scheduler import Scheduler
from snakepit.pool._seat import OVERDUE_S, PREFETCH_MAX, Seat


def pin(scheduler: Scheduler[FakeCall], seat: Seat[FakeCall], *numbers: int) -> list[FakeCall]:
    pinned = calls(*numbers)
    for call in pinned:
        scheduler.pin(call, seat, 0.0)
    return pinned


def end_running(scheduler: Scheduler[FakeCall], seat: Seat[FakeCall], now: float) -> int:
    """The running call of this worker ends; returns its number."""
    number = next(iter(seat.calls))
    seat.settle(number, now)
    scheduler.update(seat, now)
    return number


def test_a_pinned_call_waits_for_its_worker_although_another_one_idles() -> None:
    busy, idle = ready_seat(), ready_seat()
    scheduler = scheduler_with(idle, busy)
    pin(scheduler, busy, 1, 2)
    assert dispatch(scheduler) == [(busy, 1)]
    assert scheduler.idle == 1
    end_running(scheduler, busy, 1.0)
    assert dispatch(scheduler, 1.0) == [(busy, 2)]


def test_a_long_line_for_one_worker_holds_up_nobody_elsewhere() -> None:
    """The original dequeued in order whatever the worker, and ran the call elsewhere, or none."""
    wanted, other = ready_seat(), ready_seat()
    scheduler = scheduler_with(other, wanted)
    pin(scheduler, wanted, *range(1, 101))
    for number in (101, 102):
        scheduler.submit(FakeCall(number))
    assert sorted(dispatch(scheduler), key=lambda pair: pair[1]) == [(wanted, 1), (other, 101)]
    end_running(scheduler, other, 1.0)
    assert dispatch(scheduler, 1.0) == [(other, 102)]


def test_a_worker_that_falls_idle_takes_the_older_of_the_two_first_ones() -> None:
    seat = ready_seat()
    scheduler = scheduler_with(seat)
    order = []
    for number in range(1, 7):
        if number in (2, 5):
            pin(scheduler, seat, number)
        else:
            scheduler.submit(FakeCall(number))
    for step in range(1, 7):
        order += [number for _, number in dispatch(scheduler, float(step))]
        end_running(scheduler, seat, float(step))
    assert order == [1, 2, 3, 4, 5, 6]


def test_pinned_calls_are_sent_ahead_in_their_order() -> None:
    seat = ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(seat)
    pin(scheduler, seat, *range(1, 13))
    assert dispatch(scheduler) == [(seat, number) for number in range(1, 2 + PREFETCH_MAX)]
    assert (scheduler.prefetched, scheduler.waiting) == (8, 11)


def test_pinned_calls_are_not_asked_back_for_a_worker_that_may_not_run_them() -> None:
    """Else they would go back and forth for as long as the running call takes."""
    busy, idle = ready_seat(average_s=SHORT_S), ready_seat()
    scheduler = scheduler_with(busy)
    pin(scheduler, busy, 1, 2, 3)
    scheduler.submit(FakeCall(4))
    dispatch(scheduler)
    assert list(busy.calls) == [1, 2, 3, 4]
    scheduler.update(idle, 0.0)
    assert scheduler.steal() == (busy, (4,))
    assert scheduler.steal() is None


def test_pinned_calls_behind_a_long_one_come_back_to_their_own_line() -> None:
    """So that their time to wait can be over; they are sent again when the long one has ended."""
    seat = ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(seat)
    pin(scheduler, seat, 1, 2, 3)
    dispatch(scheduler, 10.0)
    pin(scheduler, seat, 4)
    now = 10.0 + 2 * OVERDUE_S
    assert scheduler.overdue(now) == [(seat, (2, 3))]
    back = [seat.settle(number, now, ran=False) for number in list(seat.calls)[1:]]
    seat.answered()
    scheduler.put_back([call for call in back if call is not None])
    scheduler.update(seat, now)
    assert dispatch(scheduler, now) == []
    assert list(seat.line) == [2, 3, 4]
    end_running(scheduler, seat, now)
    assert dispatch(scheduler, now)[0] == (seat, 2)


def test_an_older_call_that_cannot_be_sent_ahead_is_not_overtaken_by_a_pinned_one() -> None:
    seat = ready_seat(average_s=SHORT_S)
    scheduler = scheduler_with(seat)
    scheduler.submit(FakeCall(1))
    scheduler.submit(FakeCall(2, prefetchable=False))
    dispatch(scheduler)
    pin(scheduler, seat, 3)
    assert dispatch(scheduler) == []
    end_running(scheduler, seat, SHORT_S)
    assert dispatch(scheduler, SHORT_S) == [(seat, 2)]


def test_pinned_calls_count_for_the_bound_of_the_queue() -> None:
    busy, idle = ready_seat(), ready_seat()
    scheduler = scheduler_with(busy, queue_max=2)
    pin(scheduler, busy, 1)
    dispatch(scheduler)
    pin(scheduler, busy, 2)
    assert not scheduler.is_full_for(busy)
    pin(scheduler, busy, 3)
    assert scheduler.is_full_for(busy)
    assert scheduler.is_full()
    assert scheduler.is_full_for(None)
    scheduler.update(idle, 0.0)
    assert not scheduler.is_full()
    assert not scheduler.is_full_for(idle)
    assert scheduler.is_full_for(busy)


def test_a_hint_takes_its_worker_if_that_idles_and_any_other_if_not() -> None:
    one, two, three = ready_seat(), ready_seat(tainted_until=99.0), ready_seat()
    scheduler = scheduler_with(one, two, three)
    for number, hint in ((1, one), (2, two), (3, one)):
        call = FakeCall(number)
        call.hint = hint
        scheduler.submit(call)
    assert dispatch(scheduler) == [(one, 1), (two, 2), (three, 3)]


def test_no_call_starves_whoever_floods_whom() -> None:
    """Callers that always have a next call: pinned ones and others all get on, alike in the long run."""
    random = Random(1)
    seats = [ready_seat() for _ in range(4)]
    scheduler = scheduler_with(*seats)
    numbers = iter(range(1, 10**9))
    owner: dict[int, str] = {}
    served: Counter[str] = Counter()

    def ask(who: str) -> None:
        call = FakeCall(next(numbers))
        owner[call.id] = who
        if who.startswith("any"):
            scheduler.submit(call)
        else:
            scheduler.pin(call, seats[int(who[4:])], now)

    now = 0.0
    callers = [f"any {number}" for number in range(6)] + [f"pin {number}" for number in range(4)]
    for who in callers * 5:
        ask(who)
    for step in range(4000):
        now = float(step)
        dispatch(scheduler, now)
        who = owner[end_running(scheduler, random.choice([s for s in seats if s.calls]), now)]
        served[who] += 1
        ask(who)
    assert min(served[who] for who in callers) > 0.8 * max(served[who] for who in callers)


def test_ten_thousand_sessions_over_eight_workers_are_served_in_turns() -> None:
    """Each has three calls waiting: when the work is half done, every session has had one or two."""
    count, seats = 10_000, [ready_seat() for _ in range(8)]
    scheduler = scheduler_with(*seats)
    for number in range(3 * count):
        session = number % count
        scheduler.pin(FakeCall(number + 1), seats[session % 8], 0.0)
    served: Counter[int] = Counter()
    last: dict[int, int] = {}
    for step in range(count * 3 // 2):
        dispatch(scheduler, float(step))
        number = end_running(scheduler, seats[step % 8], float(step)) - 1
        assert last.get(number % count, -1) < number, "out of order"
        last[number % count] = number
        served[number % count] += 1
    assert set(served.values()) <= {1, 2}
    assert len(served) == count


def looks_of_one_pinned_call(seat_count: int, waiting: int) -> int:
    """Attributes looked at while one call comes, one goes, one ends and the next one begins."""
    scheduler: Scheduler[FakeCall] = Scheduler()
    seats = [CountedSeat() for _ in range(seat_count)]
    for seat in seats:
        seat.ready()
        scheduler.update(seat, 0.0)
    lines: list[deque[CountedCall]] = [deque() for _ in seats]
    for number in range(waiting):
        call = CountedCall(number + 1)
        lines[number % seat_count].append(call)
        scheduler.pin(call, seats[number % seat_count], 0.0)
    dispatch(scheduler)
    Counted.looks = 0
    now = 1.0
    scheduler.pin(CountedCall(waiting + 1), seats[0], now)
    assert scheduler.withdraw(lines[0][2])
    for seat in (seats[0], seats[-1]):
        seat.settle(next(iter(seat.calls)), now)
        scheduler.update(seat, now)
        pair = scheduler.next(now)
        assert pair is not None
        assert pair[0] is seat
    assert scheduler.next(now) is None
    assert not scheduler.is_full_for(seats[0])
    assert scheduler.steal() is None
    return Counted.looks


@pytest.mark.parametrize("seat_count", [2, 1000])
def test_the_cost_of_a_pinned_call_does_not_grow_with_the_pool_or_its_lines(
    seat_count: int,
) -> None:
    """Counted, not timed."""
    assert looks_of_one_pinned_call(seat_count, 20_000) == looks_of_one_pinned_call(2, 20)
