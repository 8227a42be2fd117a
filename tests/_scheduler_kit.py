"""Calls and seats for the scheduler's tests."""

from __future__ import annotations

from snakepit.pool._scheduler import Scheduler
from snakepit.pool._seat import Seat

SHORT_S = 0.0004  # well under what may have others prefetched behind it


class FakeCall:
    """As much of a call as the scheduler looks at."""

    def __init__(self, number: int, *, prefetchable: bool = True) -> None:
        self.id = number
        self.prefetchable = prefetchable
        self.pin: Seat[FakeCall] | None = None
        self.hint: Seat[FakeCall] | None = None

    def __repr__(self) -> str:
        return f"call {self.id}{'' if self.prefetchable else ' (not prefetchable)'}"


def calls(*numbers: int) -> list[FakeCall]:
    """Prefetchable calls with these numbers."""
    return [FakeCall(number) for number in numbers]


def ready_seat(*, average_s: float | None = None, tainted_until: float = 0.0) -> Seat[FakeCall]:
    """A seat that waits for a call; with an average, one that has finished a call so long."""
    seat: Seat[FakeCall] = Seat(tainted_until=tainted_until)
    seat.ready()
    if average_s is not None:
        seat.lease(FakeCall(-1), 0.0)
        seat.settle(-1, average_s)
    return seat


def scheduler_with(
    *seats: Seat[FakeCall], now: float = 0.0, queue_max: int | None = None, prefetch: bool = True
) -> Scheduler[FakeCall]:
    """A scheduler to which these seats are known, filed in this order."""
    scheduler: Scheduler[FakeCall] = Scheduler(queue_max=queue_max, prefetch=prefetch)
    for seat in seats:
        scheduler.update(seat, now)
    return scheduler


def dispatch(scheduler: Scheduler[FakeCall], now: float = 0.0) -> list[tuple[Seat[FakeCall], int]]:
    """Lease until nothing can go any more; who got which call."""
    leased = []
    while (pair := scheduler.next(now)) is not None:
        leased.append((pair[0], pair[1].id))
    return leased
