"""`pool.stats()`: what has been counted, and the pool's state now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from snakepit.shm import huge_pages

if TYPE_CHECKING:
    from snakepit.pool._core import PoolCore
    from snakepit.shm import Heap


@frozen
class WorkerMemoryStats:
    """The shared memory that one worker has for its results, as it was when it last sent a large one.

    `used_bytes`: looked at, by itself or by the host. `idle_bytes`: kept for reuse. `references`: buffers that it
    has sent by reference; `copies` of them it copied there first, `copied_bytes` in all. `donations`: buffers that
    found no room, and were handed over to the host for good.
    """

    used_bytes: int
    idle_bytes: int
    references: int
    copies: int
    copied_bytes: int
    donations: int


@frozen
class SharedMemoryStats:
    """A pool's shared memory: the host's half, and in `workers` what each worker has for its results, by its id.

    `budget_bytes`: how much of it there may be. `used_bytes`: looked at now, by this process or by
    workers. `idle_bytes`: kept for reuse. `lent_bytes`: what each worker looks at, by its id. `leases`: messages whose memory workers still look at;
    `oldest_lease_s`: the age of the oldest, None if there is none. `references`: buffers sent by
    reference since the pool was opened; `copies` of them were copied there first, `copied_bytes` in
    all. `donations`: buffers that found no room, and were handed over to a worker for good. `huge_pages`: what the machine is set to, in `shmem_enabled`; None where it has no such thing.
    """

    budget_bytes: int
    used_bytes: int
    idle_bytes: int
    lent_bytes: dict[str, int]
    leases: int
    oldest_lease_s: float | None
    references: int
    copies: int
    copied_bytes: int
    donations: int
    huge_pages: str | None
    workers: dict[str, WorkerMemoryStats]


@frozen
class PoolStats:
    """Counters of a pool since it was opened, and its state now.

    `requests`: calls accepted. `errors`: calls that ended with an error or were given up.
    `queued`: calls waiting now. `queue_timeouts`, `saturated`: calls refused. `workers`: ready now;
    `busy` of them have a call, `available` have none. `restarts`: workers started after a death.
    `transport`: what "auto" has become, or was asked for; `workers()` tells of each one. `shared_memory`: of
    transport "shm", None on others.
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
    transport: str
    shared_memory: SharedMemoryStats | None = None


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
        transport=core.settings.transport,
        shared_memory=None if core.settings.shm is None else _shared(core, core.settings.shm.heap),
    )


def _shared(core: PoolCore, heap: Heap) -> SharedMemoryStats:
    heap.reclaim()
    arena = heap.arena
    return SharedMemoryStats(
        budget_bytes=arena.budget,
        used_bytes=arena.used_bytes,
        idle_bytes=heap.idle_bytes,
        lent_bytes={slot.worker.id: slot.worker.lent_bytes for slot in core.slots if slot.is_ready},
        leases=heap.lease_count,
        oldest_lease_s=heap.oldest_lease_s,
        references=heap.references,
        copies=heap.copies,
        copied_bytes=heap.copied_bytes,
        donations=heap.donations,
        huge_pages=huge_pages(),
        workers={
            slot.worker.id: WorkerMemoryStats(*counts)
            for slot in core.slots
            if slot.is_ready and (counts := slot.worker.peer_counts) is not None
        },
    )
