"""Calls that wait for each other: whoever could only wait for himself is told so, all others get through."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from _backends import one_loop_each, virtual_time
from _transports import TRANSPORTS
from asking import Asking
from hypothesis import given
from hypothesis import strategies as st
from pool_kit import PATIENT, tools_pool

from snakepit import (
    Adapter,
    Pool,
    PoolSaturatedError,
    ReentrancyError,
    SnakepitError,
    ToolError,
    context,
    open_pool,
    open_pool_sync,
    tool,
)
from snakepit.pool._reentrancy import could_be_served

every_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@asynccontextmanager
async def pool_of(size: int, transport: str = "memory", **options: Any) -> AsyncGenerator[Pool]:
    """Its host tools: `echo` calls the pool's tool `echo`, `again` any tool."""
    async with tools_pool(Asking, size=size, transport=transport, **options) as pool:

        @pool.host_tool
        async def echo(value: int = 1) -> Any:
            return await pool.execute("echo", {"value": value})

        @pool.host_tool
        async def again(name: str, params: dict[str, Any]) -> Any:
            return await pool.execute(name, params)

        yield pool


def chain(length: int) -> tuple[str, dict[str, Any]]:
    """A call of so many levels, each of which needs a worker of its own."""
    name: str = "echo"
    params: dict[str, Any] = {"value": "bottom"}
    for _ in range(length - 1):
        name, params = "ask", {"name": "again", "params": {"name": name, "params": params}}
    return name, params


async def refused(make: Callable[[], Awaitable[Any]]) -> str:
    """The call fails because one below it was refused; return what was said."""
    with pytest.raises(ToolError) as caught:
        await make()
    assert caught.value.type == "snakepit.errors.ReentrancyError"
    return caught.value.message


# -- chains --------------------------------------------------------------------------------------


@one_loop_each
@every_transport
@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_chain_may_be_as_long_as_the_pool_is_large(size: int, transport: str) -> None:
    async with pool_of(size, transport) as pool:
        for length in range(1, size + 1):
            assert await pool.execute(*chain(length)) == "bottom"
        await refused(lambda: pool.execute(*chain(size + 1)))
        assert await pool.execute(*chain(size)) == "bottom"
        stats = pool.stats()
        assert (stats.restarts, stats.busy, stats.queued, stats.saturated) == (0, 0, 0, 1)


async def test_the_error_names_the_chain_and_is_one_of_saturation() -> None:
    async with pool_of(1) as pool:
        seen: list[Exception] = []

        @pool.host_tool
        async def look() -> None:
            try:
                await pool.execute("echo")
            except PoolSaturatedError as error:
                seen.append(error)

        await pool.execute("ask", {"name": "look"})
    [error] = seen
    assert isinstance(error, ReentrancyError)
    assert error.chain == ("'ask' (pool 'default')", "host tool 'look'", "'echo' (pool 'default')")
    assert str(error) == f"{error.message}: {' → '.join(error.chain)}"


@one_loop_each
@every_transport
async def test_a_chain_across_two_pools_is_seen(transport: str) -> None:
    async with (
        pool_of(1, transport, name="one") as one,
        pool_of(1, transport, name="two") as two,
    ):
        ask_echo = {"name": "echo"}
        one.add_host_tool(lambda **of: two.execute("ask", of), name="other")
        two.add_host_tool(lambda: one.execute("echo"), name="back")
        to_two = {"name": "other", "params": {"name": "back"}}
        message = await refused(lambda: one.execute("ask", to_two))
        assert "'ask' (pool 'one')" in message
        assert "'ask' (pool 'two')" in message
        await refused(lambda: two.execute("ask", ask_echo))
        two.add_host_tool(lambda: "no further", name="stay")
        params = {"name": "other", "params": {"name": "stay"}}
        assert await one.execute("ask", params) == "no further"


@pytest.mark.parametrize("how", ["stream", "map", "session"])
@pytest.mark.parametrize("size", [1, 2])
async def test_whatever_a_host_tool_opens_belongs_to_the_chain(how: str, size: int) -> None:
    async with pool_of(size) as pool:

        @pool.host_tool
        async def use() -> Any:
            if how == "stream":
                async with pool.stream("numbers", {"count": 3}) as items:
                    return [item async for item in items]
            elif how == "map":
                async with pool.map("echo", [{"value": n} for n in range(3)]) as results:
                    return [result async for result in results]
            async with pool.session() as session:
                return [await session.execute("echo", {"value": n}) for n in range(3)]

        if size == 1:
            await refused(lambda: pool.execute("ask", {"name": "use"}))
        assert await pool.execute("echo", {"value": 1}) == 1
        if size == 2:
            assert await pool.execute("ask", {"name": "use"}) == [0, 1, 2]


async def test_many_calls_of_one_host_tool_share_the_worker_that_is_left() -> None:
    async with pool_of(2) as pool:

        @pool.host_tool
        async def many() -> int:
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(pool.execute, "echo")
            return 20

        assert await pool.execute("ask", {"name": "many"}) == 20


# -- sessions ------------------------------------------------------------------------------------


@one_loop_each
@every_transport
async def test_a_strict_session_that_calls_itself_is_refused_although_a_worker_idles(
    transport: str,
) -> None:
    async with pool_of(2, transport) as pool, pool.session("mine") as session:

        @session.host_tool
        async def same(name: str) -> Any:
            return await pool.execute("echo", {"value": 5}, session=name or session)

        params = {"name": "same", "params": {"name": ""}}
        await refused(lambda: session.execute("ask", params))
        assert await session.execute("echo", {"value": 1}) == 1
        params = {"name": "same", "params": {"name": "another"}}
        assert await session.execute("ask", params) == 5


async def test_a_new_session_is_not_put_where_it_would_wait_for_itself() -> None:
    """The other worker is busy, but will be free."""
    async with pool_of(2, "memory") as pool:
        release = anyio.Event()
        pool.add_host_tool(release.wait, name="hold")

        @pool.host_tool
        async def open_one() -> Any:
            async with pool.session() as session:
                tasks.start_soon(later)
                return await session.execute("echo", {"value": 5})

        async def later() -> None:
            await anyio.sleep(0.05)
            release.set()

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(pool.execute, "ask", {"name": "hold"})
                await anyio.sleep(0.02)
                assert await pool.execute("ask", {"name": "open_one"}) == 5
                release = anyio.Event()
                pool._core.host_tools.pop("hold")
                pool.add_host_tool(release.wait, name="hold")


# -- who may wait --------------------------------------------------------------------------------


async def test_a_call_waits_where_a_lease_can_come_free() -> None:
    """The other worker has a call that waits for nobody."""
    release, waits = anyio.Event(), anyio.Event()
    async with pool_of(2) as pool, anyio.create_task_group() as tasks:
        pool.add_host_tool(release.wait, name="hold")

        @pool.host_tool
        async def nested() -> Any:
            waits.set()
            return await pool.execute("echo", {"value": 5})

        async def ask() -> None:
            assert await pool.execute("ask", {"name": "nested"}) == 5

        tasks.start_soon(pool.execute, "ask", {"name": "hold"})
        tasks.start_soon(ask)
        await waits.wait()
        await anyio.sleep(0.05)
        assert pool.stats().queued == 1
        release.set()


async def test_of_those_who_wait_for_each_other_the_newest_is_refused() -> None:
    both = anyio.Event()
    outcomes: list[str] = []
    entered = 0
    async with pool_of(2) as pool, anyio.create_task_group() as tasks:

        @pool.host_tool
        async def nested() -> Any:
            nonlocal entered
            entered += 1
            if entered == 2:
                both.set()
            await both.wait()
            return await pool.execute("echo", {"value": "got through"})

        async def ask() -> None:
            try:
                outcomes.append(await pool.execute("ask", {"name": "nested"}))
            except ToolError as error:
                outcomes.append(error.type)

        tasks.start_soon(ask)
        tasks.start_soon(ask)
    assert sorted(outcomes) == ["got through", "snakepit.errors.ReentrancyError"]


async def test_what_a_host_tool_has_started_elsewhere_waits_for_nobody() -> None:
    """It goes on in another task group when the host tool has returned."""
    values: list[Any] = []
    async with pool_of(1) as pool, anyio.create_task_group() as tasks:

        async def later() -> None:
            values.append(await pool.execute("echo", {"value": "later"}))

        @pool.host_tool
        def begin() -> None:
            tasks.start_soon(later)

        await pool.execute("ask", {"name": "begin"})
    assert values == ["later"]


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_chain_goes_through_threads_of_a_pool_for_blocking_code(backend: str) -> None:
    with open_pool_sync(Asking, size=1, transport="memory", backend=backend) as pool:

        @pool.host_tool
        async def again() -> Any:
            return await anyio.to_thread.run_sync(pool.execute, "echo")

        with pytest.raises(ToolError) as caught:
            pool.execute("ask", {"name": "again"})
    assert caught.value.type == "snakepit.errors.ReentrancyError"


# -- inside streams ------------------------------------------------------------------------------


@one_loop_each
@every_transport
async def test_a_call_inside_a_stream_that_it_keeps_from_being_read(transport: str) -> None:
    """Refused when the window is full, and not before: the stream might have ended."""
    async with pool_of(1, transport) as pool:
        async with pool.stream("numbers", {"count": 10**6}, window=4) as numbers:
            assert await anext(numbers) == 0
            with pytest.raises(ReentrancyError, match="stream of 'numbers'"):
                await pool.execute("echo")
            assert await anext(numbers) == 1
        async with pool.stream("numbers", {"count": 3}) as numbers:
            assert await anext(numbers) == 0
            assert await pool.execute("echo", {"value": 5}) == 5
            assert [number async for number in numbers] == [1, 2]
        assert await pool.execute("echo", {"value": 6}) == 6


@pytest.mark.parametrize("how", ["stream", "map"])
async def test_streams_and_maps_inside_a_stream_are_calls_as_well(how: str) -> None:
    async with pool_of(1) as pool, pool.stream("numbers", {"count": 10**6}) as numbers:
        assert await anext(numbers) == 0
        with pytest.raises(ReentrancyError):
            if how == "map":
                async with pool.map("echo", [{}]) as results:
                    await anext(results)
            else:
                async with pool.stream("numbers", {"count": 1}) as inner:
                    await anext(inner)


async def test_a_stream_inside_a_stream_may_be_opened_and_read_in_its_turn() -> None:
    async with (
        pool_of(1) as pool,
        pool.stream("numbers", {"count": 100}) as first,
        pool.stream("numbers", {"count": 3}) as second,
    ):
        assert len([number async for number in first]) == 100
        assert [number async for number in second] == [0, 1, 2]


async def test_a_stream_that_another_task_reads_holds_up_nobody() -> None:
    async with pool_of(1) as pool, pool.stream("numbers", {"count": 200}, window=2) as numbers:

        async def read() -> None:
            async for _ in numbers:
                await anyio.sleep(0.001)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.sleep(0.02)
            assert await pool.execute("echo", {"value": 5}) == 5


async def test_a_chain_that_begins_in_a_stream_is_seen_to_its_end() -> None:
    async with (
        pool_of(2) as pool,
        pool.stream("numbers", {"count": 10**6}, window=4) as numbers,
    ):
        assert await anext(numbers) == 0
        message = await refused(lambda: pool.execute("ask", {"name": "echo"}))
        assert message.startswith("the call of 'echo' could only wait for itself")
        assert await anext(numbers) == 1


# -- the rule ------------------------------------------------------------------------------------

POOLS, SEATS = 2, 3
seats = st.integers(0, POOLS * SEATS - 1)
places = st.one_of(
    st.tuples(st.just("pool"), st.integers(0, POOLS - 1)), st.tuples(st.just("seat"), seats)
)


def seats_of(place: tuple[str, int]) -> list[int]:
    kind, number = place
    return [number] if kind == "seat" else list(range(number * SEATS, (number + 1) * SEATS))


@given(
    busy=st.sets(seats),
    waiting=st.lists(st.tuples(places, st.sets(seats)), min_size=1, max_size=6),
)
def test_a_call_could_be_served_exactly_if_it_is_when_all_that_can_end_do(
    busy: set[int], waiting: list[tuple[tuple[str, int], set[int]]]
) -> None:
    """The last one that waits is asked about. A call is named by the seat that it holds."""
    place, ancestors = waiting[-1][0], waiting[-1][1] & busy
    others = waiting[:-1]

    left, running = list(enumerate(waiting)), set(busy)
    while True:
        needed = {seat for _, (_, above) in left for seat in above}
        running &= needed
        still = [one for one in left if all(seat in running for seat in seats_of(one[1][0]))]
        if len(still) == len(left):
            break
        left = still
    is_served = all(number != len(waiting) - 1 for number, _ in left)

    assert is_served is could_be_served(
        place,
        ancestors,
        lambda place: [seat if seat in busy else None for seat in seats_of(place)],
        lambda seat: [other for other, above in others if seat in above],
    )


class Trees(Adapter):
    @tool
    async def grow(self, tree: list[Any], at_once: bool) -> int:
        """Ask for each branch, one by one or all at once."""
        counts: list[int] = []

        async def branch(below: list[Any]) -> None:
            counts.append(await context().acall_host("grow", {"tree": below, "at_once": at_once}))

        await anyio.sleep(0.001)
        if at_once:
            async with anyio.create_task_group() as tasks:
                for below in tree:
                    tasks.start_soon(branch, below)
        else:
            for below in tree:
                await branch(below)
        return 1 + sum(counts)


def random_tree(draw: random.Random, depth: int) -> list[Any]:
    return [random_tree(draw, depth - 1) for _ in range(draw.randint(0, 2 if depth else 0))]


@virtual_time
@pytest.mark.parametrize("seed", range(40))
async def test_whatever_grows_nobody_waits_for_ever(seed: int) -> None:
    """Trees of calls over two pools: each call returns, and none is refused while a worker idles."""
    draw = random.Random(seed)
    refusals = 0
    with anyio.fail_after(1000):
        async with (
            open_pool(Trees, size=draw.randint(1, 3), transport="memory", stop=PATIENT) as one,
            open_pool(Trees, size=draw.randint(1, 3), transport="memory", stop=PATIENT) as two,
        ):

            async def grow(tree: list[Any], at_once: bool) -> int:
                nonlocal refusals
                pool = draw.choice((one, two))
                idle = [slot.worker.seat.phase.value for slot in pool._core.slots].count("ready")
                try:
                    return int(await pool.execute("grow", {"tree": tree, "at_once": at_once}))
                except ReentrancyError:
                    assert not idle
                    refusals += 1
                    return 0

            for pool in (one, two):
                pool.add_host_tool(grow)
            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(grow, random_tree(draw, 4), draw.random() < 0.5)
            for pool in (one, two):
                assert (pool.stats().busy, pool.stats().queued) == (0, 0)


def test_the_error_pickles() -> None:
    import pickle

    error = ReentrancyError("no", ("one", "two"))
    back = pickle.loads(pickle.dumps(error))
    assert (back.message, back.chain, str(back)) == ("no", ("one", "two"), "no: one → two")
    assert isinstance(back, SnakepitError)
