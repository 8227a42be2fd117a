"""The essential promise of every kind of call, on every transport and both loops, with large values.

One pool serves them all, one after the other, so each finds what those before it have left. What
else they promise is tested with each of them.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest
from _backends import one_loop_each
from _transports import TRANSPORTS
from call_model import AsyncModel, SyncModel, doubled, refuse, trace
from connecting import starting, told
from pool_kit import PATIENCE_S, PATIENT, tools_pool, until

from snakepit import (
    HostToolError,
    Pool,
    SessionNotFoundError,
    SyncPool,
    ToolError,
    open_pool,
    open_pool_sync,
    trace_context,
)

pytestmark = one_loop_each

MIB = 2**20
TRACE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}
every_transport = pytest.mark.parametrize("transport", TRANSPORTS)

Promise = Callable[[Pool, Any], Awaitable[None]]


def large(seed: int = 0) -> Any:
    """An array of 2 MiB."""
    return np.arange(seed, seed + 2 * MIB // 8)


def equal(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left, right))


async def arrays(count: int, log: list[str]) -> AsyncIterator[Any]:
    try:
        for number in range(count):
            yield large(number)
    finally:
        log.append("closed")


# -- the promises ------------------------------------------------------------------------------------


async def values_come_back(pool: Pool, _model: Any) -> None:
    assert equal(await pool.execute("double", {"array": large()}), 2 * large())


async def a_session_has_its_state_on_one_worker_until_it_ends(pool: Pool, _model: Any) -> None:
    async with pool.session("s") as session, pool.session() as other:
        for number in range(2):
            assert await session.execute("remember", {"value": large(number)}) == number + 1
        assert await other.execute("told") == []
        assert session.worker_id != other.worker_id
        told = await session.execute("told")
        assert equal(told, [large(0), large(1)])
    assert await pool.execute("told", session="s") == []
    assert await pool.execute("remember", {"value": large()}, session="s") == 1
    assert equal(await pool.execute("told", session="s"), [large()])
    await pool.end_session("s")
    with pytest.raises(SessionNotFoundError):
        await pool.end_session("s")


async def host_tools_run_for_their_call(pool: Pool, _model: Any) -> None:
    for name in ("plain", "waiting", "calling"):
        answer = await pool.execute("ask", {"name": name, "array": large()})
        assert equal(answer, 2 * large())
    with pytest.raises(LookupError, match="not ndarray") as caught:
        await pool.execute("ask", {"name": "refuse", "array": large()})
    assert isinstance(caught.value, ToolError)
    assert not isinstance(caught.value, HostToolError)
    async with pool.session() as session:
        session.host_tool(lambda array: array + 1, name="plain")
        assert equal(await session.execute("ask", {"name": "plain", "array": large()}), large(1))


async def progress_is_shown_before_the_value(pool: Pool, _model: Any) -> None:
    shown: list[Any] = []

    async def show(done: float, total: float | None, message: str | None) -> None:
        await anyio.lowlevel.checkpoint()
        shown.append((done, total, message))

    params = {"array": large(), "steps": 50}
    assert equal(await pool.execute("report", params, on_progress=show), large())
    assert shown[-1] == (50, 50, "at it")  # of those before it only the latest are kept
    assert shown == sorted(shown)


async def a_stream_keeps_its_order_and_is_closed_when_it_is_left(pool: Pool, _model: Any) -> None:
    async with (
        pool.session() as session,
        session.stream("count", {"size": MIB}, window=2) as chunks,
    ):
        for number in range(5):
            chunk = await anext(chunks)
            assert (chunk == number).all()
            assert chunk.nbytes == MIB
    # Closed when the block was left, in whichever worker that was.
    assert sorted(await everywhere(pool, "endings")) == ["count"]


async def an_input_is_pulled_and_closed(pool: Pool, _model: Any) -> None:
    log: list[str] = []
    total = await pool.execute("total", {"arrays": arrays(3, log)})
    assert total == sum(large(number).sum() for number in range(3))
    assert log == ["closed"]
    assert equal(await pool.execute("first", {"arrays": arrays(100, log)}), large())
    assert log == ["closed"] * 2
    async with pool.stream("transform", {"arrays": arrays(4, log)}, window=2) as chunks:
        seen = [chunk async for chunk in chunks]
    assert equal(seen, [2 * large(number) for number in range(4)])
    assert log == ["closed"] * 3


async def a_map_has_a_result_for_each_item_in_its_place(pool: Pool, _model: Any) -> None:
    async def params() -> AsyncIterator[dict[str, Any]]:
        for number in range(6):
            yield {"array": large(number)} if number != 3 else {"wrong": number}

    async with pool.map("double", params(), limit=3, on_error="return") as results:
        seen = [result async for result in results]
    assert isinstance(seen.pop(3), TypeError)
    assert equal(seen, [2 * large(number) for number in range(6) if number != 3])


async def methods_are_called_with_their_types(pool: Pool, model: Any) -> None:
    assert equal(await pool.call(model.double, large()), 2 * large())
    assert equal(await pool.bind(timeout=10).call(model.double, array=large()), 2 * large())
    async with pool.call_stream(model.count, MIB) as chunks:
        assert (await anext(chunks)).nbytes == MIB
    assert await everywhere(pool, "endings") == ["count"]


async def functions_run_there(pool: Pool, _model: Any) -> None:
    assert equal(await pool.run_sync(doubled, large()), 2 * large())
    with pytest.raises(LookupError, match="not ndarray"):
        await pool.run_sync(refuse, large())


async def futures_have_their_outcomes(pool: Pool, _model: Any) -> None:
    executor = pool.as_executor()
    futures = [executor.submit(doubled, large()), executor.submit(refuse, 1)]
    await until(lambda: all(future.done() for future in futures))
    assert equal(futures[0].result(), 2 * large())
    assert isinstance(futures[1].exception(), LookupError)

    def map_in_a_thread() -> list[Any]:
        return list(executor.map(doubled, [large(number) for number in range(4)], timeout=20))

    seen = await anyio.to_thread.run_sync(map_in_a_thread)
    assert equal(seen, [2 * large(number) for number in range(4)])


async def a_cancelled_call_has_stopped_and_its_worker_goes_on(pool: Pool, _model: Any) -> None:
    with anyio.CancelScope() as scope:
        await pool.execute("wait", {"array": large()}, on_progress=lambda *_: scope.cancel())
    assert scope.cancelled_caught
    assert await everywhere(pool, "endings") == ["wait"]


async def the_callers_trace_is_known_there(pool: Pool, _model: Any) -> None:
    with trace_context(TRACE):
        assert await pool.execute("trace") == TRACE
        async with pool.stream("traces") as items:
            assert [item async for item in items] == [TRACE]
        async with pool.map("trace", [{}, {}]) as results:
            assert [result async for result in results] == [TRACE] * 2
        assert await pool.execute("ask", {"name": "tracing", "array": 0}) == TRACE
    assert await pool.execute("trace") == {}


async def the_callers_trace_is_known_in_functions(pool: Pool, _model: Any) -> None:
    with trace_context(TRACE):
        assert await pool.run_sync(trace) == TRACE
        future = pool.as_executor().submit(trace)
    await until(future.done)
    assert future.result() == TRACE
    future = pool.as_executor().submit(trace)  # not what the desk has done before
    await until(future.done)
    assert future.result() == {}


PROMISES: list[Promise] = [
    values_come_back,
    a_session_has_its_state_on_one_worker_until_it_ends,
    host_tools_run_for_their_call,
    progress_is_shown_before_the_value,
    a_stream_keeps_its_order_and_is_closed_when_it_is_left,
    an_input_is_pulled_and_closed,
    a_map_has_a_result_for_each_item_in_its_place,
    methods_are_called_with_their_types,
    functions_run_there,
    futures_have_their_outcomes,
    a_cancelled_call_has_stopped_and_its_worker_goes_on,
    the_callers_trace_is_known_in_functions,
    the_callers_trace_is_known_there,
]
OF_FUNCTIONS = (
    functions_run_there,
    futures_have_their_outcomes,
    the_callers_trace_is_known_in_functions,
)


async def everywhere(pool: Pool, tool: str) -> list[Any]:
    """The lists that this tool gives on each worker, as one."""
    async with pool.session() as one, pool.session() as other:
        said = [*await one.execute(tool), *await other.execute(tool)]
        assert one.worker_id != other.worker_id
        return said


@every_transport
@pytest.mark.parametrize("model", [SyncModel, AsyncModel])
async def test_every_kind_of_call_keeps_its_promise(
    model: Any, transport: str, subtests: pytest.Subtests
) -> None:
    async with tools_pool(model, size=2, transport=transport) as pool:
        await keep_them_all(pool, model, PROMISES, subtests)
        memory = pool.stats().shared_memory
        assert (memory is not None) is (transport == "shm")
        if memory is not None:
            assert memory.references > 20
            assert await until(lambda: nothing_is_lent(pool))


async def keep_them_all(
    pool: Pool, model: Any, promises: list[Promise], subtests: pytest.Subtests
) -> None:
    @pool.host_tool
    def plain(array: Any) -> Any:
        return array * 2

    @pool.host_tool
    async def waiting(array: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return array * 2

    @pool.host_tool
    async def calling(array: Any) -> Any:
        return await pool.execute("double", {"array": array})

    @pool.host_tool
    async def tracing(array: int) -> Any:
        assert array == 0
        return await pool.execute("trace")

    pool.add_host_tool(refuse)

    workers = [worker.id for worker in pool.workers()]
    for promise in promises:
        with subtests.test(promise.__name__):
            await promise(pool, model)
            stats = pool.stats()
            assert (stats.busy, stats.queued, stats.restarts) == (0, 0, 0)
    assert [worker.id for worker in pool.workers()] == workers


async def test_so_it_does_where_the_pool_is_connected_to_workers(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """One with sync tools and one with async ones. What was not started here runs no functions."""
    first, second = (f"unix:{tmp_path / name}" for name in ("sync", "async"))
    with (
        starting("--listen", first, adapter="call_model:SyncModel") as one,
        starting("--listen", second, adapter="call_model:AsyncModel") as other,
    ):
        for process in (one, other):
            told(process)
        promises = [promise for promise in PROMISES if promise not in OF_FUNCTIONS]
        with anyio.fail_after(PATIENCE_S):
            async with open_pool(connect=[first, second], min_ready=2, stop=PATIENT) as pool:
                await keep_them_all(pool, SyncModel, promises, subtests)


def nothing_is_lent(pool: Pool) -> bool:
    gc.collect()
    memory = pool.stats().shared_memory
    assert memory is not None
    return memory.leases == 0 and memory.used_bytes == 0


# -- without async -----------------------------------------------------------------------------------


@every_transport
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_so_it_does_in_pools_for_blocking_code(backend: str, transport: str) -> None:
    with open_pool_sync(
        SyncModel, size=2, min_ready=2, transport=transport, backend=backend, stop=PATIENT
    ) as pool:
        keep_every_promise(pool)
        assert (pool.stats().busy, pool.stats().restarts) == (0, 0)


def keep_every_promise(pool: SyncPool) -> None:
    pool.add_host_tool(lambda array: array * 2, name="plain")
    assert equal(pool.execute("ask", {"name": "plain", "array": large()}), 2 * large())
    with pool.session() as session:
        assert session.execute("remember", {"value": large()}) == 1
        assert equal(session.execute("told"), [large()])
    shown: list[float] = []
    params = {"array": large(), "steps": 5}
    pool.execute("report", params, on_progress=lambda done, *_: shown.append(done))
    assert shown[-1] == 5
    with pool.stream("count", {"size": MIB}) as chunks:
        assert [int(next(chunks)[0]) for _ in range(3)] == [0, 1, 2]
    made: Iterator[dict[str, Any]] = ({"array": large(number)} for number in range(4))
    with pool.map("double", made) as results:
        assert equal(list(results), [2 * large(number) for number in range(4)])
    assert equal(pool.call(SyncModel.double, large()), 2 * large())
    assert equal(pool.run_sync(doubled, large()), 2 * large())
    assert equal(pool.as_executor().submit(doubled, large()).result(20), 2 * large())
    with trace_context(TRACE):
        assert pool.execute("trace") == TRACE
        assert pool.run_sync(trace) == TRACE
    assert pool.execute("trace") == {}
