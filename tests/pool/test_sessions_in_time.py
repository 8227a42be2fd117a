"""How long sessions last: workers in memory, under a clock that jumps."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from _backends import virtual_time

from snakepit import (
    Adapter,
    SessionLostError,
    SessionNotFoundError,
    Sessions,
    WorkerDiedError,
    context,
    open_pool,
    tool,
)
from snakepit.testing import crash


def remember(value: Any) -> list[Any]:
    told: list[Any] = context().session.setdefault("told", [])
    told.append(value)
    return told


class Dreaming(Adapter):
    """In memory, on the host's own clock."""

    @tool
    async def remember(self, value: Any) -> list[Any]:
        return remember(value)

    @tool
    async def nap(self, seconds: float) -> list[Any]:
        await anyio.sleep(seconds)
        return remember("woke")

    @tool
    async def ticks(self, count: int, pause: float) -> AsyncIterator[int]:
        for number in range(count):
            await anyio.sleep(pause)
            yield number

    @tool
    async def die(self) -> None:
        crash()


def dream_pool(**options: Any) -> Any:
    return open_pool(Dreaming, transport="memory", **options)


def sessions_of(pool: Any) -> int:
    return sum(worker.sessions for worker in pool.workers())


@virtual_time
@pytest.mark.parametrize("ttl", [60, 60.0, dt.timedelta(minutes=1)])
async def test_a_session_on_demand_ends_when_nobody_has_used_it_for_its_time(ttl: Any) -> None:
    """It counts from the last use; then its state is gone, its id free, and no worker harmed."""
    async with dream_pool(size=2, sessions=Sessions(ttl=ttl)) as pool:
        await pool.ready()
        workers = [worker.id for worker in pool.workers()]
        for number in range(1, 6):
            found = await pool.execute("remember", {"value": number}, session="a")
            assert found == list(range(1, number + 1))
            await anyio.sleep(59)
        assert sessions_of(pool) == 1
        await anyio.sleep(1.5)
        assert sessions_of(pool) == 0
        with pytest.raises(SessionNotFoundError):
            await pool.end_session("a")
        assert await pool.execute("remember", {"value": "anew"}, session="a") == ["anew"]
        assert [worker.id for worker in pool.workers()] == workers
        assert pool.stats().restarts == 0


@virtual_time
async def test_a_running_call_and_an_open_stream_keep_their_session() -> None:
    async with dream_pool(size=2, sessions=Sessions(ttl=60)) as pool:
        await pool.execute("remember", {"value": 1}, session="a")
        assert await pool.execute("nap", {"seconds": 3600}, session="a") == [1, "woke"]
        params = {"count": 3, "pause": 100}
        async with pool.stream("ticks", params, session="a") as ticks:
            async for _ in ticks:
                await anyio.sleep(1000)
        assert await pool.execute("remember", {"value": 2}, session="a") == [1, "woke", 2]


@virtual_time
async def test_the_session_of_a_block_lasts_with_it_unless_it_was_given_a_time() -> None:
    async with dream_pool(size=1) as pool:
        async with pool.session("long") as long, pool.session("short", ttl=60) as short:
            await long.execute("remember", {"value": 1})
            await short.execute("remember", {"value": 1})
            await anyio.sleep(59)
            assert await short.execute("remember", {"value": 2}) == [1, 2]
            await anyio.sleep(86_400)
            assert await long.execute("remember", {"value": 2}) == [1, 2]
            with pytest.raises(SessionNotFoundError, match="not used for 60 s"):
                await short.execute("remember", {"value": 3})
            async with pool.session("short") as again:
                assert await again.execute("remember", {"value": 4}) == [4]
        assert sessions_of(pool) == 0


@pytest.mark.unmeasured
@virtual_time
@pytest.mark.unmeasured
async def test_a_day_of_sessions_leaves_none() -> None:
    """Thousands that nobody ends; there is at most one alarm for each that lives."""
    async with dream_pool(size=2, sessions=Sessions(ttl=600, max=20)) as pool:
        for number in range(1440):
            for _ in range(3):
                await pool.execute("remember", {"value": 1}, session=f"s{number}")
            assert len(pool._core.sessions) <= 11
            assert len(pool._core.deadlines) <= 40
            await anyio.sleep(60)
        await anyio.sleep(601)
        assert (sessions_of(pool), len(pool._core.sessions)) == (0, 0)
        assert len(pool._core.deadlines) == 0


@virtual_time
async def test_a_lost_session_on_demand_is_forgotten_when_its_time_is_up() -> None:
    options = Sessions(ttl=60, affinity="strict_queue")
    async with dream_pool(size=2, sessions=options) as pool:
        for pause in (30, 61):
            await pool.execute("remember", {"value": 1}, session="a")
            with pytest.raises(WorkerDiedError):
                await pool.execute("die", session="a")
            await anyio.sleep(pause)
            if pause == 30:
                with pytest.raises(SessionLostError):
                    await pool.execute("remember", {"value": 2}, session="a")
            assert await pool.execute("remember", {"value": 2}, session="a") == [2]
