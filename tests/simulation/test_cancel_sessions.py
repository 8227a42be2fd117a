"""Sessions, cancelled at every checkpoint: however one is left, nothing of it is left anywhere.

After each time no tool of it runs, its id is free, its worker keeps nothing of it, and the pool serves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from sim_callers import make_call, make_step
from sim_plan import EndPlan
from sim_scenes import (
    AFTER,
    BEFORE,
    OTHERS,
    SEEDS,
    TESTED,
    Scene,
    a_call,
    a_map,
    a_stream,
    cancel_anywhere,
    in_turns,
)
from sim_world import World

from snakepit import Pool, Session, Sessions
from snakepit.testing import CancelPoint, cancel_at_every_checkpoint

AFFINITIES = ["strict_queue", "strict_fail_fast", "hint"]


def in_s(number: int, how: str = "return", **more: Any) -> Any:
    return a_call(number, how, session="s", **more)


@pytest.mark.parametrize(
    ("how", "affinity", "seed"), in_turns(["return", "stubborn", "crash", "raise"], AFFINITIES)
)
def test_a_block_with_calls(how: str, affinity: str, seed: int) -> None:
    """Opened, used, in part in vain, and left."""

    async def use(scene: Scene, pool: Pool) -> None:
        async with pool.session("s", affinity=affinity) as session:
            await scene.call(pool, BEFORE, session)
            await scene.call(pool, TESTED, session)

    def make() -> Scene:
        return Scene(in_s(BEFORE, seconds=0), in_s(TESTED, how), a_call(AFTER), size=2)

    assert cancel_anywhere(make, use, seed=seed) >= 15


@pytest.mark.parametrize(("affinity", "seed"), in_turns(AFFINITIES))
def test_a_block_with_calls_at_a_time(affinity: str, seed: int) -> None:
    """Some of them wait for their worker, or have been sent ahead."""

    async def use(scene: Scene, pool: Pool) -> None:
        async with pool.session("s", affinity=affinity) as session, trio.open_nursery() as nursery:
            for number in range(OTHERS, OTHERS + 4):
                nursery.start_soon(scene.call, pool, number, session)

    def make() -> Scene:
        calls = [in_s(OTHERS + n, seconds=n % 2 * 0.1) for n in range(4)]
        return Scene(*calls, a_call(AFTER), size=2)

    assert cancel_anywhere(make, use, seed=seed) >= 15


@pytest.mark.parametrize(("how", "seed"), in_turns(["return", "slow_stop", "stubborn", "swallow"]))
def test_a_block_that_is_left_while_others_call_in_it(how: str, seed: int) -> None:
    """Leaving it stops them, and is cancelled in the midst of that."""

    async def main(point: CancelPoint) -> None:
        calls = [in_s(OTHERS + n, how) for n in range(3)]
        scene = Scene(*calls, a_call(AFTER))
        async with scene.opened() as pool:
            async with trio.open_nursery() as others:
                with point:
                    async with pool.session("s") as session:
                        for call in calls:
                            others.start_soon(make_call, scene.world, pool, call, session)
                        await trio.sleep(0.1)
                running = scene.world.running_of(call.number for call in calls)
                assert (running, len(pool._core.sessions)) == ([], 0)
            await scene.call(pool, AFTER)
            scene.check_quiet(pool)
        # One that swallows its cancellation is over as cancelled all the same.
        assert {scene.kind(call.number) for call in calls} == {"SessionNotFoundError"}

    assert cancel_at_every_checkpoint(main, seed=seed) >= 10


STEPS = {
    "stream left": a_stream(4, 2, 2, session="s"),
    "stream": a_stream(3, None, 1, "slow_stop", session="s"),
    "map": a_map(5, limit=2, session="s"),
    "map and death": a_map(4, "crash", ordered=False, on_error="return", session="s"),
}


@pytest.mark.parametrize(("name", "seed"), in_turns(STEPS))
def test_a_block_with_streams_and_maps(name: str, seed: int) -> None:
    step = STEPS[name]

    async def use(scene: Scene, pool: Pool) -> None:
        async with pool.session("s") as session:
            await make_step(scene.world, pool, step, session)

    assert cancel_anywhere(lambda: Scene(step, a_call(AFTER)), use, seed=seed) >= 10


def tell(world: World, pool: Pool, session: str) -> Callable[[], Any]:
    """`end_session` as a step, which notes what it sees."""
    return lambda: make_step(world, pool, EndPlan(session, 0.0, None))


@pytest.mark.parametrize(
    ("how", "affinity", "seed"), in_turns(["return", "slow_stop", "crash", "stubborn"], AFFINITIES)
)
def test_a_session_on_demand_and_its_end(how: str, affinity: str, seed: int) -> None:
    """Made, used, and ended; where that is cut short it can still be ended, and is gone then."""

    async def main(point: CancelPoint) -> None:
        scene = Scene(
            in_s(BEFORE),
            in_s(TESTED, how),
            a_call(AFTER),
            size=2,
            sessions=Sessions(affinity=affinity),
        )
        async with scene.opened() as pool:
            end = tell(scene.world, pool, "s")
            async with trio.open_nursery() as others:
                with point:
                    await scene.call(pool, BEFORE)
                    others.start_soon(scene.call, pool, TESTED)
                    await trio.sleep(0.1)
                    await end()
                    assert len(pool._core.sessions) == 0
            await end()
            await scene.call(pool, AFTER)
            scene.check_quiet(pool)
        assert scene.kind(AFTER) == "value"

    assert cancel_at_every_checkpoint(main, seed=seed) >= 15


@pytest.mark.parametrize("seed", SEEDS)
def test_the_end_of_a_session_that_two_end_at_a_time(seed: int) -> None:
    """One of the two is cancelled: the other one sees to it."""

    async def main(point: CancelPoint) -> None:
        scene = Scene(in_s(TESTED, "slow_stop"), a_call(AFTER))
        async with scene.opened() as pool:
            async with trio.open_nursery() as others:
                others.start_soon(scene.call, pool, TESTED)
                await trio.sleep(0.1)
                others.start_soon(tell(scene.world, pool, "s"))
                with point:
                    await tell(scene.world, pool, "s")()
            assert len(pool._core.sessions) == 0
            await scene.call(pool, AFTER)
            scene.check_quiet(pool)
        assert scene.kind(TESTED) == "SessionNotFoundError"

    assert cancel_at_every_checkpoint(main, seed=seed) >= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_one_session_of_two_leaves_the_other_one_whole(seed: int) -> None:
    """Calls of a session next door, before and after, find what they left; nobody else's."""

    async def main(point: CancelPoint) -> None:
        kept = [a_call(OTHERS + n, seconds=0.01, session="kept") for n in range(3)]
        scene = Scene(in_s(TESTED), *kept, a_call(AFTER))

        async def use(session: Session, count: int) -> None:
            for call in kept[:count]:
                await make_call(scene.world, pool, call, session)

        async with scene.opened() as pool:
            async with pool.session("kept") as session:
                async with trio.open_nursery() as others:
                    others.start_soon(use, session, 2)
                    with point:
                        async with pool.session("s") as cut:
                            await scene.call(pool, TESTED, cut)
                await make_call(scene.world, pool, kept[2], session)
                [count] = [worker.sessions for worker in pool.workers()]
                assert count == 1
            await scene.call(pool, AFTER)
            scene.check_quiet(pool)
        assert [scene.kind(call.number) for call in kept] == ["value"] * 3

    assert cancel_at_every_checkpoint(main, seed=seed) >= 7
