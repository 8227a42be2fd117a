"""A slot: one place in the pool, filled by one worker after another until the pool closes."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import anyio
from attrs import frozen
from trio.lowlevel import enable_ki_protection

from snakepit.errors import PoolBrokenError, WorkerDiedError, WorkerStartError
from snakepit.pool._seat import Phase
from snakepit.pool._worker import Worker
from snakepit.process import resident_mb
from snakepit.resilience import RestartBudget

if TYPE_CHECKING:
    from snakepit.pool._core import PoolCore

_log = logging.getLogger("snakepit.pool")


@frozen
class WorkerInfo:
    """A worker as `pool.workers()` shows it.

    `state`: "starting", "ready", "leased", "draining", "stopping" or "gone". `started_at`: seconds
    since the epoch. `requests`: calls finished. `rss_mb`: resident memory of the process now, in MiB;
    None where there is no process. `sessions`: how many live there. `transport`: how its values
    travel; "stdio" also in a pool of "shm" while the worker has not said that it shares memory, which one
    in another language may never say. `address`: of a worker that somebody else has started: it is not
    the pool's to end, and nothing is known of its process; else None.
    """

    id: str
    pid: int | None
    state: str
    started_at: float
    requests: int
    rss_mb: float | None
    sessions: int
    transport: str
    address: str | None = None


class StartingPlace:
    """One of the places for workers that start; left when the worker is ready, or is gone."""

    def __init__(self, places: anyio.Semaphore) -> None:
        self._places: anyio.Semaphore | None = places

    def leave(self) -> None:
        """Make room for the next one; once."""
        if self._places is not None:
            self._places.release()
            self._places = None


class Slot:
    """One place for a worker. `worker` is the one that fills it now, or did last."""

    def __init__(self, core: PoolCore, number: int) -> None:
        self._core = core
        self._number = number
        self._generation = 0
        self.given_up: bool = False
        self.start_error: WorkerStartError | None = None  # why the last start failed
        self.worker: Worker = self._next_worker()

    @property
    def is_ready(self) -> bool:
        """The worker serves calls."""
        return self.worker.seat.phase in (Phase.READY, Phase.LEASED)

    def info(self) -> WorkerInfo:
        """What `pool.workers()` shows."""
        worker = self.worker
        pid = None if worker.seat.phase is Phase.GONE else worker.pid
        return WorkerInfo(
            id=worker.id,
            pid=pid,
            state=worker.seat.phase.value,
            started_at=worker.started_at,
            requests=worker.seat.finished_count,
            rss_mb=None if pid is None else resident_mb(pid),
            sessions=self._core.sessions.count_at(worker.seat),
            transport=self._transport(),
            address=self._core.settings.address_of(self._number),
        )

    def _transport(self) -> str:
        name, running = self._core.settings.transport, self.worker.running
        if name != "shm" or (running is not None and running.channel.shares_memory):
            return name
        return "stdio"

    @enable_ki_protection
    async def run(self, first_start_delay_s: float) -> None:
        """Keep the slot filled until the pool closes or the slot is given up."""
        core = self._core
        barrier = core.settings.crash_barrier
        # Who connects tries for ever: others see to the worker.
        restarts_max = sys.maxsize if core.settings.connects else barrier.max_restarts
        budget = RestartBudget(max_restarts=restarts_max, window_s=barrier.window)
        delay: float | None = first_start_delay_s
        while True:
            with anyio.move_on_after(delay):
                await core.closing.wait()
            await core.starting.acquire()
            if core.closing.is_set():
                core.starting.release()
                self.worker.seat.gone()  # it never came to be
                return
            worker = self.worker
            place = StartingPlace(core.starting)
            try:
                await worker.live(hatched=place.leave)
            finally:
                place.leave()
            self.start_error = worker.start_error
            core.slots_changed()
            if core.closing.is_set():
                return
            now = anyio.current_time()
            delay = budget.ended(
                now, fruitful=worker.was_fruitful or worker.seat.finished_count > 0
            )
            if delay is None:
                self.given_up = True
                core.slot_given_up(str(worker.start_error or worker.death))
                return
            self.worker = self._next_worker(tainted_until=now + barrier.taint)
            core.restarts += 1

    def _next_worker(self, *, tainted_until: float = 0.0) -> Worker:
        self._generation += 1
        worker_id = f"{self._core.settings.name}-{self._number}.{self._generation}"
        return Worker(self._core, worker_id, self._number, tainted_until=tainted_until)


def raise_start_error(core: PoolCore) -> None:
    """Raise what kept a worker from starting, if one could not, or from being replaced."""
    for slot in core.slots:
        if slot.start_error is not None:
            raise WorkerStartError(*slot.start_error.args)
        if slot.given_up:
            death = slot.worker.death
            assert death is not None
            fruitless = f"{core.settings.crash_barrier.max_restarts} fruitless restarts"
            raise WorkerDiedError(
                death.worker_id,
                death.pid,
                death.exit_code,
                death.signal,
                f"{death.reason}, and its slot was given up after {fruitless}",
                False,
                death.stderr_tail,
                death.certificate,
            )
    if core.broken is not None:
        raise PoolBrokenError(*core.broken.args)
