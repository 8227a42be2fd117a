"""Host calls, cancelled at every checkpoint: tool and host tool have both stopped by then."""

from __future__ import annotations

from typing import Any

import pytest
from sim_plan import CallPlan, TalkPlan
from sim_scenes import AFTER, SEEDS, TESTED, Scene, a_call, cancel_anywhere, in_turns

from snakepit import Pool

TALKS = {
    "one": TalkPlan(1, 0.1),
    "at once": TalkPlan(3, 0.1, at_once=True),
    "short ones": TalkPlan(3, 0.0),
    "plain ones": TalkPlan(3, 0.0, "plain"),
    "plain ones at once": TalkPlan(3, 0.0, "plain", at_once=True),
    "a slow stop": TalkPlan(1, 0.1, "slow_stop"),
    "an error": TalkPlan(2, 0.1, "raise"),
    "a call for it": TalkPlan(2, 0.1, "nest"),
    "calls for it at once": TalkPlan(3, 0.0, "nest", at_once=True),
}


def a_talk(name: str, how: str = "return", **more: Any) -> CallPlan:
    order = {"call": TESTED, "seconds": 0.05, "how": how, "extra": 0.1}
    return CallPlan(TESTED, "confer", order, talk=TALKS[name], **more)


async def make_tested(scene: Scene, pool: Pool) -> None:
    await scene.call(pool, TESTED)


@pytest.mark.parametrize(
    ("name", "how", "seed"), in_turns(TALKS, ["return", "slow_stop", "stubborn", "crash"])
)
def test_a_call_that_calls_its_host(name: str, how: str, seed: int) -> None:
    """With two workers: what it makes its host call has one of its own."""

    def make() -> Scene:
        return Scene(a_talk(name, how), a_call(AFTER), size=2)

    assert cancel_anywhere(make, make_tested, seed=seed) >= 7


@pytest.mark.parametrize("seed", SEEDS)
def test_a_call_that_could_only_wait_for_itself(seed: int) -> None:
    """With one worker: the call that is made for it is refused, whenever all of it is cancelled."""

    def make() -> Scene:
        return Scene(a_talk("a call for it"), a_call(AFTER))

    assert cancel_anywhere(make, make_tested, seed=seed) >= 7


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_session(seed: int) -> None:
    async def use(scene: Scene, pool: Pool) -> None:
        async with pool.session("s") as session:
            await scene.call(pool, TESTED, session)

    def make() -> Scene:
        return Scene(a_talk("one", session="s"), a_call(AFTER), size=2)

    assert cancel_anywhere(make, use, seed=seed) >= 10
