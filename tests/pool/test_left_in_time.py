"""How long it takes to leave a call, to the second: in virtual time, on workers in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from _backends import virtual_time

from snakepit import Adapter, CallTimeoutError, Pool, Stop, WorkerDiedError, open_pool, tool
from snakepit.testing import FaultPlan, MemoryTransport, Passage, Silence, crash

GRACE_S, TERM_S, OWN_GRACE_S = 10.0, 5.0, 40.0
STOP = Stop(cancel_grace=GRACE_S, term_grace=TERM_S, drain_timeout=1)
ASIDE_S = 1000.0  # how long a neighbour's call takes


class Slow(Adapter):
    """What lingers goes on for `seconds` after its cancellation."""

    @tool
    async def sleep(self, seconds: float) -> str:
        await anyio.sleep(seconds)
        return "slept"

    @tool
    async def linger(self, seconds: float) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)

    @tool(cancel_grace=OWN_GRACE_S)
    async def linger_with_grace(self, seconds: float) -> None:
        await self.linger(seconds)

    @tool
    async def linger_and_stream(self, seconds: float) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)

    @tool
    async def fail(self) -> None:
        raise LookupError

    @tool
    async def die(self) -> None:
        crash(3)


def deaf(passage: Passage) -> Silence | None:
    """A worker that is told to cancel a call hears and says nothing from then on."""
    return Silence() if passage.kind == "Cancel" else None


class Clock:
    """How long it took from the moment at which a call was to end."""

    def __init__(self) -> None:
        self.begun = anyio.current_time()

    @property
    def seconds(self) -> float:
        return round(anyio.current_time() - self.begun, 3)


async def by_value(pool: Pool, tool: str, seconds: float) -> float:
    clock = Clock()
    assert await pool.execute("sleep", {"seconds": 1}) == "slept"
    return clock.seconds - 1


async def by_error(pool: Pool, tool: str, seconds: float) -> float:
    clock = Clock()
    with pytest.raises(LookupError):
        await pool.execute("fail")
    return clock.seconds


async def by_death(pool: Pool, tool: str, seconds: float) -> float:
    clock = Clock()
    with pytest.raises(WorkerDiedError):
        await pool.execute("die")
    return clock.seconds


async def by_timeout(pool: Pool, tool: str, seconds: float) -> float:
    clock = Clock()
    with pytest.raises(CallTimeoutError):
        await pool.execute(tool, {"seconds": seconds}, timeout=1)
    return clock.seconds - 1


async def by_cancellation(pool: Pool, tool: str, seconds: float) -> float:
    with anyio.move_on_after(1) as scope:
        await pool.execute(tool, {"seconds": seconds})
    assert scope.cancelled_caught
    return round(anyio.current_time() - scope.deadline, 3)


async def by_the_end_of_its_block(pool: Pool, tool: str, seconds: float) -> float:
    async with pool.stream("linger_and_stream", {"seconds": seconds}) as items:
        assert await anext(items) == 1
        clock = Clock()
    return clock.seconds


@asynccontextmanager
async def beside_others(faults: FaultPlan | None = None) -> AsyncGenerator[Pool]:
    """A pool of which another call runs meanwhile, undisturbed and on a worker that stays."""
    transport = MemoryTransport(faults=faults)
    async with open_pool(Slow, size=2, min_ready=2, transport=transport, stop=STOP) as pool:
        values: list[Any] = []

        async def call() -> None:
            values.append(await pool.execute("sleep", {"seconds": ASIDE_S}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(1)
            [busy] = [worker.id for worker in pool.workers() if worker.state == "leased"]
            yield pool
            assert values == []
        assert values == ["slept"]
        assert busy in [worker.id for worker in pool.workers()]


AT_ONCE: list[Callable[..., Any]] = [by_value, by_error, by_death]
ASKED: list[Callable[..., Any]] = [by_timeout, by_cancellation, by_the_end_of_its_block]


@virtual_time
@pytest.mark.parametrize("leave", AT_ONCE)
async def test_what_ends_by_itself_is_left_at_once(leave: Callable[..., Any]) -> None:
    async with beside_others() as pool:
        assert await leave(pool, "", 0) == 0


@virtual_time
@pytest.mark.parametrize("leave", ASKED)
async def test_a_tool_that_stops_in_its_grace_is_waited_for_and_its_worker_kept(
    leave: Callable[..., Any],
) -> None:
    async with beside_others() as pool:
        before = [worker.id for worker in pool.workers()]
        assert await leave(pool, "linger", GRACE_S - 1) == GRACE_S - 1
        assert [worker.id for worker in pool.workers()] == before


@virtual_time
@pytest.mark.parametrize("leave", ASKED)
async def test_a_worker_that_does_not_answer_is_gone_when_both_graces_are_over(
    leave: Callable[..., Any],
) -> None:
    """It does not heed SIGTERM either."""
    async with beside_others(deaf) as pool:
        assert await leave(pool, "linger", 0) == GRACE_S + TERM_S
        assert pool.stats().restarts == 1


@virtual_time
@pytest.mark.parametrize("leave", [by_timeout, by_cancellation])
async def test_a_tools_own_grace_counts_instead(leave: Callable[..., Any]) -> None:
    async with beside_others() as pool:
        assert await leave(pool, "linger_with_grace", OWN_GRACE_S - 1) == OWN_GRACE_S - 1
        assert pool.stats().restarts == 0
    async with beside_others(deaf) as pool:
        assert await leave(pool, "linger_with_grace", 0) == OWN_GRACE_S + TERM_S
        assert pool.stats().restarts == 1
