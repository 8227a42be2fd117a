"""A cancel that arrives as the tool returns: whatever becomes of that call, never the next one's.

In memory and in virtual time, from seeds; with real signals it is tried in `worker/test_interrupt.py`.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import anyio
import anyio.lowlevel
import pytest
from _measured import looking_away
from _shares import shares

from snakepit import Adapter, Pool, Stop, open_pool, tool
from snakepit.testing import MemoryTransport, SeededFaults, run_seeded

SHARES, SEEDS_PER_SHARE = 8, 250
SHOTS = 2
TURNS_MAX = 4  # of the loop, that a tool takes
CANCELLED_BY = 30  # turns: by then the slowest of them has returned to its caller
DELAY_S = 0.001
STOP = Stop(cancel_grace=3600, term_grace=1, drain_timeout=1)  # whoever is escalated is noticed
seen: dict[int, str] = {}  # what each call of a tool has seen: we are in its process


class Edge(Adapter):
    @tool
    async def take_turns(self, number: int, turns: int) -> int:
        seen[number] = "cancelled"
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        seen[number] = "returned"
        return number


class Run:
    """One seed: calls in a pool of one worker, some of them cancelled around their return."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.got: dict[int, int] = {}
        self.number = 0

    async def call(self, pool: Pool, number: int) -> None:
        params = {"number": number, "turns": self.random.randint(0, TURNS_MAX)}
        self.got[number] = await pool.execute("take_turns", params)

    async def shoot(self, pool: Pool, ends: Counter[str]) -> None:
        """Cancel a call after some turns, while others wait behind it; then make one more."""
        doomed, *behind, last = range(self.number, self.number + 2 + self.random.randint(0, 2))
        self.number = last + 1
        turns = self.random.randint(0, CANCELLED_BY)
        async with (
            anyio.create_task_group() as tasks,
            anyio.create_task_group() as cancelled,
        ):
            cancelled.start_soon(self.call, pool, doomed)
            for number in behind:
                tasks.start_soon(self.call, pool, number)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            if self.random.random() < 0.5:
                await anyio.sleep(self.random.uniform(0, 2 * DELAY_S))
            cancelled.cancel_scope.cancel()
        await self.call(pool, last)
        for number in (*behind, last):
            assert (self.got[number], seen[number]) == (number, "returned")
        ends[f"{seen.get(doomed, 'never begun')}, {'value' if doomed in self.got else 'none'}"] += 1

    async def main(self, ends: Counter[str]) -> None:
        seen.clear()
        delay = self.random.choice((0, 0.3))
        faults = SeededFaults(self.random, delay=delay, delay_max_s=DELAY_S)
        transport = MemoryTransport(faults=faults)
        async with open_pool(Edge, size=1, transport=transport, stop=STOP) as pool:
            [before] = pool.workers()
            for _ in range(SHOTS):
                await self.shoot(pool, ends)
            [after] = pool.workers()
            assert (after.id, pool.stats().restarts) == (before.id, 0)


@pytest.mark.parametrize("share", shares(SHARES))
def test_a_cancel_that_meets_the_return_never_hits_the_next_call(share: int) -> None:
    """Two thousand seeds in all: those behind it, sent ahead or not, return their own value."""
    ends: Counter[str] = Counter()
    with looking_away():
        for seed in range(share * SEEDS_PER_SHARE, (share + 1) * SEEDS_PER_SHARE):
            run_seeded(seed, lambda random: Run(random).main(ends))
    # It came too early, too late, and just as the tool returned: then the value is dropped.
    least = ends.total() // 100
    wanted = {"never begun, none", "cancelled, none", "returned, none", "returned, value"}
    assert {end for end, count in ends.items() if count > least} == wanted
