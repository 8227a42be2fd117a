"""What goes wrong in a round, at random moments, in workers of the pool and nowhere else."""

from __future__ import annotations

import os
import signal
from random import Random

import anyio
from _chance import weighted
from chaos_draw import HAVOC
from chaos_elsewhere import Elsewhere
from chaos_world import World

from snakepit import Pool
from snakepit.process import guardian
from snakepit.procfs import Handle, read_process

BUSY_SHARE = 0.8
STOP_S = (0.02, 0.2, 1.0)


class Havoc:
    """Signals to workers. `go_on_all` wakes those that are stopped."""

    def __init__(
        self, world: World, pool: Pool, random: Random, elsewhere: Elsewhere | None
    ) -> None:
        self.world, self.pool, self.random = world, pool, random
        self.elsewhere = elsewhere
        self.stopped: list[Handle] = []
        self.ended: set[int] = set()  # or about to end: they have been sent a signal for that

    async def run(self) -> None:
        every_s = self.world.plan.havoc_every_s
        async with anyio.create_task_group() as tasks:
            while not self.world.is_over:
                await anyio.sleep(self.random.uniform(0.5, 1.5) * every_s)
                what = weighted(self.random, HAVOC)
                if what == "guardian":
                    self.hit(what, guardian.pid, signal.SIGKILL)
                    continue
                pid = self.victim()
                if what == "stop":
                    if self.hit(what, pid, signal.SIGSTOP, keep=True):
                        tasks.start_soon(self.go_on_later, self.stopped[-1])
                else:
                    self.hit(what, pid, signal.SIGKILL if what == "kill" else signal.SIGTERM)

    def victim(self) -> int | None:
        """Mostly a worker that runs a tool: one that only just starts has little to lose."""
        if self.elsewhere is not None:
            return self.random.choice([*self.elsewhere.pids, None])
        workers = self.pool.workers()
        if self.random.random() < BUSY_SHARE:
            workers = [worker for worker in workers if worker.state == "leased"]
        return self.random.choice(workers).pid if workers else None

    def hit(self, what: str, pid: int | None, number: int, *, keep: bool = False) -> bool:
        """Only a child of ours, and the one that bears this number now."""
        process = None if pid is None else read_process(pid)
        if process is None or process.parent != os.getpid():
            return False
        handle = Handle.open(process.pid, process.start)
        if handle is None:
            return False
        self.world.havoc[what] += 1
        self.world.harmed.add(process.pid)
        handle.send(number)
        if keep:
            self.stopped.append(handle)
        else:
            self.ended.add(process.pid)
            handle.close()
        return True

    async def go_on_later(self, handle: Handle) -> None:
        await anyio.sleep(self.random.choice(STOP_S))
        handle.send(signal.SIGCONT)

    def go_on_all(self) -> None:
        for handle in self.stopped:
            handle.send(signal.SIGCONT)

    def close(self) -> None:
        """Let go of all that was stopped, whether it goes on or not."""
        for handle in self.stopped:
            handle.close()
        self.stopped.clear()
