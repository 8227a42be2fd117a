"""A pool under trio's mock clock: a day takes milliseconds, and no tool is jumped over."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from _backends import virtual_time

from snakepit import (
    Adapter,
    CallTimeoutError,
    CrashBarrier,
    Queue,
    QueueTimeoutError,
    Startup,
    Stop,
    WorkerDiedError,
    context,
    open_pool,
    tool,
)
from snakepit.testing import Delay, Faults, MemoryTransport, crash

DAY_S = 86_400.0
REAL_S_MAX = 20.0  # for what takes a fraction of a second on an unloaded machine


class Day(Adapter):
    """Naps on the loop's clock, works on the real one."""

    @tool
    async def nap(self, seconds: float) -> float:
        await anyio.sleep(seconds)
        return seconds

    @tool
    async def ticks(self, count: int, pause: float) -> AsyncIterator[float]:
        for _ in range(count):
            await anyio.sleep(pause)
            yield anyio.current_time()

    @tool
    async def die_later(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        crash()

    @tool
    def work(self, real_seconds: float) -> str:
        time.sleep(real_seconds)
        return "done"

    @tool
    def numbers(self, count: int) -> Iterator[int]:
        for number in range(count):
            time.sleep(0.002)
            yield number


class SlowHooks(Adapter):
    """Sync hooks, and a constructor, that take real time."""

    def __init__(self) -> None:
        time.sleep(0.05)

    def initialize(self) -> None:
        time.sleep(0.05)

    def cleanup(self) -> None:
        time.sleep(0.05)

    @tool
    async def nothing(self) -> None: ...


def day_pool(adapter: Any = Day, **options: Any) -> Any:
    return open_pool(adapter, transport="memory", **options)


@virtual_time
@pytest.mark.unmeasured
async def test_a_day_of_calls_takes_no_time() -> None:
    """Every minute of a day a call of half a minute, on two workers; every hour one of them dies."""
    real, began = time.perf_counter(), anyio.current_time()
    answered, died = 0, 0
    async with day_pool(size=2) as pool:
        for minute in range(24 * 60):
            if minute % 60 == 0:
                with pytest.raises(WorkerDiedError):
                    await pool.execute("die_later", {"seconds": 30})
                died += 1
            else:
                assert await pool.execute("nap", {"seconds": 30}) == 30
                answered += 1
            await anyio.sleep(30)
        assert pool.stats().restarts == died
    assert (answered, died) == (24 * 59, 24)
    # A little more: a worker that died before it had finished a call is replaced after a pause.
    assert DAY_S <= anyio.current_time() - began < DAY_S + 1800
    assert time.perf_counter() - real < REAL_S_MAX


@virtual_time
async def test_the_clock_stands_still_while_a_sync_tool_runs() -> None:
    """And goes on when it has ended: a sleep of an hour beside it is not over before it."""
    order: list[str] = []
    async with day_pool(size=1) as pool, anyio.create_task_group() as tasks:

        async def sleep_an_hour() -> None:
            await anyio.sleep(3600)
            order.append("slept")

        tasks.start_soon(sleep_an_hour)
        began = anyio.current_time()
        assert await pool.execute("work", {"real_seconds": 0.2}, timeout=1) == "done"
        assert anyio.current_time() - began < 1
        order.append("worked")
    assert order == ["worked", "slept"]
    assert anyio.current_time() - began >= 3600


@virtual_time
async def test_the_clock_stands_still_until_the_last_of_many_has_ended() -> None:
    async with day_pool(size=4, min_ready=4) as pool, anyio.create_task_group() as tasks:
        began = anyio.current_time()
        ended: list[float] = []

        async def work(real_seconds: float) -> None:
            await pool.execute("work", {"real_seconds": real_seconds})
            ended.append(anyio.current_time() - began)

        for number in range(4):
            tasks.start_soon(work, 0.05 * number)
        tasks.start_soon(anyio.sleep, DAY_S)
    assert len(ended) == 4
    assert max(ended) < 1


@virtual_time
async def test_hooks_and_constructor_are_not_jumped_over() -> None:
    startup = Startup(init_timeout=0.01)
    async with day_pool(SlowHooks, size=2, startup=startup, stop=Stop(drain_timeout=0.01)) as pool:
        await pool.ready()
        await pool.execute("nothing")
        [first, second] = pool.workers()
        assert {first.id[-2:], second.id[-2:]} == {".1"}
    assert pool.stats().restarts == 0


@virtual_time
async def test_the_clock_runs_while_a_sync_generator_waits_for_its_reader() -> None:
    """Its thread has nothing to do then; else a reader that sleeps would never wake."""
    async with day_pool(size=1) as pool:
        began = anyio.current_time()
        async with pool.stream("numbers", {"count": 20}, window=2) as numbers:
            async for _ in numbers:
                await anyio.sleep(3600)
        assert anyio.current_time() - began == pytest.approx(20 * 3600, abs=60)
        assert await pool.execute("work", {"real_seconds": 0.05}, timeout=1) == "done"


@virtual_time
async def test_a_stream_over_hours() -> None:
    async with (
        day_pool(size=1) as pool,
        pool.stream("ticks", {"count": 24, "pause": 3600.0}) as ticks,
    ):
        seen = [tick async for tick in ticks]
    gaps = [later - earlier for earlier, later in pairwise(seen)]
    assert gaps == pytest.approx([3600.0] * 23)


@virtual_time
async def test_timeouts_and_graces_are_exact() -> None:
    async with day_pool(size=1, queue=Queue(timeout=50)) as pool:
        began = anyio.current_time()
        with pytest.raises(CallTimeoutError):
            await pool.execute("nap", {"seconds": DAY_S}, timeout=100)
        assert anyio.current_time() - began == pytest.approx(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "nap", {"seconds": 1000.0})
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            with pytest.raises(QueueTimeoutError):
                await pool.execute("nap", {"seconds": 1.0})
            assert anyio.current_time() - began == pytest.approx(50)


@virtual_time
async def test_backoff_and_restarts_over_an_hour() -> None:
    """Workers that die again and again: the budget of a minute is never used up."""
    barrier = CrashBarrier(max_restarts=5, window=60, quarantine_after=None)
    async with day_pool(size=1, crash_barrier=barrier) as pool:
        for _ in range(60):
            with pytest.raises(WorkerDiedError):
                await pool.execute("die_later", {"seconds": 60.0})
        assert pool.stats().restarts >= 59


@virtual_time
@pytest.mark.unmeasured
async def test_opening_many_workers_in_batches_waits_on_the_mock_clock() -> None:
    began, real = anyio.current_time(), time.perf_counter()
    async with day_pool(size=240) as pool:
        await pool.ready()
        assert anyio.current_time() - began > 20, "30 batches of 8, 0.75 s apart"
    assert time.perf_counter() - real < REAL_S_MAX


@virtual_time
async def test_a_call_that_never_reached_its_worker_waits_no_longer_than_others() -> None:
    """It began at once, on a worker that was gone; from then on `Queue.timeout` counts."""
    transport = MemoryTransport(faults=Faults({"Ready": [None, Delay(60)]}))
    async with (
        open_pool(Day, size=1, transport=transport, queue=Queue(timeout=3)) as pool,
        anyio.create_task_group() as tasks,
    ):
        await pool.ready()
        worker = pool._core.slots[0].worker
        worker._channel._peer_gone = True  # type: ignore[union-attr] # nobody has noticed yet

        async def notice() -> None:
            await anyio.sleep(5)
            worker.condemn("died")

        tasks.start_soon(notice)
        start = anyio.current_time()
        with pytest.raises(QueueTimeoutError):
            await pool.execute("nap", {"seconds": 1})
        assert anyio.current_time() - start == pytest.approx(8, abs=0.1)


class Sync(Adapter):
    @tool
    def nothing(self) -> None: ...

    @tool
    def die(self) -> None:
        crash()


@virtual_time
async def test_the_clock_stands_still_while_the_thread_of_a_worker_ends() -> None:
    """At the pool's end, and when a worker dies: neither takes any time of the loop's."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, DAY_S)
        start = anyio.current_time()
        for _ in range(10):
            async with open_pool(Sync, size=2, transport="memory") as pool:
                await pool.execute("nothing")
                with pytest.raises(WorkerDiedError):
                    await pool.execute("die")
                await pool.execute("nothing")
        assert anyio.current_time() == start
        tasks.cancel_scope.cancel()


def test_a_clock_with_a_rate_stands_still_too() -> None:
    clock = trio.testing.MockClock()

    async def main() -> float:
        async with open_pool(Day, size=1, transport="memory") as pool:
            clock.rate = 1000  # not before: starting has a limit, which this would run out
            start = anyio.current_time()
            await pool.execute("work", {"real_seconds": 0.5})
            clock.rate = 0
            return anyio.current_time() - start

    # A thousand seconds a second: what is left is the loop's own work.
    assert trio.run(main, clock=clock) < 400


class Teller(Adapter):
    @tool
    async def tell(self, count: int, pause: float) -> None:
        for number in range(count):
            context().progress(number)
            time.sleep(0.002)  # of the real clock, which must not matter
            await anyio.sleep(pause)


@virtual_time
async def test_progress_comes_by_the_clock_of_the_loop() -> None:
    """So one seed stays one run, however slow the machine is."""
    seen: list[tuple[float, float]] = []
    async with open_pool(Teller, size=1, transport="memory") as pool:
        start = anyio.current_time()

        def note(done: float, _total: float | None, _message: str | None) -> None:
            seen.append((round(anyio.current_time() - start, 4), done))

        await pool.execute("tell", {"count": 9, "pause": 0.006}, on_progress=note)
    assert seen == [(0.0, 0), (0.02, 3), (0.04, 6), (0.054, 8)]


@virtual_time
@pytest.mark.parametrize(("seconds", "is_over"), [(25.0, False), (31.0, True)])
async def test_a_taint_is_over_after_its_time(seconds: float, is_over: bool) -> None:
    """Then the slot is like others: of two that idle the one that had the last call gets the next."""
    barrier = CrashBarrier(taint=30)
    async with day_pool(size=2, min_ready=2, crash_barrier=barrier) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die_later", {"seconds": 0})
        slot = caught.value.worker_id.rpartition(".")[0] + "."
        await pool.ready()
        await anyio.sleep(seconds)

        def served() -> int:
            [worker] = [worker for worker in pool.workers() if worker.id.startswith(slot)]
            return worker.requests

        async with anyio.create_task_group() as tasks:  # it has the second call, and the longer one
            tasks.start_soon(pool.execute, "nap", {"seconds": 1})
            await anyio.sleep(0.5)
            tasks.start_soon(pool.execute, "nap", {"seconds": 1})
        assert served() == 1
        await pool.execute("nap", {"seconds": 0})
        assert served() == 1 + is_over
