"""The table of sessions and the choice of a home, under a clock of the test's own; no worker, no loop."""

from __future__ import annotations

import sys
from collections import Counter
from random import Random
from typing import Any

import pytest
from _scheduler_kit import FakeCall, ready_seat

from snakepit import (
    PoolSaturatedError,
    SessionBusyError,
    SessionLostError,
    SessionNotFoundError,
    Sessions,
)
from snakepit.pool._deadlines import Deadlines
from snakepit.pool._homes import Homes
from snakepit.pool._scheduler import Scheduler
from snakepit.pool._seat import Seat
from snakepit.pool._sessions import SessionRecord, SessionTable


class SessionCall(FakeCall):
    """As much of a call as the table looks at."""

    session: SessionRecord | None = None
    retries_left = 3
    window = 0


class House:
    """A table with its scheduler, its clock, and workers that do what they are told at once."""

    def __init__(self, workers: int = 2, **options: Any) -> None:
        self.now = 100.0
        self.numbers = iter(range(1, 10**9))
        self.scheduler: Scheduler[Any] = Scheduler(prefetch=False)
        self.alarms = Deadlines()
        self.forgotten: list[tuple[str, str]] = []
        self.table = SessionTable(
            Sessions(**options),
            self.scheduler,
            self.alarms,
            lambda: self.now,
            lambda seat, session: self.forgotten.append((seat.name, session)),
        )
        self.seats = [self.add(f"w{number}") for number in range(1, workers + 1)]

    def add(self, name: str) -> Seat[Any]:
        seat: Seat[Any] = ready_seat()
        seat.name = name
        self.scheduler.update(seat, self.now)
        self.table.worker_ready(seat, self.now)
        return seat

    def ask(self, session: str | SessionRecord) -> SessionCall:
        """A call comes; everything that can be sent is."""
        call = SessionCall(next(self.numbers))
        self.table.begin(call, *self.table.place(session), self.now)
        self.dispatch()
        return call

    def dispatch(self) -> None:
        while (pair := self.scheduler.next(self.now)) is not None:
            if pair[1].session is not None:
                self.table.sent(pair[1], pair[0])

    def place_of(self, call: FakeCall) -> Seat[Any] | None:
        return next((seat for seat in self.seats if call.id in seat.calls), None)

    def end(self, call: SessionCall) -> str | None:
        """The call ends where it is; the name of the worker."""
        seat = self.place_of(call)
        if seat is None:
            assert self.scheduler.withdraw(call)
        else:
            seat.settle(call.id, self.now)
            self.scheduler.update(seat, self.now)
        self.table.settled(call, seat)
        self.dispatch()
        return None if seat is None else seat.name

    def use(self, session: str | SessionRecord) -> str | None:
        """A call that is over at once; where it ran."""
        return self.end(self.ask(session))

    def die(self, seat: Seat[Any]) -> list[SessionCall]:
        """The worker dies; what it had fails, what waited for it is returned."""
        left = seat.gone()
        self.scheduler.update(seat, self.now)
        self.seats.remove(seat)
        lost: list[Any] = self.table.worker_gone(seat, self.now)
        for call in [*left, *lost]:
            if call.session is not None:
                self.table.settled(call, None)
        self.dispatch()
        return lost

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.alarms._ring(self.now)


# -- homes -----------------------------------------------------------------------------------------


def test_the_worker_with_the_fewest_sessions_is_the_one_that_a_search_finds() -> None:
    """Through thousands of changes: workers come and go, sessions too."""
    random, homes = Random(5), Homes()
    counts: Counter[Seat[Any]] = Counter()
    for _ in range(5000):
        what = random.random()
        if what < 0.1:
            seat: Seat[Any] = ready_seat()
            counts[seat] = 0
            homes.add(seat)
        elif what < 0.17 and counts:
            seat = random.choice(list(counts))
            del counts[seat]
            homes.remove(seat)
            homes.remove(seat)
            homes.count(seat, 1)
        elif what < 0.8 and counts:
            seat = random.choice(list(counts))
            change = random.choice([1, 1, -1]) if counts[seat] else 1
            counts[seat] += change
            homes.count(seat, change)
        fewest = homes.fewest()
        assert (fewest is None) is (not counts)
        assert fewest is None or counts[fewest] == min(counts.values())


@pytest.mark.unmeasured
def test_ten_thousand_sessions_are_spread_evenly_and_stay_so() -> None:
    house = House(8, max=20_000, ttl=None, affinity="strict_queue")
    for number in range(10_000):
        house.use(f"s{number}")
    assert {house.table.count_at(seat) for seat in house.seats} == {1250}
    random = Random(3)
    for number in random.sample(range(10_000), 4000):
        record = house.table.find_to_end(f"s{number}")
        assert record is not None
        house.table.end(record)
        house.use(f"t{number}")
    counts = [house.table.count_at(seat) for seat in house.seats]
    assert (sum(counts), max(counts) - min(counts)) == (10_000, min(1, max(counts) - min(counts)))


def test_a_new_session_goes_where_there_is_time() -> None:
    """Rather than to the worker with the fewest, if that one is busy; or has just crashed."""
    house = House(2, affinity="strict_queue")
    one, two = house.seats
    for number in range(3):
        house.use(f"s{number}")
    busy = house.ask("s1")
    assert house.place_of(busy) is not None
    few = house.place_of(busy)
    other = one if few is two else two
    assert house.table.count_at(few) < house.table.count_at(other) if few is not None else False
    assert house.use("new") == other.name
    house.end(busy)
    assert house.use("next") == (few.name if few else "")


# -- one session -----------------------------------------------------------------------------------


@pytest.mark.parametrize("affinity", ["hint", "strict_queue", "strict_fail_fast"])
def test_a_session_goes_to_one_worker_as_long_as_that_has_time(affinity: str) -> None:
    house = House(3, affinity=affinity)
    assert len({house.use("a") for _ in range(20)}) == 1
    assert len(house.table) == 1


def test_a_hint_moves_when_its_worker_is_busy_and_the_old_one_forgets() -> None:
    house = House(2)
    home = house.use("a")
    running = house.ask("a")
    moved = house.ask("a")
    there = house.place_of(moved)
    assert there is not None
    assert there.name != home
    assert house.forgotten == [(home, "a")]
    assert house.end(moved) == there.name
    assert house.end(running) == home
    assert house.forgotten == [(home, "a")] * 2, "what the running call left there as well"
    assert house.use("a") == there.name


def test_strict_calls_wait_for_their_worker_and_fail_fast_ones_do_not() -> None:
    house = House(2)
    for affinity in ("strict_queue", "strict_fail_fast"):
        record = house.table.open(affinity, affinity, None)
        house.use(record)
        first = house.ask(record)
        if affinity == "strict_fail_fast":
            with pytest.raises(SessionBusyError, match="strict_fail_fast"):
                house.ask(record)
        else:
            second = house.ask(record)
            assert house.place_of(second) is None
            assert house.scheduler.idle == 1
            home = house.end(first)
            assert house.end(second) == home
            continue
        house.end(first)
        house.use(record)


def test_calls_of_a_strict_session_are_never_repeated_elsewhere() -> None:
    house = House(2)
    assert house.ask(house.table.open("a", "strict_queue", None)).retries_left == 0
    assert house.ask("b").retries_left == 3


# -- the end ---------------------------------------------------------------------------------------


def test_the_end_is_told_to_the_worker_that_had_a_call_and_to_no_other() -> None:
    house = House(2)
    record = house.table.open("a", "strict_queue", None)
    house.table.end(record)
    assert house.forgotten == []
    record = house.table.open("a", "strict_queue", None)
    home = house.use(record)
    house.table.end(record)
    house.table.end(record)
    assert house.forgotten == [(home, "a")]
    assert len(house.table) == 0
    assert [house.table.count_at(seat) for seat in house.seats] == [0, 0]


def test_a_session_that_nobody_uses_expires_and_can_be_made_anew() -> None:
    house = House(2, ttl=10.0, affinity="strict_queue")
    home = house.use("a")
    for _ in range(5):
        house.pass_time(9.9)
        assert house.use("a") == home
    assert house.forgotten == []
    house.pass_time(10.0)
    assert house.forgotten == [(home, "a")]
    assert len(house.table) == 0
    with pytest.raises(SessionNotFoundError, match=r"'a'.*is not open"):
        house.table.find_to_end("a")
    house.use("a")
    assert len(house.table) == 1


def test_a_session_with_a_call_does_not_expire_and_does_so_after_it() -> None:
    house = House(1, ttl=10.0)
    running = house.ask("a")
    waiting = house.ask("a")
    house.pass_time(50.0)
    house.end(running)
    house.pass_time(50.0)
    assert len(house.table) == 1
    house.end(waiting)
    house.pass_time(9.9)
    assert len(house.table) == 1
    house.pass_time(0.1)
    assert len(house.table) == 0


def test_the_session_of_a_block_that_expires_says_so_to_its_later_calls() -> None:
    house = House(1)
    record = house.table.open("a", "strict_queue", 10.0)
    house.pass_time(10.0)
    with pytest.raises(SessionNotFoundError, match=r"'a': it was not used for 10 s"):
        house.ask(record)
    other = house.table.open("a", "strict_queue", None)
    house.pass_time(10_000.0)
    house.use(other)
    house.table.end(record)
    assert len(house.table) == 1, "the block of the old one is left"


def test_one_alarm_is_set_for_a_session_however_often_it_is_used() -> None:
    house = House(2, ttl=10.0)
    for _ in range(100):
        house.use("a")
        house.use("b")
    assert len(house.alarms) == 2
    house.pass_time(5.0)
    house.use("a")
    house.pass_time(5.0)
    assert (len(house.alarms), len(house.table)) == (1, 1)
    house.pass_time(5.0)
    assert (len(house.alarms), len(house.table)) == (0, 0)


def test_without_a_ttl_nothing_expires() -> None:
    house = House(1, ttl=None)
    house.use("a")
    house.pass_time(10**9)
    assert (len(house.alarms), len(house.table)) == (0, 1)


def test_as_many_sessions_as_are_allowed_and_an_end_makes_room() -> None:
    """A refused one leaves no trace, whichever way it comes."""
    house = House(1, max=2, ttl=10.0)
    house.use("a")
    record = house.table.open("b", "strict_queue", None)
    for refused in (lambda: house.ask("c"), lambda: house.table.open("c", "hint", None)):
        with pytest.raises(PoolSaturatedError, match=r"2 sessions .*Sessions\.max=2"):
            refused()
    house.use("a")
    house.table.end(record)
    house.use("c")
    house.pass_time(10.0)
    house.use("d")
    assert len(house.table) == 1


def test_a_call_that_the_queue_has_no_room_for_makes_no_session() -> None:
    house = House(1)
    house.scheduler = Scheduler(queue_max=0)
    house.table._scheduler = house.scheduler
    house.scheduler.update(house.seats[0], house.now)
    running = house.ask("a")
    with pytest.raises(PoolSaturatedError, match="'b' would have to wait"):
        house.ask("b")
    assert len(house.table) == 1
    house.end(running)
    house.use("b")


def test_an_id_is_opened_once() -> None:
    house = House(1)
    record = house.table.open("a", "hint", None)
    with pytest.raises(SessionBusyError, match="'a' is open already"):
        house.table.open("a", "hint", None)
    with pytest.raises(SessionBusyError, match="held by a block"):
        house.table.find_to_end("a")
    house.table.end(record)
    house.use("a")
    with pytest.raises(SessionBusyError, match="'a' is open already"):
        house.table.open("a", "hint", None)


# -- death -----------------------------------------------------------------------------------------


def test_the_strict_sessions_of_a_dead_worker_are_lost_and_hints_move_on() -> None:
    house = House(2)
    one, two = house.seats
    held = [house.table.open(f"strict {number}", "strict_queue", None) for number in range(4)]
    hints = [house.table.open(f"hint {number}", "hint", None) for number in range(4)]
    for record in held + hints:
        house.use(record)
    doomed = [record for record in held + hints if record.seat is one]
    assert 0 < len(doomed) < 8
    house.die(one)
    for record in held + hints:
        if record in doomed and record.strict:
            for _ in range(2):
                with pytest.raises(SessionLostError, match=f"'{record.id}' is lost.* w1 "):
                    house.ask(record)
        else:
            assert house.use(record) == "w2"
    assert house.table.count_at(two) == 8 - len([r for r in doomed if r.strict])
    for record in held + hints:
        house.table.end(record)
    assert {name for name, _ in house.forgotten} <= {"w2"}
    assert len(house.table) == 0


def test_calls_that_wait_for_a_worker_that_dies_are_lost_with_their_session() -> None:
    house = House(2)
    record = house.table.open("a", "strict_queue", None)
    house.use(record)
    home = record.seat
    assert home is not None
    house.ask(record)
    waiting = [house.ask(record) for _ in range(3)]
    assert house.die(home) == waiting
    assert record.calls == {}
    assert house.scheduler.waiting == 0


def test_a_session_of_which_nothing_ran_yet_survives_the_death_of_its_worker() -> None:
    """Nothing is lost with it: its calls go elsewhere, in their order."""
    house = House(1)
    (only,) = house.seats
    house.ask("busy")
    record = house.table.open("a", "strict_queue", None)
    waiting = [house.ask(record) for _ in range(3)]
    assert record.seat is only
    assert house.die(only) == []
    assert [call.id for call in house.scheduler.queued()] == [call.id for call in waiting]
    house.seats.append(house.add("w2"))
    house.dispatch()
    assert [house.end(call) for call in waiting] == ["w2"] * 3


def test_sessions_wait_for_the_first_worker_in_the_order_of_their_calls() -> None:
    house = House(0)
    first = [house.ask(house.table.open("a", "strict_queue", None))]
    first += [house.ask("hint")]
    first += [house.ask("a")]
    assert house.scheduler.waiting == 3
    assert house.scheduler.withdraw(first[2])
    house.table.settled(first[2], None)
    with pytest.raises(SessionBusyError):
        house.ask(house.table.open("fast", "strict_fail_fast", None))
    house.seats.append(house.add("w1"))
    house.dispatch()
    assert [house.end(first[0]), house.end(first[1])] == ["w1", "w1"]


def test_a_lost_session_on_demand_is_told_once_and_then_begins_anew() -> None:
    house = House(2, affinity="strict_queue", ttl=10.0)
    house.use("a")
    home = next(seat for seat in house.seats if house.table.count_at(seat))
    house.die(home)
    assert len(house.table) == 0, "it is not live any more"
    with pytest.raises(SessionLostError):
        house.ask("a")
    assert house.use("a") == house.seats[0].name


@pytest.mark.parametrize("how", ["ended", "opened", "expired"])
def test_a_lost_session_on_demand_can_be_let_go_of_untold(how: str) -> None:
    house = House(2, affinity="strict_queue", ttl=10.0)
    house.use("a")
    house.die(next(seat for seat in house.seats if house.table.count_at(seat)))
    if how == "ended":
        assert house.table.find_to_end("a") is None
    elif how == "opened":
        house.table.end(house.table.open("a", "hint", None))
    else:
        house.pass_time(10.0)
    assert house.use("a") == house.seats[0].name


def test_lost_sessions_of_which_nobody_hears_take_bounded_memory() -> None:
    house = House(0, affinity="strict_queue", max=5, ttl=None)
    for generation in range(10):
        house.seats.append(house.add(f"w{generation}"))
        for number in range(5):
            house.use(f"{generation}.{number}")
        house.die(house.seats[0])
    assert len(house.table._lost) == 5
    house.seats.append(house.add("last"))
    with pytest.raises(SessionLostError):
        house.ask("9.0")


def test_a_session_that_is_being_ended_when_its_worker_dies_is_over() -> None:
    house = House(2, affinity="strict_queue")
    running = house.ask("a")
    record = house.table.find_to_end("a")
    assert record is not None
    record.over = "was ended"
    with pytest.raises(SessionBusyError, match="being ended"):
        house.ask("a")
    home = house.place_of(running)
    assert home is not None
    house.die(home)
    house.table.end(record)
    assert house.use("a") == house.seats[0].name


# -- the cost --------------------------------------------------------------------------------------


def functions_called_for_one_use(live: int) -> int:
    """While one session of many is used: all functions, those of the interpreter included."""
    house = House(8, max=20_000, affinity="strict_queue")
    for number in range(live):
        house.use(f"s{number}")
    called = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal called
        called += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        house.use("s1")
    finally:
        sys.setprofile(None)
    return called


def test_the_use_of_one_of_ten_thousand_sessions_costs_what_that_of_one_of_ten_does() -> None:
    """Counted, not timed."""
    assert functions_called_for_one_use(10_000) == functions_called_for_one_use(10)
