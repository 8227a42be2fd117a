"""Bugs that the simulation found, each with a test of its own."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from snakepit import (
    Adapter,
    Pool,
    Queue,
    Startup,
    Stop,
    WorkerDiedError,
    context,
    open_pool,
    tool,
)
from snakepit.testing import Faults, Garbage, MemoryTransport, Silence, run_seeded

WARM_UP = 5  # calls after which a worker is known for short ones, and is sent others ahead

runs: Counter[str] = Counter()


class Tools(Adapter):
    @tool
    async def count(self, to: int) -> int:
        for number in range(to):
            context().progress(number)
        return to

    @tool
    async def work(self, name: str, seconds: float = 0.0) -> str:
        runs[name] += 1
        await trio.sleep(seconds)
        return name


async def warm_up(pool: Pool) -> None:
    for _ in range(WARM_UP):
        await pool.execute("work", {"name": "warm-up"})


@pytest.mark.timeout(10)
def test_without_any_grace_a_call_cancelled_behind_another_one_harms_nobody() -> None:
    """The alarm of its grace rang again and again at the same moment, and the loop stood still."""

    async def main(_random: Random) -> None:
        answers = []

        async def long() -> None:
            answers.append(await pool.execute("work", {"name": "long", "seconds": 1}))

        stop = Stop(cancel_grace=0)
        async with open_pool(Tools, size=1, transport="memory", stop=stop) as pool:
            await warm_up(pool)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(long)
                await trio.testing.wait_all_tasks_blocked()
                with trio.move_on_after(0.001) as scope:
                    await pool.execute("work", {"name": "behind it"})
            assert scope.cancelled_caught
            assert answers == ["long"]
            assert pool.stats().restarts == 0
        assert runs["behind it"] == 0

    run_seeded(0, main)


def test_a_worker_that_does_not_give_calls_back_is_asked_once() -> None:
    """The pool woke up every 2 ms for as long as a stopped worker kept what it was asked for."""

    async def main(_random: Random) -> None:
        faults = Faults({"Returned": Silence()})
        transport = MemoryTransport(faults=faults)
        async with open_pool(Tools, size=1, transport=transport) as pool:
            await warm_up(pool)
            with trio.move_on_after(60):
                async with trio.open_nursery() as nursery:
                    for name in ("long", "behind it"):
                        nursery.start_soon(pool.execute, "work", {"name": name, "seconds": 1})
                    await trio.sleep(1)
                    assert faults.left == {"Returned": []}
                    assert pool._core.scheduler.prefetched == 1
                    assert len(pool._core.deadlines) == 0

    run_seeded(0, main)


def test_what_was_sent_ahead_may_have_run_on_a_worker_that_wrote_garbage() -> None:
    """It went on after the garbage, with a call that is not idempotent; the pool sent that again."""

    async def main(_random: Random) -> None:
        outcomes: dict[str, Any] = {}

        async def call(name: str) -> None:
            try:
                outcomes[name] = await pool.execute("work", {"name": name})
            except WorkerDiedError:
                outcomes[name] = "died"

        faults = Faults({"Result": [*[None] * WARM_UP, Garbage(b"\xff" * 8)]})
        transport = MemoryTransport(faults=faults)
        async with open_pool(Tools, size=1, transport=transport) as pool:
            await warm_up(pool)
            async with trio.open_nursery() as nursery:
                for name in ("one", "two", "three"):
                    nursery.start_soon(call, name)
        assert faults.left == {"Result": []}
        assert list(outcomes.values()) == ["died"] * 3
        assert max(runs[name] for name in outcomes) == 1

    for seed in range(5):  # in some the worker has begun the second one when it is ended
        runs.clear()
        run_seeded(seed, main)


def test_a_worker_that_never_came_to_be_is_gone_with_its_pool() -> None:
    """Its seat kept the state "stopping" for ever."""

    async def main(_random: Random) -> None:
        startup = Startup(batch_size=1, batch_delay=5)
        async with open_pool(
            Tools, size=3, transport="memory", startup=startup, queue=Queue()
        ) as pool:
            await warm_up(pool)
        assert [worker.state for worker in pool.workers()] == ["gone"] * 3

    run_seeded(0, main)


def test_two_calls_in_a_row_may_tell_more_than_can_be_sent_at_once() -> None:
    """The second one's update came in the pause before the first one's; its worker broke the pool."""

    async def main(_random: Random) -> None:
        async with open_pool(Tools, size=1, transport="memory") as pool:
            for _ in range(2):
                assert await pool.execute("count", {"to": 3}) == 3
            await trio.sleep(1)
            assert await pool.execute("count", {"to": 3}) == 3
            assert pool.stats().restarts == 0

    run_seeded(0, main)
