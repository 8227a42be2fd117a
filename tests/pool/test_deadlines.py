"""The pool's alarms: in order, at their time, never once cancelled, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from snakepit.pool._deadlines import DEAD_ENTRIES_MIN, Deadlines


@asynccontextmanager
async def watched() -> AsyncGenerator[Deadlines]:
    """Deadlines that ring while the block runs."""
    deadlines = Deadlines()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deadlines.watch)
        yield deadlines
        tasks.cancel_scope.cancel()


class Bell:
    """Remembers which alarms went off, and when."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, float]] = []

    def __call__(self, name: str) -> Callable[[], None]:
        return lambda: self.rung.append((name, trio.current_time()))


@pytest.mark.trio
async def test_alarms_ring_in_order_and_at_their_time(autojump_clock: MockClock) -> None:
    bell, start = Bell(), trio.current_time()
    async with watched() as deadlines:
        for name, delay in [("c", 3.0), ("a", 1.0), ("d", 3600.0), ("b", 2.0)]:
            deadlines.at(start + delay, bell(name))
        await trio.sleep(4000)
    assert bell.rung == [(name, start + t) for name, t in zip("abcd", [1, 2, 3, 3600], strict=True)]


@pytest.mark.trio
async def test_alarms_of_one_time_ring_in_the_order_of_their_setting(
    autojump_clock: MockClock,
) -> None:
    bell, when = Bell(), trio.current_time() + 1
    async with watched() as deadlines:
        for name in "abcdef":
            deadlines.at(when, bell(name))
        await trio.sleep(2)
    assert [name for name, _ in bell.rung] == list("abcdef")


@pytest.mark.trio
async def test_a_cancelled_alarm_never_rings(autojump_clock: MockClock) -> None:
    """Cancelling is harmless twice, of None, and after it rang."""
    bell, start = Bell(), trio.current_time()
    async with watched() as deadlines:
        first = deadlines.at(start + 1, bell("first"))
        second = deadlines.at(start + 2, bell("second"))
        third = deadlines.at(start + 3, bell("third"))
        assert len(deadlines) == 3
        await trio.sleep(1.5)
        assert len(deadlines) == 2
        for alarm in (first, second, second, None):
            deadlines.cancel(alarm)
        assert len(deadlines) == 1
        await trio.sleep(10)
        assert len(deadlines) == 0
    assert third.action is None
    assert [name for name, _ in bell.rung] == ["first", "third"]


@pytest.mark.trio
async def test_an_earlier_alarm_set_later_wakes_earlier(autojump_clock: MockClock) -> None:
    bell, start = Bell(), trio.current_time()
    async with watched() as deadlines:
        deadlines.at(start + 100, bell("late"))
        await trio.sleep(1)
        deadlines.at(start + 5, bell("early"))
        await trio.sleep(1)
        deadlines.at(start + 3, bell("earlier"))
        await trio.sleep(200)
    assert bell.rung == [("earlier", start + 3), ("early", start + 5), ("late", start + 100)]


@pytest.mark.trio
async def test_an_alarm_for_the_past_rings_at_once(autojump_clock: MockClock) -> None:
    bell, start = Bell(), trio.current_time()
    async with watched() as deadlines:
        deadlines.at(start - 5, bell("before the watch looked"))
        await trio.sleep(1)
        deadlines.at(start - 5, bell("while it slept"))
        await trio.sleep(1)
    assert bell.rung == [("before the watch looked", start), ("while it slept", start + 1)]


@pytest.mark.trio
async def test_an_alarm_at_infinity_never_rings(autojump_clock: MockClock) -> None:
    bell, start = Bell(), trio.current_time()
    async with watched() as deadlines:
        deadlines.at(math.inf, bell("never"))
        deadlines.at(start + 1, bell("once"))
        await trio.sleep(80_000)
    assert bell.rung == [("once", start + 1)]


@pytest.mark.trio
async def test_an_action_may_set_and_cancel_alarms(autojump_clock: MockClock) -> None:
    """As the watch of overdue calls does, which sets itself anew."""
    bell, start = Bell(), trio.current_time()
    async with watched() as deadlines:
        victim = deadlines.at(start + 2.5, bell("victim"))

        def tick() -> None:
            bell("tick")()
            if len(bell.rung) < 3:
                deadlines.at(trio.current_time() + 1, tick)
            elif len(bell.rung) == 3:
                deadlines.at(trio.current_time(), bell("at once"))
            deadlines.cancel(victim)

        deadlines.at(start + 1, tick)
        await trio.sleep(10)
    assert bell.rung == [
        ("tick", start + 1),
        ("tick", start + 2),
        ("tick", start + 3),
        ("at once", start + 3),
    ]


@pytest.mark.trio
async def test_alarms_set_before_the_watch_begins_ring_too(autojump_clock: MockClock) -> None:
    bell, start, deadlines = Bell(), trio.current_time(), Deadlines()
    deadlines.at(start + 1, bell("set first"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.watch)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert bell.rung == [("set first", start + 1)]


def test_cancelled_alarms_take_bounded_memory() -> None:
    """As many calls as you like may set an alarm that is never needed."""
    deadlines = Deadlines()
    kept = [deadlines.at(1e9 + number, lambda: None) for number in range(10)]
    longest = 0
    for number in range(100_000):
        deadlines.cancel(deadlines.at(1e6 + number, lambda: None))
        longest = max(longest, len(deadlines._heap))
    assert longest <= len(kept) + DEAD_ENTRIES_MIN + 1
    assert len(deadlines) == len(kept)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=200), st.data())
def test_what_rings_is_what_is_due_and_not_cancelled(
    alarms: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """Through the compaction of the heap too; the count is exact at every point."""
    deadlines = Deadlines()
    rung: list[int] = []
    made = [
        deadlines.at(float(when), partial(rung.append, number))
        for number, (when, _) in enumerate(alarms)
    ]
    dead = [number for number, (_, cancelled) in enumerate(alarms) if cancelled]
    for number in data.draw(st.permutations(dead)):
        deadlines.cancel(made[number])
    live = [number for number, (_, cancelled) in enumerate(alarms) if not cancelled]
    for now in (5.0, 20.0):
        deadlines._ring(now)
        due = [number for number in live if alarms[number][0] <= now]
        assert rung == sorted(due, key=lambda number: (alarms[number][0], number))
        assert len(deadlines) == len(live) - len(due)


async def test_alarms_ring_on_the_real_clock_of_either_loop() -> None:
    """Never early; one set while the watch sleeps for another wakes it."""
    rang_at, rang = [], anyio.Event()

    def ring() -> None:
        rang_at.append(anyio.current_time())
        rang.set()

    with anyio.fail_after(10):
        async with watched() as deadlines:
            deadlines.at(anyio.current_time() + 3600, lambda: rang_at.append(math.nan))
            await anyio.wait_all_tasks_blocked()
            when = anyio.current_time() + 0.02
            deadlines.at(when, ring)
            await rang.wait()
    assert len(rang_at) == 1
    assert rang_at[0] >= when
