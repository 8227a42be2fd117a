"""Looking again and again before sleeping: how long, and when it is left out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from _backends import one_loop_each
from _transports import OF_PROCESSES

from snakepit import _busy_wait, open_pool
from snakepit._busy_wait import LIMIT_S, SKIPS_MAX, BusyWait


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Two CPUs, and a clock that goes on by a tenth of the limit with each look at it."""
    times = [0.0]

    def perf_counter() -> float:
        times.append(times[-1] + LIMIT_S / 10)
        return times[-1]

    monkeypatch.setattr(_busy_wait, "usable_cpus", lambda: 2)
    monkeypatch.setattr(_busy_wait, "perf_counter", perf_counter)
    return times


def reached(count: int, numbers: Iterator[int]) -> int:
    return count if next(numbers) >= count else 0


def skips(busy_wait: BusyWait) -> int:
    """How often it is left out now."""
    count = 0
    while not busy_wait.is_due():
        count += 1
    return count


def test_what_is_there_is_found_at_the_first_look() -> None:
    busy_wait = BusyWait()
    assert busy_wait.is_due()
    found = iter(["an answer"])
    assert busy_wait.look(lambda: next(found)) == "an answer"
    assert busy_wait.is_due()


def test_what_comes_in_time_is_found_and_what_does_not_is_not_waited_for() -> None:
    for count, result in ((9, 9), (1000, 0)):
        asked = iter(range(1, 2000))
        assert BusyWait().look(partial(reached, count, asked)) == result
        assert next(asked) <= 12


def test_each_time_in_vain_doubles_how_often_it_is_left_out() -> None:
    busy_wait = BusyWait()
    left_out = []
    for _ in range(13):
        busy_wait.look(lambda: 0)
        left_out.append(skips(busy_wait))
    assert left_out == [2**n for n in range(10)] + 3 * [SKIPS_MAX]


def test_each_success_halves_it() -> None:
    busy_wait = BusyWait()
    for _ in range(4):
        busy_wait.look(lambda: 0)
        skips(busy_wait)
    for left_out in (8, 8, 8):  # 16 was next
        busy_wait.look(lambda: 1)
        assert skips(busy_wait) == 0
        busy_wait.look(lambda: 0)
        assert skips(busy_wait) == left_out
    for _ in range(9):
        busy_wait.look(lambda: 1)
    busy_wait.look(lambda: 0)
    assert skips(busy_wait) == 1


@one_loop_each
@pytest.mark.parametrize("transport", OF_PROCESSES)
async def test_only_where_nobody_in_this_process_stands_between_is_there_a_look(
    transport: str,
) -> None:
    """grpclib's task, or thread, could not read while it is looked for what it has read."""
    async with open_pool(size=1, transport=transport) as pool:
        await pool.ready()
        channel = pool._core.slots[0].worker._channel
        assert channel is not None
        assert channel.is_direct is (transport in ("stdio", "shm"))


def test_with_one_cpu_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_busy_wait, "usable_cpus", lambda: 1)
    busy_wait = BusyWait()
    assert not any(busy_wait.is_due() for _ in range(2 * SKIPS_MAX))
