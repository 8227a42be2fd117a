"""A seat: its phases go right, its calls stay in the order of sending, its room is exact."""

from __future__ import annotations

import pytest
from _scheduler_kit import SHORT_S, FakeCall, calls, ready_seat
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.pool._seat import (
    LATENCY_NOTED_MAX_S,
    OVERDUE_S,
    PREFETCH_AVERAGE_MAX_S,
    PREFETCH_MAX,
    PREFETCH_S,
    Phase,
    Seat,
)

RANK = {
    Phase.STARTING: 0,
    Phase.READY: 1,
    Phase.LEASED: 1,
    Phase.DRAINING: 2,
    Phase.STOPPING: 3,
    Phase.GONE: 4,
}


def leased(*numbers: int, average_s: float = SHORT_S, now: float = 1.0) -> Seat[FakeCall]:
    """A seat with these calls, the first of them begun at `now`."""
    seat = ready_seat(average_s=average_s)
    for call in calls(*numbers):
        seat.lease(call, now)
    return seat


OPERATIONS = ("ready", "lease", "settle", "recall", "answered", "drain", "stop", "gone")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(OPERATIONS), max_size=30))
def test_phases_only_go_right(operations: list[str]) -> None:
    """Only ready and leased alternate, and leased is: has a call."""
    seat: Seat[FakeCall] = Seat()
    for number, operation in enumerate(operations):
        before = seat.phase
        if operation == "ready" and before is Phase.STARTING:
            seat.ready()
        elif operation == "lease" and before in (Phase.READY, Phase.LEASED):
            seat.lease(FakeCall(number), float(number))
        elif operation == "settle" and seat.calls:
            seat.settle(next(iter(seat.calls)), float(number))
        elif operation in ("recall", "answered", "drain", "stop", "gone"):
            getattr(seat, operation)()
        assert RANK[seat.phase] >= RANK[before]
        if operation == "drain":
            assert RANK[seat.phase] >= RANK[Phase.DRAINING]
        if operation == "stop":
            assert RANK[seat.phase] >= RANK[Phase.STOPPING]
        if seat.phase is Phase.READY:
            assert not seat.calls
        if seat.phase is Phase.LEASED:
            assert seat.calls
        if seat.phase is Phase.GONE:
            assert not seat.calls
            assert not seat.recalled
        assert seat.recalled <= set(seat.calls)


@pytest.mark.parametrize("end", ["drain", "stop", "gone"])
def test_a_seat_that_ends_takes_no_call(end: str) -> None:
    seat = ready_seat(average_s=SHORT_S)
    getattr(seat, end)()
    assert not seat.room()
    with pytest.raises(AssertionError):
        seat.lease(FakeCall(1), 0.0)


def test_a_seat_that_starts_takes_no_call() -> None:
    seat: Seat[FakeCall] = Seat()
    assert not seat.room()
    with pytest.raises(AssertionError):
        seat.lease(FakeCall(1), 0.0)


@pytest.mark.parametrize("end", ["drain", "stop"])
def test_the_calls_of_an_ending_seat_may_still_end(end: str) -> None:
    """And it does not turn ready again when the last one has."""
    seat = leased(1, 2)
    getattr(seat, end)()
    phase = seat.phase
    for number in (1, 2):
        call = seat.settle(number, 2.0)
        assert call is not None
        assert call.id == number
    assert seat.phase is phase
    assert seat.finished_count == 3


def test_a_gone_seat_gives_its_calls_back_in_the_order_of_sending() -> None:
    seat = leased(3, 1, 2)
    assert [call.id for call in seat.gone()] == [3, 1, 2]
    assert seat.gone() == []
    assert seat.phase is Phase.GONE
    seat.stop()
    assert seat.phase is Phase.GONE


def test_the_first_call_runs_and_the_others_are_prefetched() -> None:
    seat = leased(1, 2, 3)
    assert seat.prefetched_count == 2
    seat.settle(1, 1.5)
    assert seat.prefetched_count == 1
    assert seat.head_since == 1.5
    seat.settle(3, 1.6, ran=False)
    assert seat.head_since == 1.5
    assert seat.prefetched_count == 0
    seat.settle(2, 1.7)
    assert seat.prefetched_count == 0
    assert seat.phase is Phase.READY


def test_a_call_that_is_not_here_is_none_and_changes_nothing() -> None:
    seat = leased(1)
    assert seat.settle(2, 9.0) is None
    assert (list(seat.calls), seat.finished_count, seat.head_since) == ([1], 1, 1.0)


def test_room_is_for_exactly_so_many_calls() -> None:
    seat = leased(0)
    for number in range(1, PREFETCH_MAX + 1):
        assert seat.room()
        seat.lease(FakeCall(number), 1.0)
    assert not seat.room()
    assert seat.prefetched_count == PREFETCH_MAX
    seat.settle(0, 1.0)
    assert seat.room()


def test_an_idle_seat_has_no_room_behind_anything() -> None:
    assert not ready_seat(average_s=SHORT_S).room()


def test_there_is_no_room_before_any_call_has_finished() -> None:
    seat = ready_seat()
    seat.lease(FakeCall(1), 0.0)
    assert not seat.room()


@pytest.mark.parametrize(
    ("average_s", "room"),
    [(PREFETCH_AVERAGE_MAX_S * 0.999, True), (PREFETCH_AVERAGE_MAX_S, False), (1.0, False)],
)
def test_there_is_room_only_behind_calls_shorter_than_the_limit(
    average_s: float, room: bool
) -> None:
    assert (leased(1, average_s=average_s).room() > 0) is room


@pytest.mark.parametrize("average_s", [0.0004, 0.0006, 0.00099])
def test_there_is_room_only_where_what_is_there_takes_little_time(average_s: float) -> None:
    seat = leased(0, average_s=average_s)
    for number in range(1, PREFETCH_MAX + 1):
        if number * average_s >= PREFETCH_S:
            break
        assert seat.room()
        seat.lease(FakeCall(number), 1.0)
    assert not seat.room()
    assert seat.prefetched_count == {0.0004: 8, 0.0006: 6, 0.00099: 4}[average_s]


@pytest.mark.parametrize("position", [0, 1])
def test_there_is_no_room_behind_a_call_that_is_not_prefetchable(position: int) -> None:
    seat = ready_seat(average_s=SHORT_S)
    for number in range(2):
        seat.lease(FakeCall(number, prefetchable=number != position), 0.0)
    assert not seat.room()


def test_there_is_no_room_while_a_recall_is_unanswered() -> None:
    seat = leased(1, 2)
    seat.recall()
    assert not seat.room()
    seat.answered()
    assert seat.room()


def test_a_recall_asks_for_what_is_prefetched_and_for_each_call_once() -> None:
    seat = leased(1, 2, 3)
    assert seat.recall() == (2, 3)
    assert seat.recall() == ()
    seat.answered()
    assert seat.recall() == (2, 3)


def test_a_recalled_call_that_has_settled_is_no_longer_asked_for() -> None:
    seat = leased(1, 2, 3)
    seat.recall()
    seat.settle(2, 1.0, ran=False)
    assert seat.recalled == {3}


def test_the_average_moves_with_the_calls_that_ran_and_only_with_them() -> None:
    seat = ready_seat()
    times = [(1, 0.001, True), (2, 0.0035, True), (3, 5.0, False), (4, 5.0, True)]
    for number, _, _ in times:
        seat.lease(FakeCall(number), 0.0)
    averages = []
    for number, now, ran in times:
        seat.settle(number, now, ran=ran)
        averages.append(seat.average_s)
    first = 0.001
    second = first + 0.2 * (0.0025 - first)
    assert averages == pytest.approx([first, second, second, second * 0.8])
    assert seat.finished_count == 3


def test_the_average_counts_from_when_the_call_came_first_not_from_its_sending() -> None:
    seat = ready_seat()
    seat.lease(FakeCall(1), 0.0)
    seat.lease(FakeCall(2), 0.0)
    seat.settle(1, 0.002)
    seat.settle(2, 0.004)
    assert seat.average_s == pytest.approx(0.002)


def test_what_its_worker_says_a_call_took_counts_and_the_rest_is_the_link() -> None:
    """The first call, and those after a pause: behind another one the way there has gone by before."""
    seat = ready_seat()
    seat.lease(FakeCall(1), 0.0)
    seat.lease(FakeCall(2), 0.0)
    seat.settle(1, 0.010, took_us=400)
    assert (seat.average_s, seat.latency_s) == pytest.approx((0.0004, 0.0096))
    seat.settle(2, 0.011, took_us=900)
    assert (seat.average_s, seat.latency_s) == pytest.approx((0.0005, 0.0096))
    seat.lease(FakeCall(3), 1.0)
    seat.settle(3, 1.005, took_us=500)
    assert (seat.average_s, seat.latency_s) == pytest.approx((0.0005, 0.00858))
    seat.lease(FakeCall(4), 2.0)
    assert not seat.is_overdue(2.0 + seat.latency_s + 0.9 * OVERDUE_S)
    assert seat.is_overdue(2.0 + seat.latency_s + 1.1 * OVERDUE_S)


@pytest.mark.parametrize(
    ("took_us", "took_s", "latency_s"),
    [(-5, 0.0, 0.002), (10**30, 0.002, 0.0), (0, 0.0, 0.002), (None, 0.002, 0.0)],
)
def test_a_worker_that_says_nonsense_is_believed_as_far_as_it_can_be_true(
    took_us: int | None, took_s: float, latency_s: float
) -> None:
    seat = ready_seat()
    seat.lease(FakeCall(1), 1.0)
    seat.settle(1, 1.002, took_us=took_us)
    assert (seat.average_s, seat.latency_s) == pytest.approx((took_s, latency_s))


def test_however_slow_the_link_is_a_long_call_is_noticed() -> None:
    seat = ready_seat()
    seat.lease(FakeCall(1), 0.0)
    seat.settle(1, 60.0, took_us=0)
    assert seat.latency_s == LATENCY_NOTED_MAX_S


def test_one_long_call_does_not_end_the_sending_ahead_but_a_few_in_a_row_do() -> None:
    """A call that was held up for a moment says nothing of the next ones."""
    seat = ready_seat(average_s=SHORT_S / 10)
    rooms = []
    for number in range(1, 6):
        seat.lease(FakeCall(number), 0.0)
        rooms.append(seat.room() > 0)
        seat.settle(number, 5.0)
    assert rooms == [True, True, False, False, False]
