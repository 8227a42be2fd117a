"""Inputs, cancelled at every checkpoint: the tool has stopped by then, and the input is closed."""

from __future__ import annotations

from typing import Any

import pytest
from sim_plan import CallPlan, MealPlan
from sim_scenes import AFTER, SEEDS, TESTED, Scene, a_call, cancel_anywhere, in_turns

from snakepit import Pool

MEALS = {
    "all": MealPlan(4),
    "more than a window": MealPlan(20),
    "as it comes": MealPlan(3, 0.1),
    "some": MealPlan(6, 0.1, bites=2),
    "none": MealPlan(3, bites=0),
    "nothing": MealPlan(0),
    "an error": MealPlan(4, 0.1, fails_at=2),
}


def a_meal(name: str, how: str = "return", **more: Any) -> CallPlan:
    order = {"call": TESTED, "seconds": 0.05, "how": how, "extra": 0.1}
    return CallPlan(TESTED, "eat", order, meal=MEALS[name], **more)


async def make_tested(scene: Scene, pool: Pool) -> None:
    await scene.call(pool, TESTED)


@pytest.mark.parametrize(
    ("name", "how", "seed"), in_turns(MEALS, ["return", "slow_stop", "stubborn", "crash"])
)
def test_a_call_with_an_input(name: str, how: str, seed: int) -> None:
    def make() -> Scene:
        return Scene(a_meal(name, how), a_call(AFTER))

    assert cancel_anywhere(make, make_tested, seed=seed) >= 5


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_session(seed: int) -> None:
    async def use(scene: Scene, pool: Pool) -> None:
        async with pool.session("s") as session:
            await scene.call(pool, TESTED, session)

    def make() -> Scene:
        return Scene(a_meal("as it comes", session="s"), a_call(AFTER), size=2)

    assert cancel_anywhere(make, use, seed=seed) >= 10
