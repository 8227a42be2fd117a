"""Cancelled at the k-th checkpoint, for every k: start-up, calls and streams, schedules in turns.

A checkpoint here is any turn of any task, so these are all the moments at which a cancellation can
come. After each run everything is checked that is checked after a simulation.
"""

from __future__ import annotations

import pytest
import trio
from sim_callers import make_call
from sim_plan import CallPlan
from sim_scenes import (
    AFTER,
    OTHERS,
    SEEDS,
    TESTED,
    Scene,
    a_call,
    a_stream,
    cancel_anywhere,
    in_turns,
)
from sim_spies import spying

from snakepit import Pool
from snakepit.testing import CancelPoint, cancel_at_every_checkpoint


async def make_tested(scene: Scene, pool: Pool) -> None:
    await scene.call(pool, TESTED)


# -- start-up --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "seed"), in_turns(["ready", "slow", "crash", "raise"]))
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


@pytest.mark.parametrize(
    ("of", "seed"),
    in_turns([*(("work", how) for how in HOWS), ("again", "crash"), ("fragile", "return")]),
)
def test_execute(of: tuple[str, str], seed: int) -> None:
    """Wherever it is cut short: its tool has stopped, and the next call finds a pool that serves."""

    def make() -> Scene:
        tool, how = of
        return Scene(a_call(TESTED, how, tool), a_call(AFTER))

    assert cancel_anywhere(make, make_tested, seed=seed) >= 7
    assert cancel_anywhere(make, make_tested, seed=seed, steps="task") >= 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("hears", ["at once", "slowly"])
def test_execute_with_progress(hears: str, seed: int) -> None:
    """Also where the caller is busy with an update: the tool has stopped, and tells nothing more."""

    def make() -> Scene:
        return Scene(a_call(TESTED, updates=5, hears=hears), a_call(AFTER))

    assert cancel_anywhere(make, make_tested, seed=seed) >= 20


@pytest.mark.parametrize("seed", SEEDS)
def test_execute_among_others(seed: int) -> None:
    """Short calls of others, sent ahead before it and behind it, all come to their end."""

    async def main(point: CancelPoint) -> None:
        others = [a_call(OTHERS + n, seconds=0) for n in range(8)]
        scene = Scene(a_call(TESTED, seconds=0), a_call(AFTER), *others)
        async with scene.opened() as pool, trio.open_nursery() as nursery:
            for call in others[:4]:
                nursery.start_soon(make_call, scene.world, pool, call)
            await trio.lowlevel.checkpoint()
            with point:
                async with trio.open_nursery() as inner:
                    inner.start_soon(scene.call, pool, TESTED)
                    for call in others[4:]:
                        nursery.start_soon(make_call, scene.world, pool, call)
            await scene.call(pool, AFTER)
        assert [scene.kind(call.number) for call in others] == ["value"] * 8

    assert cancel_at_every_checkpoint(main, seed=seed) > 20


# -- streams -----------------------------------------------------------------------------------------


def name_of(of: object) -> object:
    is_stream = isinstance(of, CallPlan)
    return f"{of.read}-of-{of.items}-{of.order['how']}" if is_stream else of


STREAMS = [
    a_stream(4, None, 16),
    a_stream(4, None, 1, seconds=0.0),
    a_stream(4, 2, 2),
    a_stream(6, 1, 1, seconds=0.0),
    a_stream(0, None, 1),
    a_stream(3, None, 2, "raise"),
    a_stream(3, 1, 3, "slow_stop"),
    a_stream(3, None, 1, "crash"),
]


@pytest.mark.parametrize(("stream", "seed"), in_turns(STREAMS), ids=name_of)
def test_stream(stream: CallPlan, seed: int) -> None:
    """Read to its end or left early, and cut short anywhere: its generator is closed by then."""

    assert cancel_anywhere(lambda: Scene(stream, a_call(AFTER)), make_tested, seed=seed) >= 5
