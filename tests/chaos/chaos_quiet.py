"""A pool while nobody calls: it is whole, and has no more of anything than before the first call.

What a pool of some kind needs is not written down anywhere: it is measured at a calm beginning, once
each worker has had a call of each kind, and compared with what is there at a calm end, after more of
the same calls.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import anyio
import numpy as np
import psutil
from _leaks import RUNNER_FILES
from chaos_callers import Caller
from chaos_draw import ENDLESS_S
from chaos_elsewhere import Elsewhere
from chaos_havoc import Havoc
from chaos_tools import answer
from chaos_world import Asked, World

from snakepit import Pool, WorkerStartError
from snakepit.pool._call import PendingCall
from snakepit.process import guardian

PATIENCE_S = 60.0  # until all workers are there again
SETTLE_S = 5.0  # for what ends a moment after the calls that needed it
PROBE_S = 0.3
CANCEL_S = 0.2  # after so long the endless calls of a calm pool are cancelled
CANCELS = 3  # of each worker at the end; at the beginning it is one
BALLAST_BYTES = 2**18
CANCELLED = ("cancelled",)
LATE = ("CallTimeoutError", "QueueTimeoutError")  # this, where not even its arguments had been sent
SEGMENT = "/memfd:snakepit (deleted)"  # of shared memory


@dataclasses.dataclass
class Quiet:
    """What there is while nobody calls. `workers`: of each one, by pid.

    Shared memory that is kept for reuse is counted elsewhere: in `settle`, and in the pool's own heap.
    """

    fds: Counter[str]
    tasks: Counter[str]
    calls: int
    workers: dict[int, Counter[str]]
    used_bytes: int

    @classmethod
    def look(cls, pids: list[int], segments: int) -> Quiet:
        gc.collect()
        tasks = Counter(without_numbers(str(task.name)) for task in anyio.get_running_tasks())
        calls = sum(isinstance(thing, PendingCall) for thing in gc.get_objects())
        workers = {pid: fds_of(pid) + threads_of(pid) for pid in pids}
        own = fds_of(os.getpid())
        own[SEGMENT] = max(0, own[SEGMENT] - segments)
        for counts in workers.values():
            del counts[SEGMENT]
        return cls(own, tasks, calls, workers, used_bytes())

    def surplus(self, before: Quiet) -> list[str]:
        """What there is more than before."""
        most = Counter[str]()
        for counts in before.workers.values():
            most |= counts
        found = {
            "descriptors": self.fds - before.fds,
            "tasks": self.tasks - before.tasks,
            "calls": Counter(kept=max(0, self.calls - before.calls)),
            **{f"of worker {pid}": counts - most for pid, counts in self.workers.items()},
        }
        return [f"{what}: {dict(+more)}" for what, more in found.items() if +more]


def without_numbers(name: str) -> str:
    """Pipes, sockets and nameless tasks have some that say nothing."""
    return re.sub(r"\d+", "", name)


def fds_of(pid: int) -> Counter[str]:
    """What its descriptors are of."""
    counts: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:  # closed meanwhile, as that of the listing
            continue
        if not any(part in target for part in RUNNER_FILES) and not target.startswith("/proc/"):
            counts[without_numbers(target)] += 1
    return counts


def threads_of(pid: int) -> Counter[str]:
    return Counter(threads=len(os.listdir(f"/proc/{pid}/task")))


BLOCK_BYTES = 64  # of Python's own allocator, on average; it has its memory not from malloc
MALLINFO_SIZES = 10
USED_BYTES, MAPPED_BYTES = 7, 4  # which of these: `uordblks` and `hblkhd`


class _MallInfo(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_size_t * MALLINFO_SIZES)]


def used_bytes() -> int:
    """What malloc has given away and not got back: that it keeps free pages does not count."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # not glibc
        return int(psutil.Process().memory_full_info().uss)
    mallinfo.restype = _MallInfo
    sizes = mallinfo().sizes
    return int(sizes[USED_BYTES] + sizes[MAPPED_BYTES]) + sys.getallocatedblocks() * BLOCK_BYTES


class Calm:
    """What a pool does at a calm beginning and at a calm end, and what is found then."""

    def __init__(
        self, world: World, pool: Pool, havoc: Havoc, caller: Caller, elsewhere: Elsewhere | None
    ) -> None:
        self.world, self.pool, self.havoc, self.caller = world, pool, havoc, caller
        self.elsewhere = elsewhere
        self.before: Quiet | None = None

    async def begin(self) -> None:
        """Before the first call."""
        await self.until_ready()
        await self.meet_the_worst()
        await self.until_ready()
        await self.exercise(cancels=1)
        await self.until_ready()
        await self.settle()
        self.before = self.look()
        self.world.calls_between = -len(self.world.calls)

    async def end(self) -> None:
        """After the last call. Every worker is there again and takes a call, all at once; nothing is kept."""
        world = self.world
        self.havoc.go_on_all()
        self.havoc.hit("guardian", guardian.pid)
        await self.havoc.see_the_guardian()
        if not await self.until_ready():
            world.is_wrong(f"not all workers are there again: {self.pool.workers()}")
            return
        self.havoc.close()
        stats = self.pool.stats()
        if stats.busy or stats.queued:
            world.is_wrong(f"nobody calls any more: {stats}")
        await self.probe()
        world.calls_between += len(world.calls)
        await self.exercise(cancels=CANCELS)
        await self.until_ready()
        await self.settle()
        self.look_into_the_core()
        await self.compare()

    def look(self) -> Quiet:
        shm = self.pool._core.settings.shm
        known = [] if shm is None else shm.heap._by_number.values()
        owners = () if shm is None else (None, *shm.heap.endpoints)
        return Quiet.look(self.pids(), sum(s.fd >= 0 and s.owner in owners for s in known))

    def pids(self) -> list[int]:
        if self.elsewhere is not None:
            return self.elsewhere.pids
        return [worker.pid for worker in self.pool.workers() if worker.pid is not None]

    async def until_ready(self) -> bool:
        """All workers serve, and nobody lives who is about to die."""
        with anyio.move_on_after(PATIENCE_S):
            while self.havoc.awaits_ends() or not all(
                slot.is_ready for slot in self.pool._core.slots
            ):
                try:
                    await self.pool.ready()
                except WorkerStartError:  # one was hit while it started; it is started again
                    pass
                await anyio.sleep(0.05)
            return True
        return False

    # -- calls ---------------------------------------------------------------------------------------

    async def on_all(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """As many at once as there are workers."""
        async with anyio.create_task_group() as tasks:
            for _ in range(self.world.plan.options["size"]):
                tasks.start_soon(call)

    async def probe(self) -> None:
        """As many calls at once as there are workers: each of these has one."""
        numbers: list[int] = []

        async def probe() -> None:
            numbers.append(await self.call("work", "return", PROBE_S))

        await self.on_all(probe)
        self.world.read_journal()
        pids = [run.pid for number in numbers for run in self.world.runs[number]]
        if len(set(pids)) != len(numbers):
            self.world.is_wrong(f"not every worker serves: {len(numbers)} calls ran in {pids}")

    async def meet_the_worst(self) -> None:
        """What takes too long, what does not stop, what ends each worker: here it is known what follows."""
        world = self.world
        await self.call("work", "return", ENDLESS_S, timeout=CANCEL_S, ends=LATE)
        if world.plan.transport != "connect":  # there it would go on, and its worker with it
            await self.call("work", "swallow", ENDLESS_S, cancel_after=CANCEL_S, ends=CANCELLED)
            await self.until_ready()
        barrier = world.plan.options["crash_barrier"]
        is_refused = barrier.max_retries >= barrier.quarantine_after
        ends = "CallQuarantinedError" if is_refused else "WorkerDiedError"
        await self.call("again", "exit", 0.0, ends={ends})

    async def exercise(self, *, cancels: int) -> None:
        """A call of each kind for each worker, and some that are cancelled."""
        await self.on_all(lambda: self.call("work", "return", 0.05))
        await self.on_all(lambda: self.call("confer", "return", 0.01))
        await self.on_all(self.stream)
        for _ in range(cancels):
            await self.on_all(
                lambda: self.call(
                    "work", "leave a child", ENDLESS_S, cancel_after=CANCEL_S, ends=CANCELLED
                )
            )
            await self.until_ready()  # where one did not stop in time

    async def call(
        self,
        tool: str,
        how: str,
        seconds: float,
        *,
        timeout: float | None = None,
        cancel_after: float | None = None,
        ends: Collection[str] = ("value",),
    ) -> int:
        """A call that nothing goes wrong with meanwhile; returns its number."""
        world = self.world
        number = next(self.caller.numbers)
        asked = Asked(number, tool, how, tool == "again")
        asked.timeout, asked.cancel_after = timeout, cancel_after
        world.calls[number] = asked
        params: dict[str, Any] = {"call": number, "how": how, "seconds": seconds}
        if tool == "work":
            params["ballast"] = np.full(BALLAST_BYTES // 8, number)
        async with self.caller.noting(asked) as kind:
            found = await self.pool.execute(tool, params, timeout=timeout)
            kind[0] = "value"
            self.caller.expect(asked, found[0], answer(number))
        ended = world.outcomes[number].kind
        # What is not the pool's is given up where it does not stop in time, and nobody else is.
        was_given_up = world.plan.transport == "connect" and ended == "WorkerDiedError"
        if ended not in ends and not was_given_up:
            world.is_wrong(f"{tool} ({how}) in a calm pool ended with {ended}")
        return number

    async def stream(self) -> None:
        """All kinds of messages once."""
        number = next(self.caller.numbers)
        params = {"call": number, "how": "return", "seconds": 0.0, "count": 2, "size": 100_000}
        async with self.pool.stream("items", params) as chunks:
            async for _ in chunks:
                pass

    async def settle(self) -> None:
        """Of the shared memory nothing is used once nobody holds a value: a few calls settle it."""
        for _ in range(50):
            gc.collect()
            memory = self.pool.stats().shared_memory
            if memory is None or not (memory.used_bytes or memory.leases):
                return
            await self.on_all(lambda: self.call("work", "return", 0.01))
        self.world.is_wrong(f"shared memory is still used: {self.pool.stats().shared_memory}")

    # -- what is left --------------------------------------------------------------------------------

    def look_into_the_core(self) -> None:
        core = self.pool._core
        left = {
            "sessions": len(core.sessions),
            "waiting": core.scheduler.waiting,
            "prefetched": core.scheduler.prefetched,
            "loaded": len(core.scheduler._loaded),
        }
        if any(left.values()):
            self.world.is_wrong(f"left in the pool: {left}")

    async def compare(self) -> None:
        assert self.before is not None
        with anyio.move_on_after(SETTLE_S):
            while self.look().surplus(self.before):
                await anyio.sleep(0.1)
        now = self.look()
        for surplus in now.surplus(self.before):
            self.world.is_wrong(f"left while the pool is quiet: {surplus}")
        self.world.bytes_left = now.used_bytes - self.before.used_bytes
        self.world.workers_seen = len(now.workers)
