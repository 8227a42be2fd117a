"""`pool.stats()`: what has been counted, and the pool's state now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from snakepit.pool._core import PoolCore


@frozen
class PoolStats:
    """Counters of a pool since it was opened, and its state now.

    `requests`: calls accepted. `errors`: calls that ended with an error or were given up.
    `queued`: calls waiting now. `queue_timeouts`, `saturated`: calls refused. `workers`: ready now;
    `busy` of them have a call, `available` have none. `restarts`: workers started after a death.
    """

    requests: int
    errors: int
    queued: int
    queue_timeouts: int
    saturated: int
    workers: int
    available: int
    busy: int
    restarts: int


def stats_of(core: PoolCore) -> PoolStats:
    """The counters as they are now."""
    seats = [slot.worker.seat for slot in core.slots if slot.is_ready]
    busy = sum(bool(seat.calls) for seat in seats)
    return PoolStats(
        requests=core.requests,
        errors=core.errors,
        queued=core.scheduler.waiting,
        queue_timeouts=core.queue_timeouts,
        saturated=core.saturated,
        workers=len(seats),
        available=len(seats) - busy,
        busy=busy,
        restarts=core.restarts,
    )
