"""Tasks that belong to a call: where they run, when they end, who is told of their errors.

They are started as the pool itself does it, while a tool runs; what tools ask the host for, and what
callers see of it, is tested with the features that use them.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from pool_kit import PATIENT

from snakepit import Adapter, CallTimeoutError, Pool, open_pool, tool
from snakepit.pool._attending import Attendant, start_for
from snakepit.pool._call import PendingCall

FOREVER_S = 10**9
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")


class Napping(Adapter):
    log: list[str] = []  # noqa: RUF012 - for the test to see

    @tool
    async def nap(self, seconds: float = FOREVER_S) -> str:
        self.log.append("asleep")
        try:
            await anyio.sleep(seconds)
        finally:
            self.log.append("awake")
        return "slept"

    @tool
    async def doze(self, seconds: float = FOREVER_S) -> AsyncIterator[str]:
        yield await self.nap(seconds)


# How a call is made; each returns what `nap` gives, or raises what its caller is told.
Caller = Callable[[Pool, dict[str, Any]], Awaitable[Any]]


async def execute(pool: Pool, params: dict[str, Any]) -> Any:
    return await pool.execute("nap", params)


async def execute_and_listen(pool: Pool, params: dict[str, Any]) -> Any:
    return await pool.execute("nap", params, on_progress=lambda *_: None)


async def stream(pool: Pool, params: dict[str, Any]) -> Any:
    async with pool.stream("doze", params) as items:
        return await anext(items)


async def map_it(pool: Pool, params: dict[str, Any]) -> Any:
    async with pool.map("nap", [params]) as results:
        return await anext(results)


CALLERS = [execute, execute_and_listen, stream, map_it]
every_caller = pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.__name__)


@asynccontextmanager
async def memory_pool() -> AsyncGenerator[Pool]:
    Napping.log.clear()
    with anyio.fail_after(20):
        async with open_pool(Napping, transport="memory", size=1, stop=PATIENT) as pool:
            pool._core.may_attend = True
            yield pool


async def running_call(pool: Pool) -> PendingCall:
    """The one call that runs on the pool's one worker."""
    while not Napping.log:
        await anyio.lowlevel.checkpoint()
    [call] = pool._core.slots[0].worker.seat.calls.values()
    return call


def attend(pool: Pool, call: PendingCall, function: Callable[[], Awaitable[None]]) -> Attendant:
    """As the worker's own reader does it, from a task that is not the caller's."""
    return start_for(pool._core, call, function, "test")


class Sleeper:
    """A task that sleeps for ever, and tells how it ended; its end may take its time."""

    def __init__(self, farewell_s: float = 0.0) -> None:
        self.entered, self.ended = anyio.Event(), anyio.Event()
        self.farewell_s = farewell_s
        self.was: str | None = None

    async def __call__(self) -> None:
        self.entered.set()
        try:
            await anyio.sleep(FOREVER_S)
        except anyio.get_cancelled_exc_class():
            self.was = "cancelled"
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.farewell_s)
            raise
        finally:
            self.ended.set()


@every_caller
async def test_it_runs_beside_its_tool_with_the_caller_s_context_and_deadline(
    caller: Caller,
) -> None:
    seen: list[Any] = []
    async with memory_pool() as pool, anyio.create_task_group() as tasks:

        async def call() -> None:
            variable.set("the caller's")
            with anyio.fail_after(10) as scope:
                assert await caller(pool, {"seconds": 0.05}) == "slept"
            assert seen == [scope.deadline, "the caller's"]

        async def look() -> None:
            seen.extend((anyio.current_effective_deadline(), variable.get()))

        tasks.start_soon(call)
        attend(pool, await running_call(pool), look)


@every_caller
async def test_it_is_cancelled_when_the_call_settles_and_the_outcome_waits_for_its_end(
    caller: Caller,
) -> None:
    sleeper = Sleeper(farewell_s=0.05)
    async with memory_pool() as pool, anyio.create_task_group() as tasks:

        async def call() -> None:
            assert await caller(pool, {"seconds": 0.02}) == "slept"
            assert caller is stream or sleeper.ended.is_set()

        tasks.start_soon(call)
        attend(pool, await running_call(pool), sleeper)
    assert sleeper.was == "cancelled"
    assert sleeper.ended.is_set()


@every_caller
async def test_it_is_cancelled_with_its_caller_who_waits_for_its_end(caller: Caller) -> None:
    sleeper = Sleeper(farewell_s=0.05)
    async with memory_pool() as pool, anyio.create_task_group() as tasks:
        left = anyio.Event()

        async def call() -> None:
            try:
                await caller(pool, {})
            finally:
                assert sleeper.ended.is_set()
                left.set()

        tasks.start_soon(call)
        attend(pool, await running_call(pool), sleeper)
        await sleeper.entered.wait()
        tasks.cancel_scope.cancel()
    assert left.is_set()
    assert sleeper.was == "cancelled"


async def test_it_is_cancelled_when_the_call_s_time_is_up() -> None:
    sleeper = Sleeper()
    async with memory_pool() as pool, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(CallTimeoutError):
                await pool.execute("nap", timeout=0.4)
            assert sleeper.ended.is_set()

        tasks.start_soon(call)
        attend(pool, await running_call(pool), sleeper)
    assert sleeper.was == "cancelled"


@every_caller
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("mine"), ExceptionGroup("mine", [KeyError()]), SystemExit(3)]
)
async def test_what_it_raises_stops_the_tool_and_is_what_the_caller_gets(
    caller: Caller, error: BaseException
) -> None:
    """Itself, not in a group of ours; and the worker lives."""

    async def fail() -> None:
        raise error

    async with memory_pool() as pool, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(type(error)) as caught:
                await caller(pool, {})
            if caller is not map_it:  # trio's nursery there makes groups anew
                assert caught.value is error
            assert repr(caught.value) == repr(error)
            assert Napping.log == ["asleep", "awake"]
            assert pool.stats().restarts == 0

        tasks.start_soon(call)
        attend(pool, await running_call(pool), fail)


@every_caller
async def test_what_it_raises_at_its_end_is_not_lost(caller: Caller) -> None:
    """When the call has its value already, the error counts."""
    entered = anyio.Event()

    async def fail_late() -> None:
        entered.set()
        try:
            await anyio.sleep(FOREVER_S)
        finally:
            raise ZeroDivisionError("late")

    async with memory_pool() as pool, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(ZeroDivisionError, match="late"):
                await caller(pool, {"seconds": 0.02})

        tasks.start_soon(call)
        attend(pool, await running_call(pool), fail_late)
    assert entered.is_set()


async def test_one_may_be_cancelled_alone_and_the_call_goes_on() -> None:
    first, second = Sleeper(), Sleeper()
    async with memory_pool() as pool, anyio.create_task_group() as tasks:

        async def call() -> None:
            assert await pool.execute("nap", {"seconds": 0.1}) == "slept"

        tasks.start_soon(call)
        found = await running_call(pool)
        attendant = attend(pool, found, first)
        attend(pool, found, second)
        await second.entered.wait()
        attendant.cancel()
        await first.ended.wait()
        assert second.was is None
        assert not found.settled
        never = Sleeper()
        attend(pool, found, never).cancel()
    assert not never.entered.is_set()


async def test_a_stream_without_a_task_group_is_served_in_the_pool_s_own() -> None:
    """One that was opened before anybody could know of the need."""
    seen: list[str] = []

    async def look() -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(variable.get())

    async with memory_pool() as pool:
        variable.set("the caller's")
        pool._core.may_attend = False
        async with pool.stream("doze", {"seconds": 0.02}) as items:
            attend(pool, await running_call(pool), look)
            assert [item async for item in items] == ["slept"]
    assert seen == ["nobody's"]
