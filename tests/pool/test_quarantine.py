"""A call that keeps killing workers is not run again: in every way in which calls are made."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from _backends import one_loop_each, virtual_time
from pool_kit import tools_pool, until

from snakepit import (
    Adapter,
    CallQuarantinedError,
    CallTimeoutError,
    CrashBarrier,
    Pool,
    SnakepitError,
    Stop,
    ToolError,
    WorkerDiedError,
    context,
    open_pool,
    tool,
)
from snakepit.testing import Die, MemoryTransport, Passage, crash

pytestmark = one_loop_each

BRISK = Stop(cancel_grace=0.1, term_grace=0.1, drain_timeout=0.1)


class Poison(Adapter):
    """`log` is the test's own list: one entry for each run."""

    log: list[str] = []  # noqa: RUF012 - for the test to see
    spared: set[str] = set()  # noqa: RUF012 - likewise
    gate: anyio.Event

    def meet(self, name: str) -> None:
        self.log.append(name)
        if name not in self.spared:
            crash(3)

    @tool
    async def eat(self, name: str, ballast: bytes = b"") -> str:
        self.meet(name)
        return f"{name} is good"

    @tool(idempotent=True)
    async def eat_again(self, name: str) -> str:
        self.meet(name)
        return f"{name} is good"

    @tool
    async def eat_later(self, name: str, seconds: float) -> str:
        await anyio.sleep(seconds)
        self.meet(name)
        return f"{name} is good"

    @tool
    async def eat_first(self, name: str) -> None:
        """The first who eats waits, and lives; the others do not."""
        self.log.append(name)
        if len(self.log) > 1:
            crash(3)
        await self.gate.wait()

    @tool
    async def fail(self, name: str) -> None:
        if name in self.spared:
            raise ValueError(name)
        self.meet(name)

    @tool
    async def courses(self, name: str) -> AsyncIterator[str]:
        yield "soup"
        self.meet(name)

    @tool
    async def eat_all(self, food: AsyncIterator[str]) -> int:
        count = 0
        async for name in food:
            self.meet(name)
            count += 1
        return count

    @tool
    async def ask(self, name: str) -> Any:
        return await context().acall_host("serve", {"name": name})


def eat_function(name: str) -> str:
    Poison.meet(Poison(), name)
    return f"{name} is good"


@pytest.fixture(autouse=True)
def log() -> list[str]:
    Poison.log, Poison.spared = [], {"bread", "ham"}
    return Poison.log


@asynccontextmanager
async def poison_pool(
    *, size: int = 1, transport: Any = "memory", **barrier: Any
) -> AsyncGenerator[Pool]:
    """Workers in memory, replaced for ever."""
    barriers = CrashBarrier(**({"max_restarts": 10_000, "max_retries": 1} | barrier))
    async with tools_pool(Poison, size=size, transport=transport, crash_barrier=barriers) as pool:
        yield pool


async def kinds(call: Any, times: int) -> list[str]:
    """How so many calls ended, one after the other."""
    found = []
    for _ in range(times):
        try:
            found.append(str(await call()))
        except ToolError:
            found.append("ToolError")
        except SnakepitError as error:
            found.append(type(error).__name__)
    return found


DEAD, REFUSED = "WorkerDiedError", "CallQuarantinedError"


async def test_the_fourth_call_after_three_deaths_is_refused_and_others_are_not(
    log: list[str],
) -> None:
    async with poison_pool() as pool:
        for _ in range(3):
            with pytest.raises(WorkerDiedError):
                await pool.execute("eat", {"name": "fly agaric"})
        requests = pool.stats().requests
        for _ in range(3):
            with pytest.raises(CallQuarantinedError) as caught:
                await pool.execute("eat", {"name": "fly agaric"})
        error = caught.value
        assert (error.tool, error.kills, error.started) == ("eat", 3, False)
        assert 0 < error.retry_after <= 60
        assert "exited with code 3" in error.certificate
        assert "default-1.3" in str(error)
        assert log == ["fly agaric"] * 3
        assert await pool.execute("eat", {"name": "bread"}) == "bread is good"
        assert pool.stats().requests == requests + 1
        assert pool.stats().restarts == 3
        with pytest.raises(WorkerDiedError):
            await pool.execute("eat", {"name": "fly agaric", "ballast": b"other arguments"})
        with pytest.raises(WorkerDiedError):
            await pool.execute("fail", {"name": "fly agaric"})  # another tool


@pytest.mark.parametrize(("after", "expected"), [(1, 1), (2, 2), (None, 6)])
async def test_after_how_many_deaths_is_an_option(after: int | None, expected: int) -> None:
    async with poison_pool(quarantine_after=after) as pool:
        ends = await kinds(partial(pool.execute, "eat", {"name": "death cap"}), 6)
    assert ends == [DEAD] * expected + [REFUSED] * (6 - expected)


@virtual_time
async def test_it_may_run_again_a_window_after_the_last_death(log: list[str]) -> None:
    async with open_pool(
        Poison, size=1, transport="memory", crash_barrier=CrashBarrier(max_restarts=100)
    ) as pool:
        call = partial(pool.execute, "eat", {"name": "death cap"})
        assert await kinds(call, 4) == [DEAD] * 3 + [REFUSED]
        await anyio.sleep(59)
        assert await kinds(call, 1) == [REFUSED]
        await anyio.sleep(1.1)
        assert await kinds(call, 4) == [DEAD] * 3 + [REFUSED]
        await anyio.sleep(61)
        Poison.spared.add("death cap")
        assert await call() == "death cap is good"


@virtual_time
async def test_a_call_that_kills_after_minutes_is_found_out_too() -> None:
    async with open_pool(
        Poison, size=1, transport="memory", crash_barrier=CrashBarrier(max_restarts=100)
    ) as pool:
        call = partial(pool.execute, "eat_later", {"name": "death cap", "seconds": 300})
        assert await kinds(call, 4) == [DEAD] * 3 + [REFUSED]


@pytest.mark.parametrize(
    ("tool_name", "answer"), [("eat", "boletus is good"), ("fail", "ToolError")]
)
async def test_an_answer_clears_it_be_it_an_error(tool_name: str, answer: str) -> None:
    async with poison_pool() as pool:
        call = partial(pool.execute, tool_name, {"name": "boletus"})
        assert await kinds(call, 2) == [DEAD] * 2
        Poison.spared.add("boletus")
        assert await kinds(call, 1) == [answer]
        Poison.spared.discard("boletus")
        assert await kinds(call, 4) == [DEAD] * 3 + [REFUSED]


async def test_an_answer_to_the_same_call_that_ran_meanwhile_clears_it_too() -> None:
    """It began before the other one's worker died of it, and is answered after that."""
    Poison.gate = anyio.Event()
    async with poison_pool(size=2, quarantine_after=2) as pool, anyio.create_task_group() as tasks:
        call = partial(pool.execute, "eat_first", {"name": "boletus"})
        tasks.start_soon(call)
        await until(lambda: Poison.log)
        assert await kinds(call, 1) == [DEAD]
        assert len(pool._core.suspects.known) == 1
        Poison.gate.set()
        await until(lambda: not pool._core.suspects.known)
        assert await kinds(call, 3) == [DEAD] * 2 + [REFUSED]


async def test_deaths_of_idempotent_calls_count_each_and_none_is_repeated_in_quarantine(
    log: list[str],
) -> None:
    """With a retry each: two workers, then one, and the retry of the second call is not made."""
    async with poison_pool(max_retries=1) as pool:
        call = partial(pool.execute, "eat_again", {"name": "death cap"})
        with pytest.raises(WorkerDiedError):
            await call()
        with pytest.raises(CallQuarantinedError) as caught:
            await call()
        assert (caught.value.kills, caught.value.started) == (3, True)
        with pytest.raises(CallQuarantinedError) as caught:
            await call()
        assert caught.value.started is False
    assert len(log) == 3


async def test_those_that_wait_are_refused_when_their_turn_comes(log: list[str]) -> None:
    """The dead count, and the calls behind them are no dead weight: 20 calls cost three workers."""
    ends: list[str] = []
    async with poison_pool() as pool:

        async def call(name: str) -> None:
            ends.extend(await kinds(partial(pool.execute, "eat", {"name": name}), 1))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(call, "death cap")
                if number % 4 == 0:
                    tasks.start_soon(call, "bread")
        assert sorted(ends) == [REFUSED] * 17 + [DEAD] * 3 + ["bread is good"] * 5
        assert log.count("death cap") == 3
        stats = pool.stats()
        assert (stats.queued, stats.busy, stats.restarts) == (0, 0, 3)
        assert pool._core.scheduler.idle == 1


async def test_streams_are_refused_where_their_block_is_entered() -> None:
    async with poison_pool() as pool:

        async def read() -> list[str]:
            async with pool.stream("courses", {"name": "death cap"}) as courses:
                return [course async for course in courses]

        assert await kinds(read, 5) == [DEAD] * 3 + [REFUSED] * 2
        async with pool.stream("courses", {"name": "bread"}) as courses:
            assert [course async for course in courses] == ["soup"]


async def test_items_of_a_map_are_refused_one_by_one(log: list[str]) -> None:
    names = ["death cap", "bread"] * 5
    async with poison_pool() as pool:
        params = ({"name": name} for name in names)
        async with pool.map("eat", params, limit=1, on_error="return") as results:
            ends = [r if isinstance(r, str) else type(r).__name__ async for r in results]
    good = "bread is good"
    assert ends == [DEAD, good] * 3 + [REFUSED, good] * 2
    assert log.count("death cap") == 3


async def test_functions_and_futures_are_told_apart_by_what_they_are_given(log: list[str]) -> None:
    async with poison_pool() as pool:
        call = partial(pool.run_sync, eat_function, "death cap")
        assert await kinds(call, 2) == [DEAD] * 2
        assert await pool.run_sync(eat_function, "ham") == "ham is good"
        executor = pool.as_executor()
        futures = [executor.submit(eat_function, "death cap") for _ in range(2)]
        await until(lambda: all(future.done() for future in futures))
        assert [type(future.exception()).__name__ for future in futures] == [DEAD, DEAD]
        assert len(log) == 5
        # They are told to bring back what is no Exception: another call than that of run_sync.
        futures = [executor.submit(eat_function, "death cap") for _ in range(2)]
        await until(lambda: all(future.done() for future in futures))
        assert [type(future.exception()).__name__ for future in futures] == [DEAD, REFUSED]
        assert await kinds(call, 2) == [DEAD, REFUSED]


async def test_calls_in_sessions_are_refused_and_the_session_goes_on() -> None:
    async with poison_pool(size=2) as pool:

        async def call() -> str:
            async with pool.session() as session:
                assert await session.execute("eat", {"name": "ham"}) == "ham is good"
                return await session.execute("eat", {"name": "death cap"})

        assert await kinds(call, 4) == [DEAD] * 3 + [REFUSED]
        async with pool.session("lunch") as session:
            assert await session.execute("eat", {"name": "ham"}) == "ham is good"
            home = session.worker_id
            with pytest.raises(CallQuarantinedError):
                await session.execute("eat", {"name": "death cap"})
            assert await session.execute("eat", {"name": "bread"}) == "bread is good"
            assert session.worker_id == home
        assert len(pool._core.sessions) == 0


async def test_calls_that_host_tools_make_are_refused_like_others() -> None:
    async with poison_pool(size=2) as pool:

        @pool.host_tool
        async def serve(name: str) -> str:
            try:
                return await pool.execute("eat", {"name": name})
            except SnakepitError as error:
                return type(error).__name__

        call = partial(pool.execute, "ask", {"name": "death cap"})
        assert await kinds(call, 5) == [DEAD] * 3 + [REFUSED] * 2


async def test_a_call_with_an_input_is_known_only_by_what_it_pulls_and_is_never_refused() -> None:
    async with poison_pool() as pool:

        async def food(*names: str) -> AsyncIterator[str]:
            for name in names:
                yield name

        async def call(*names: str) -> int:
            return await pool.execute("eat_all", {"food": food(*names)})

        assert await kinds(partial(call, "death cap"), 4) == [DEAD] * 4
        assert await call("bread", "ham") == 2


@pytest.mark.parametrize("tool_name", ["shielded", "killed", "crashing"])
async def test_workers_that_end_because_their_call_was_to_stop_do_not_count(tool_name: str) -> None:
    """Of a tool that will not stop, one that dies with its cancel, one that crashes as it stops."""
    barrier = CrashBarrier(max_restarts=100)
    async with tools_pool(Stubborn, transport="memory", stop=BRISK, crash_barrier=barrier) as pool:
        for _ in range(4):
            await pool.ready()
            with pytest.raises(CallTimeoutError):
                await pool.execute(tool_name, timeout=0.3)
        await pool.ready()
        assert not pool._core.suspects.known
        assert pool.stats().restarts == 4 or tool_name == "shielded"


async def test_nobody_is_suspect_while_workers_without_a_call_are_killed_too() -> None:
    """SIGKILL, thrice during the same call; then of a worker that idles: it comes from outside."""
    armed = False

    def plan(passage: Passage) -> Die | None:
        return Die("after") if armed and passage.kind == "Call" else None

    async with poison_pool(transport=MemoryTransport(faults=plan)) as pool:
        await pool.execute("eat", {"name": "ham"})
        call = partial(pool.execute, "eat", {"name": "bread"})
        armed = True
        assert await kinds(call, 4) == [DEAD] * 3 + [REFUSED]
        armed = False
        await pool.ready()
        running = pool._core.slots[0].worker.running
        assert running is not None
        running.send_signal(signal.SIGKILL)
        await until(lambda: pool.stats().restarts == 4)
        assert await call() == "bread is good"
        armed = True
        assert await kinds(call, 5) == [DEAD] * 5


class Stubborn(Adapter):
    @tool
    async def shielded(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.3)

    @tool(on_cancel="kill")
    async def killed(self) -> None:
        await anyio.sleep_forever()

    @tool
    async def crashing(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            crash(4)
