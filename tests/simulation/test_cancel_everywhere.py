"""Cancelled at the k-th checkpoint, for every k: start-up, calls and streams, on a few schedules.

A checkpoint here is any turn of any task, so these are all the moments at which a cancellation can
come. After each run everything is checked that is checked after a simulation.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from sim_checks import problems
from sim_plan import CallerPlan, CallPlan, Plan
from sim_run import Simulation, spying
from sim_tools import SimTools, World, set_world

from snakepit import CrashBarrier, Queue, Startup, Stop, open_pool
from snakepit.testing import CancelPoint, MemoryTransport, cancel_at_every_checkpoint

SEEDS = (0, 1, 2)
BEFORE, TESTED, AFTER = 1, 2, 3  # the numbers of the calls; from BUSY on those of others
BUSY = 10

OPTIONS: dict[str, Any] = {
    "startup": Startup(),
    "queue": Queue(),
    "stop": Stop(cancel_grace=0.5, term_grace=0.5, drain_timeout=1),
    "crash_barrier": CrashBarrier(),
}


def a_call(number: int, how: str = "return", tool: str = "work", seconds: float = 0.2) -> CallPlan:
    order = {"call": number, "seconds": seconds, "how": how, "extra": 0.1}
    return CallPlan(number, tool, order, False, 0.0, None, None, None)


def a_stream(
    items: int, read: int | None, window: int, how: str = "return", seconds: float = 0.1
) -> CallPlan:
    order = {"call": TESTED, "items": items, "seconds": seconds, "how": how, "extra": 0.1}
    return CallPlan(
        TESTED, "items", order, False, 0.0, None, None, None, items=items, read=read, window=window
    )


class Scene:
    """One pool and its calls, of which one is made under a cancel point."""

    def __init__(self, *calls: CallPlan, size: int = 1, starts: tuple[str, ...] = ()) -> None:
        options = {**OPTIONS, "size": size, "min_ready": size}
        caller = CallerPlan(0, calls, together=False, outsider=False)
        plan = Plan(0, options, {}, starts, (caller,), "calm", 0.0, watches_ready=False)
        self.world = World(plan)
        set_world(self.world)
        self.simulation = Simulation(self.world)
        transport = MemoryTransport(faults=self.world.meet)
        self.pool = open_pool(SimTools, transport=transport, name="p", **options)

    def check(self) -> None:
        self.world.closed_at = trio.current_time()
        assert list(problems(self.world)) == []


def kind_of(scene: Scene, number: int) -> str:
    return scene.world.outcomes[number].kind


# -- start-up --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("start", ["ready", "slow", "crash", "raise"])
def test_opening_and_closing(start: str, seed: int) -> None:
    """Wherever it is cut short: no worker is left, nor any task, and closing keeps its bound."""

    async def main(point: CancelPoint) -> None:
        scene = Scene(size=2, starts=(start,))
        with spying(scene.world):
            try:
                with point:
                    async with scene.pool as pool:
                        assert pool.stats().workers == 2
            except Exception as error:
                assert start in ("crash", "raise"), error
            if scene.world.closing_at is not None:
                scene.check()
            else:
                assert point.number == 0

    assert cancel_at_every_checkpoint(main, seed=seed) > 30


# -- calls -----------------------------------------------------------------------------------------

HOWS = ["return", "raise", "slow_stop", "stubborn", "convert", "swallow", "crash"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("tool", "how"), [*(("work", how) for how in HOWS), ("again", "crash"), ("fragile", "return")]
)
def test_execute(tool: str, how: str, seed: int) -> None:
    """Wherever it is cut short: its tool has stopped, and the next call finds a pool that serves."""

    async def main(point: CancelPoint) -> None:
        scene = Scene(a_call(TESTED, how, tool), a_call(AFTER))
        with spying(scene.world):
            async with scene.pool as pool:
                with point:
                    await scene.simulation.call(pool, scene.world.plan.calls()[TESTED])
                assert pool.stats().busy == pool.stats().queued == 0
                await scene.simulation.call(pool, scene.world.plan.calls()[AFTER])
            scene.check()
        assert kind_of(scene, AFTER) == "value"

    assert cancel_at_every_checkpoint(main, seed=seed) >= 7
    assert cancel_at_every_checkpoint(main, seed=seed, steps="task") >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_execute_among_others(seed: int) -> None:
    """Short calls of others, sent ahead before it and behind it, all come to their end."""

    async def main(point: CancelPoint) -> None:
        others = [a_call(BUSY + n, seconds=0) for n in range(8)]
        scene = Scene(a_call(TESTED, seconds=0), a_call(AFTER), *others)
        with spying(scene.world):
            async with scene.pool as pool, trio.open_nursery() as nursery:
                for call in others[:4]:
                    nursery.start_soon(scene.simulation.call, pool, call)
                await trio.lowlevel.checkpoint()
                with point:
                    async with trio.open_nursery() as inner:
                        tested = scene.world.plan.calls()[TESTED]
                        inner.start_soon(scene.simulation.call, pool, tested)
                        for call in others[4:]:
                            nursery.start_soon(scene.simulation.call, pool, call)
                await scene.simulation.call(pool, scene.world.plan.calls()[AFTER])
            scene.check()
        assert [kind_of(scene, call.number) for call in others] == ["value"] * 8

    assert cancel_at_every_checkpoint(main, seed=seed) > 20


# -- streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "stream",
    [
        a_stream(4, None, 16),
        a_stream(4, None, 1, seconds=0.0),
        a_stream(4, 2, 2),
        a_stream(6, 1, 1, seconds=0.0),
        a_stream(0, None, 1),
        a_stream(3, None, 2, "raise"),
        a_stream(3, 1, 3, "slow_stop"),
        a_stream(3, None, 1, "crash"),
    ],
    ids=lambda stream: f"{stream.read}-of-{stream.items}-{stream.order['how']}",
)
def test_stream(stream: CallPlan, seed: int) -> None:
    """Read to its end or left early, and cut short anywhere: its generator is closed by then."""

    async def main(point: CancelPoint) -> None:
        scene = Scene(stream, a_call(AFTER))
        with spying(scene.world):
            async with scene.pool as pool:
                with point:
                    await scene.simulation.call(pool, stream)
                assert pool.stats().busy == pool.stats().queued == 0
                await scene.simulation.call(pool, scene.world.plan.calls()[AFTER])
            scene.check()
        assert kind_of(scene, AFTER) == "value"

    assert cancel_at_every_checkpoint(main, seed=seed) >= 5
