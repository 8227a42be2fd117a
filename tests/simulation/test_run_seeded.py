"""`run_seeded`, `SeededFaults` and `cancel_at_every_checkpoint`: what they promise to their users."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from trio._core import _run

from snakepit import Adapter, ConfigError, open_pool, tool
from snakepit.testing import (
    CancelPoint,
    Delay,
    Die,
    Garbage,
    MemoryTransport,
    Passage,
    SeededFaults,
    Silence,
    StuckError,
    cancel_at_every_checkpoint,
    run_seeded,
)

DAY_S = 86400.0


class Turns(trio.abc.Instrument):
    """The names of the tasks, in the order of their turns."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name)


async def race(random: Random) -> list[int]:
    """The order in which tasks come through that are ready all at once."""
    order: list[int] = []

    async def runner(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(runner, number)
    return [*order, random.randrange(10**6)]


# -- run_seeded ------------------------------------------------------------------------------------


def test_one_seed_one_schedule() -> None:
    turns = Turns(), Turns()
    first, again = (run_seeded(3, race, instruments=(turn,)) for turn in turns)
    assert first == again
    assert turns[0].names == turns[1].names
    assert len({tuple(run_seeded(seed, race)) for seed in range(20)}) == 20


def test_a_schedule_does_not_depend_on_what_trio_did_before() -> None:
    expected = run_seeded(5, race)
    for number in range(5):
        trio.run(race, Random(number), clock=trio.testing.MockClock(autojump_threshold=0))
        assert run_seeded(5, race) == expected


def test_trio_is_left_as_it_was() -> None:
    before = _run._r.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING
    run_seeded(1, race)
    with pytest.raises(ExceptionGroup):
        run_seeded(2, in_a_nursery(fail))
    assert (_run._r.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_a_day_takes_no_time() -> None:
    async def sleep(_random: Random) -> float:
        await trio.sleep(DAY_S)
        return trio.current_time()

    began = time.monotonic()
    assert run_seeded(0, sleep) == DAY_S
    assert time.monotonic() - began < 5


def test_what_main_raises_comes_out_with_the_seed() -> None:
    with pytest.raises(LookupError) as caught:
        run_seeded(17, fail)
    assert caught.value.__notes__ == ["in run_seeded with seed 17"]


def test_a_run_that_does_not_end_is_an_error() -> None:
    async def wait(_random: Random) -> None:
        await trio.sleep_forever()

    with pytest.raises(StuckError, match="had not ended after 60 virtual seconds"):
        run_seeded(0, wait, virtual_s_max=60)


def test_a_run_that_no_cancellation_ends_is_broken_up_and_tells_who_waits() -> None:
    async def hide() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async def wait(_random: Random) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hide, name="the one in hiding")
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(StuckError, match=r"the one in hiding: .*hide \(test_run_seeded.py:\d+\)"):
        run_seeded(0, wait, virtual_s_max=60)


def test_the_limit_of_a_run_is_no_deadline_of_what_runs_in_it() -> None:
    async def look(_random: Random) -> float:
        return trio.current_effective_deadline()

    assert run_seeded(0, look) == float("inf")


async def fail(_random: Random) -> None:
    raise LookupError("on purpose")


def in_a_nursery(main: Callable[[Random], Awaitable[Any]]) -> Callable[[Random], Awaitable[Any]]:
    async def run(random: Random) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(main, random)

    return run


# -- SeededFaults ----------------------------------------------------------------------------------

RATES = {"death": 0.2, "delay": 0.2, "silence": 0.2, "garbage": 0.2}


def passage(number: int) -> Passage:
    return Passage(1, number, "to_host", None)  # type: ignore[arg-type]


def test_one_seed_one_lot() -> None:
    def drawn(seed: int) -> list[Any]:
        faults = SeededFaults(Random(seed), **RATES)
        return [faults(passage(number)) for number in range(100)]

    assert drawn(1) == drawn(1) != drawn(2)
    kinds = {type(fault) for fault in drawn(1)}
    assert kinds == {type(None), Delay, Die, Garbage, Silence}


def test_rates_are_kept_and_what_happened_is_remembered() -> None:
    faults = SeededFaults(Random(0), delay=0.25, delay_max_s=2)
    count = sum(faults(passage(number)) is not None for number in range(4000))
    assert 900 < count == len(faults.happened) < 1100
    delays = [fault.seconds for _, fault in faults.happened if isinstance(fault, Delay)]
    assert len(delays) == count
    assert 0 <= min(delays) < 0.1
    assert 1.9 < max(delays) <= 2


def test_nothing_happens_to_what_is_spared_or_while_it_is_disabled() -> None:
    faults = SeededFaults(Random(0), death=1, spare={"NoneType"})
    assert faults(passage(1)) is None
    faults = SeededFaults(Random(0), death=1)
    faults.enabled = False
    assert faults(passage(1)) is None
    faults.enabled = True
    assert isinstance(faults(passage(1)), Die)


@pytest.mark.parametrize(
    "wrong", [{"death": -0.1}, {"delay": 1.1}, {"death": 0.6, "silence": 0.6}, {"delay_max_s": -1}]
)
def test_wrong_rates_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SeededFaults(Random(0), **wrong)


class Steady(Adapter):
    @tool(idempotent=True)
    async def double(self, number: int) -> int:
        await trio.sleep(0.1)
        return 2 * number


def test_a_pool_lives_through_a_hundred_deaths() -> None:
    async def main(random: Random) -> int:
        faults = SeededFaults(random, death=0.05, spare={"Hello", "Start", "Ready"})
        transport = MemoryTransport(faults=faults)
        async with open_pool(Steady, size=2, transport=transport) as pool:
            answers = 0
            for number in range(1000):
                try:
                    answers += await pool.execute("double", {"number": number}) == 2 * number
                except Exception:
                    continue
        return answers * (len(faults.happened) > 100)

    assert run_seeded(0, main) > 900


# -- cancel_at_every_checkpoint ----------------------------------------------------------------------


def test_the_block_is_cancelled_at_each_checkpoint_in_turn() -> None:
    reached: list[int] = []

    async def main(point: CancelPoint) -> None:
        steps = 0
        with point:
            for _ in range(4):
                await trio.lowlevel.checkpoint()
                steps += 1
        reached.append(steps)

    assert cancel_at_every_checkpoint(main, steps="task") == 4
    assert reached == [0, 0, 1, 2, 3, 4]


def test_the_turns_of_all_tasks_count_unless_those_of_one_are_asked_for() -> None:
    async def main(point: CancelPoint) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(race, Random(0))
            with point:
                await trio.sleep(0.5)
            nursery.cancel_scope.cancel()

    assert cancel_at_every_checkpoint(main, steps="task") == 1
    assert cancel_at_every_checkpoint(main) > 8


def test_a_failure_tells_at_which_checkpoint_it_was() -> None:
    async def main(point: CancelPoint) -> None:
        with point:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        assert point.number != 2

    with pytest.raises(AssertionError) as caught:
        cancel_at_every_checkpoint(main, steps="task")
    assert "cancelled at checkpoint 2; first=2 begins there" in caught.value.__notes__
    with pytest.raises(AssertionError):
        cancel_at_every_checkpoint(main, steps="task", first=2)


def test_a_cancel_point_is_entered_once() -> None:
    async def never(_point: CancelPoint) -> None:
        await trio.lowlevel.checkpoint()

    async def twice(point: CancelPoint) -> None:
        with point:
            await trio.lowlevel.checkpoint()
        with point:
            await trio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="has to enter"):
        cancel_at_every_checkpoint(never)
    with pytest.raises(RuntimeError, match="one block, once"):
        cancel_at_every_checkpoint(twice)
