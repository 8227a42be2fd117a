"""A crash storm with default settings: workers are killed from outside, whatever they do, under full load.

Here for a moment; `make storm` is the whole: 100 kills in ten seconds, on each transport, twice.
"""

from __future__ import annotations

import os
import signal
from itertools import product
from random import Random

import anyio
import pytest
from _transports import OF_PROCESSES
from adapters import Tools
from pool_kit import all_gone, pids

from snakepit import CallQuarantinedError, Pool, WorkerDiedError, open_pool
from snakepit.process._oom import oom_kills

SECONDS = float(os.environ.get("STORM_SECONDS", "1.5"))
SEED = int(os.environ.get("STORM_SEED", "0"))  # of who is killed, among those who are there
IS_WHOLE = SECONDS >= 10
KILLS_PER_S = 10 if IS_WHOLE else 25
SLOW_S = 15 / KILLS_PER_S  # so hardly any of these calls is finished before its worker is killed
BACK_S = 10.0  # the pool's time, after the last kill, to be as large as before
LOADS = {"mixed": 12, "slow": 4}  # callers
CASES = [("stdio", 2, "busy", "slow"), ("shm", 3, "busy", "mixed"), ("grpc", 2, "any", "mixed")]
ALL_CASES = [
    (transport, 2, *how)
    for transport, how in product(OF_PROCESSES, [("any", "mixed"), ("busy", "slow")])
]


@pytest.mark.timeout(120)
@pytest.mark.one_loop_each
@pytest.mark.parametrize(("transport", "size", "victims", "load"), ALL_CASES if IS_WHOLE else CASES)
async def test_a_crash_storm_costs_calls_and_nothing_else(
    transport: str, size: int, victims: str, load: str
) -> None:
    """Every call ends with a value or says which worker died; then all workers are there, and serve.

    "any" kills those that start, too, "busy" those alone that serve. "slow": no call has been
    finished when it begins, and hardly any is before it is over.
    """
    if load == "slow" and oom_kills() is None:
        pytest.skip("the kernel does not tell here whether it was it that ended a process")
    storm = Storm(victims, load)
    with anyio.fail_after(SECONDS + BACK_S + 30):
        async with open_pool(Tools, size=size, min_ready=size, transport=transport) as pool:
            async with anyio.create_task_group() as tasks:
                for number in range(LOADS[load]):
                    tasks.start_soon(storm.call_on, pool, number)
                await storm.rage(pool)
                with anyio.fail_after(BACK_S):
                    while pool.stats().workers < size:
                        await anyio.sleep(0.01)
                storm.over = True
            storm.check()
            assert not any(slot.given_up for slot in pool._core.slots)
            async with anyio.create_task_group() as tasks:
                for number in range(size):
                    tasks.start_soon(pool.execute, "echo", {"value": number})
            assert all_gone(storm.killed)
            assert not set(pids(pool)) & set(storm.killed)


class Storm:
    def __init__(self, victims: str, load: str) -> None:
        self.victims = victims
        self.is_slow = load == "slow"
        self.random = Random(SEED)
        self.over = False
        self.killed: list[int] = []
        self.values = self.refused = 0
        self.died: list[WorkerDiedError] = []

    async def rage(self, pool: Pool) -> None:
        for _ in range(round(SECONDS * KILLS_PER_S)):
            states = ("leased",) if self.victims == "busy" else ("starting", "ready", "leased")
            alive = [w.pid for w in pool.workers() if w.pid and w.state in states]
            if alive:
                pid = self.random.choice(alive)
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
            await anyio.sleep(1 / KILLS_PER_S)

    async def call_on(self, pool: Pool, number: int) -> None:
        """Short calls that all differ, long ones that do not, and streams; or slow ones that differ."""
        while not self.over:
            try:
                await (self.call_slowly if self.is_slow else self.call)(pool, number)
                self.values += 1
            except WorkerDiedError as error:
                self.died.append(error)
            except CallQuarantinedError as error:
                # Three in a row, by accident: for all that is known it may be this call that kills.
                assert error.kills >= 3
                assert number % 3
                self.refused += 1
                await anyio.sleep(0.05)

    async def call_slowly(self, pool: Pool, number: int) -> None:
        seconds = SLOW_S * (1 + number / 100 + self.random.random() / 100)
        await pool.execute("sleep", {"started": os.devnull, "seconds": seconds})

    async def call(self, pool: Pool, number: int) -> None:
        match number % 3:
            case 0:
                made = self.random.random()
                assert await pool.execute("echo", {"value": [number, made]}) == [number, made]
            case 1:
                await pool.execute("sleep", {"started": os.devnull, "seconds": 0.15})
            case 2:
                async with pool.stream("count", {"stop": 50 + number}) as items:
                    assert [item async for item in items] == list(range(50 + number))

    def check(self) -> None:
        assert self.values
        assert self.killed
        assert {error.signal for error in self.died} <= {signal.SIGKILL}
        assert {error.pid for error in self.died} <= set(self.killed)
        assert len({error.pid for error in self.died}) == len(self.died), "one death, one call"
