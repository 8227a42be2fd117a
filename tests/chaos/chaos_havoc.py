"""What goes wrong in a round, at random moments, in workers of the pool and nowhere else."""

from __future__ import annotations

import os
import signal
from random import Random

import anyio
from _chance import weighted
from chaos_draw import HAVOC
from chaos_elsewhere import Elsewhere
from chaos_world import Harm, World, lives, now

from snakepit import Pool
from snakepit.process import guardian
from snakepit.procfs import Handle, read_process

BUSY_SHARE = 0.8
STOP_S = (0.02, 0.2, 1.0)
GUARDIAN_S = 5.0  # one second, and this machine has others to serve
SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "guardian": signal.SIGKILL,
}


class Havoc:
    """Signals to workers. `go_on_all` wakes those that are stopped."""

    def __init__(
        self, world: World, pool: Pool, random: Random, elsewhere: Elsewhere | None
    ) -> None:
        self.world, self.pool, self.random = world, pool, random
        self.elsewhere = elsewhere
        self.stopped: list[Handle] = []
        self.ended: set[tuple[int, int]] = (
            set()
        )  # or about to end: they have been sent a signal for that

    async def run(self) -> None:
        every_s = self.world.plan.havoc_every_s
        async with anyio.create_task_group() as tasks:
            while not self.world.is_over:
                await anyio.sleep(self.random.uniform(0.5, 1.5) * every_s)
                what = weighted(self.random, HAVOC)
                pid = guardian.pid if what == "guardian" else self.victim()
                if self.hit(what, pid):
                    if what == "stop":
                        tasks.start_soon(self.go_on_later, self.stopped[-1])
                    if what == "guardian":
                        tasks.start_soon(self.see_the_guardian)

    def victim(self) -> int | None:
        """Mostly a worker that runs a tool: one that only just starts has little to lose."""
        if self.elsewhere is not None:
            return self.random.choice([*self.elsewhere.pids, None])
        workers = self.pool.workers()
        if self.random.random() < BUSY_SHARE:
            workers = [worker for worker in workers if worker.state == "leased"]
        return self.random.choice(workers).pid if workers else None

    def hit(self, what: str, pid: int | None) -> bool:
        """Only a child of ours, and the one that bears this number now."""
        process = None if pid is None else read_process(pid)
        if process is None or process.parent != os.getpid():
            return False
        handle = Handle.open(process.pid, process.start)
        if handle is None:
            return False
        self.world.havoc[what] += 1
        self.world.harms[process.pid].append(Harm(what, now()))
        handle.send(SIGNALS[what])
        if what == "stop":
            self.stopped.append(handle)
        else:
            self.ended.add((process.pid, process.start))
            handle.close()
        return True

    async def see_the_guardian(self) -> None:
        """If it was killed, another one begins, in about a second."""
        if "guardian" not in self.world.havoc:
            return
        with anyio.move_on_after(GUARDIAN_S):
            while True:
                process = None if guardian.pid is None else read_process(guardian.pid)
                if process is not None and not process.is_dead:
                    return
                await anyio.sleep(0.05)
        self.world.is_wrong(f"there is no guardian {GUARDIAN_S:g} s after it was killed")

    def awaits_ends(self) -> bool:
        """Does anybody live still that was sent a signal to end by?"""
        return any(lives(pid, start) for pid, start in self.ended)

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
