"""Pools of workers that somebody else has started: one worker for most of it, and it outlives all."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import asyncio_only, one_loop_each
from connecting import PATHS, worker
from grpclib.client import Channel
from grpclib.client import Stream as Call
from grpclib.const import Cardinality, Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from pool_kit import BRISK, PATIENCE_S, PATIENT, lines, until

from snakepit import (
    CallTimeoutError,
    Pool,
    PoolClosedError,
    Startup,
    Stop,
    WorkerDiedError,
    WorkerStartError,
    open_pool,
    open_pool_sync,
    trace_context,
)
from snakepit.grpc import CONNECT, POOL_KEY, Codec
from snakepit.grpc._generated.snakepit.v1 import ExecuteReply, ExecuteRequest, Value
from snakepit.protocol import decode_value, encode_value
from snakepit.worker._functions import RUN_SYNC
from snakepit.worker._grpc_guest import PoolService
from snakepit.worker._grpc_host import OwnHost

MIB = 2**20
TRACE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    path = f"unix:{tmp_path_factory.mktemp('worker') / 'socket'}"
    with worker("--listen", path) as where:
        assert where == path
        yield path


@asynccontextmanager
async def connected(*addresses: str, stop: Stop = PATIENT, **options: Any) -> AsyncGenerator[Pool]:
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(connect=addresses, stop=stop, **options) as pool:
            yield pool


# -- what it does as any pool does -----------------------------------------------------------------


async def test_calls_streams_sessions_inputs_and_host_tools_work(address: str) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(100):
            yield number

    async with connected(address) as pool:
        assert await pool.execute("add", {"left": 1, "right": 2}) == 3
        assert await pool.execute("collect", {"items": numbers()}) == list(range(100))
        async with pool.stream("count", {"stop": 100}) as items:
            assert [item async for item in items] == list(range(100))
        async with pool.session("s") as session:
            assert await session.execute("remember", {"value": 1}) == [1]
            assert await session.execute("remember", {"value": 2}) == [1, 2]
            assert await session.execute("whose") == "s"
        pool.add_host_tool(lambda value: value * 2, name="double")
        assert await pool.execute("ask", {"name": "double", "params": {"value": 21}}) == 42
        seen: list[Any] = []
        await pool.execute(
            "tell", {"started": os.devnull}, on_progress=lambda *all_of_it: seen.append(all_of_it)
        )
        assert seen == [(1, 2, "half")]
        async with pool.map("add", [{"left": number} for number in range(50)]) as results:
            assert [result async for result in results] == list(range(1, 51))


async def test_the_callers_trace_goes_along(address: str) -> None:
    async with connected(address) as pool:
        with trace_context(TRACE):
            assert await pool.execute("trace") == TRACE
        assert await pool.execute("trace") == {}


@asyncio_only
async def test_connect_itself_is_part_of_the_trace_of_who_opens_the_pool(tmp_path: Path) -> None:
    """As proxies on the way, and other servers, see it."""
    path, seen = str(tmp_path / "socket"), list[dict[str, Any]]()

    async def refuse(event: RecvRequest) -> None:
        seen.append({key: event.metadata.get(key) for key in ("traceparent", "tracestate")})
        raise GRPCError(Status.FAILED_PRECONDITION, "seen")

    server = Server([PoolService(OwnHost(""))])
    listen(server, RecvRequest, refuse)
    await server.start(path=path)
    try:
        for headers in (TRACE, {}):
            with trace_context(headers), pytest.raises(WorkerStartError, match="seen"):
                async with connected(f"unix:{path}", startup=Startup(timeout=1)):
                    pass
    finally:
        server.close()
        await server.wait_closed()
    assert seen[0] == TRACE
    assert seen[-1] == dict.fromkeys(TRACE)


async def test_large_values_go_there_and_back(address: str) -> None:
    value = os.urandom(3 * MIB)
    async with connected(address) as pool:
        assert await pool.execute("echo", {"value": value}) == value
        assert bytes(await pool.execute("echo", {"value": memoryview(value)})) == value


async def test_it_is_told_where_the_worker_is_and_nothing_of_its_process(address: str) -> None:
    async with connected(address) as pool:
        (info,) = pool.workers()
        assert (info.address, info.pid, info.rss_mb, info.state) == (address, None, None, "ready")
        assert set(pool.tools()) >= {"add", "count"}
        with pytest.raises(RuntimeError, match="cannot show its stacks"):
            await pool.dump(info.id)
        with pytest.raises(PermissionError, match="connected to workers of others"):
            await pool.run_sync(os.getpid)


async def test_leaving_the_block_disconnects_and_the_worker_lives_on(address: str) -> None:
    """With nothing of the pool's left in it."""
    pids = set()
    for _ in range(2):
        async with connected(address) as pool:
            pids.add(await pool.execute("pid"))
            assert await pool.execute("remember", {"value": 1}, session="s") == [1]
    assert len(pids) == 1
    os.kill(pids.pop(), 0)


def test_blocking_code_has_it_too(address: str) -> None:
    with open_pool_sync(connect=[address]) as pool:
        assert pool.execute("add", {"left": 1}) == 2


async def test_a_cancelled_call_has_as_long_as_its_pool_says(address: str, tmp_path: Path) -> None:
    """Not the second that a worker takes where nobody has said anything."""
    started, log = str(tmp_path / "started"), tmp_path / "log"
    async with connected(address) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "wait_for_child", {"started": started, "log": str(log)})
        await until(lambda: os.path.exists(started))
        tasks.cancel_scope.cancel()
    assert lines(log) == ["0"]  # nobody has ended it before its time


# -- stopping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["sleep", "kill_on_cancel"])
async def test_a_cancelled_call_is_interrupted_and_the_connection_kept(
    address: str, tool: str, tmp_path: Path
) -> None:
    """Also where the tool would rather have its worker killed: nobody kills this one."""
    log = tmp_path / "log"
    async with connected(address) as pool:
        with pytest.raises(CallTimeoutError):
            key = "started" if tool == "sleep" else "log"
            await pool.execute(tool, {key: str(log)}, timeout=0.4)
        written = lines(log)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "beat", {"log": str(log)})
            await until(lambda: len(lines(log)) > len(written))
            tasks.cancel_scope.cancel()
        written = lines(log)
        assert await pool.execute("add", {"left": 1}) == 2
        assert lines(log) == written
        assert pool.workers()[0].id.endswith("-1.1")


@pytest.mark.parametrize("how", ["timeout", "scope", "stream", "map", "close"])
async def test_a_call_that_does_not_stop_is_told_of_as_one_that_may_go_on(
    address: str, how: str, tmp_path: Path
) -> None:
    """Its worker is hung up on, and used again as soon as the tool has ended, and no sooner."""
    log, release = tmp_path / "log", tmp_path / "release"
    params = {"log": str(log), "release": str(release)}

    async def leave(pool: Pool) -> None:
        if how == "timeout":
            await pool.execute("refuse", params, timeout=0.1)
        elif how == "scope":
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_cancel_once, scope, log)
                    with pytest.raises(WorkerDiedError) as caught:
                        await pool.execute("refuse", params)
                raise caught.value
        elif how == "stream":
            async with pool.stream("refuse_and_yield", params) as items:
                async for _ in items:
                    break
                await until(lambda: lines(log))
        elif how == "map":
            async with pool.map("refuse", [params]) as results:
                await until(lambda: lines(log))
                del results
        else:
            await pool.execute("refuse", params)

    async with connected(address, stop=BRISK) as pool:
        if how == "close":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_fails_as_unresponsive, leave, pool)
                await until(lambda: lines(log))
                pool._core.close()
        else:
            await _fails_as_unresponsive(leave, pool)
            assert not pool.workers()[0].id.endswith("-1.1")
        assert "ended" not in lines(log)
        if how != "close":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.execute, "note", {"log": str(log), "text": "next"})
                await until(lambda: pool.workers()[0].state == "starting")
                release.touch()
    release.touch()
    async with connected(address) as pool:
        await pool.execute("note", {"log": str(log), "text": "last"})
    expected = ["begun", "swallowed", "ended", "next", "last"]
    if how == "close":
        expected.remove("next")
    assert lines(log) == expected


async def _cancel_once(scope: anyio.CancelScope, log: Path) -> None:
    await until(lambda: lines(log))
    scope.cancel()


async def _fails_as_unresponsive(leave: Any, pool: Pool) -> None:
    began = anyio.current_time()
    with pytest.raises(WorkerDiedError) as caught:
        await leave(pool)
    assert caught.value.reason == "unresponsive"
    assert caught.value.started
    assert caught.value.pid is None
    assert anyio.current_time() - began >= BRISK.cancel_grace + BRISK.term_grace


async def test_calls_elsewhere_end_as_closed_when_the_pool_is_left(
    address: str, tmp_path: Path
) -> None:
    log, errors = tmp_path / "log", []

    async def call(pool: Pool) -> None:
        try:
            await pool.execute("beat", {"log": str(log)})
        except PoolClosedError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks, connected(address) as pool:
        tasks.start_soon(call, pool)
        await until(lambda: lines(log))
    assert len(errors) == 1
    written = lines(log)
    async with connected(address) as pool:
        await pool.execute("add", {"left": 1})
    assert lines(log) == written


HOST = """
import anyio, sys
from pathlib import Path
from snakepit import open_pool

async def main(address, log, asked):
    async def never():
        Path(asked).touch()
        await anyio.sleep_forever()

    async with open_pool(connect=[address]) as pool:
        pool.add_host_tool(never)
        await pool.execute("remember", {"value": 1}, session="of the dead")
        await pool.execute("ask_and_log", {"name": "never", "log": log})

anyio.run(main, *sys.argv[1:], backend="trio")
"""


@one_loop_each
async def test_of_a_host_that_was_killed_nothing_is_left_in_the_worker(
    address: str, tmp_path: Path
) -> None:
    """What its call asked it is answered, the call is cancelled, its sessions are forgotten."""
    log, asked = tmp_path / "log", tmp_path / "asked"
    argv = [sys.executable, "-c", HOST, address, str(log), str(asked)]
    env = os.environ | {"PYTHONPATH": PATHS}
    async with await anyio.open_process(argv, env=env, stdin=None, stdout=None) as host:
        await until(asked.exists)
        host.kill()
        await host.wait()
    async with connected(address) as pool:
        assert lines(log) == ["ToolCancelled"]
        assert await pool.execute("remember", {"value": 2}, session="of the dead") == [2]


# -- connections -----------------------------------------------------------------------------------


async def test_a_pool_opens_with_those_that_are_there(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And tells once why another is not."""
    nowhere = f"unix:{tmp_path / 'nowhere'}"
    async with connected(nowhere, address) as pool:
        await until(lambda: pool.stats().restarts > 1)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert await pool.execute("add", {"left": 1}) == 2
        assert [info.address for info in pool.workers()] == [nowhere, address]
        with pytest.raises(WorkerStartError, match=r"cannot connect to unix:.*No such file"):
            await pool.ready()
    with pytest.raises(WorkerStartError, match="No such file"):
        async with connected(nowhere, address, min_ready=2):
            pass


async def test_who_does_not_answer_delays_neither_the_start_nor_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    slow = Stop(term_grace=PATIENCE_S, drain_timeout=PATIENCE_S)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        async with connected(f"unix:{path}", min_ready=0, stop=slow) as pool:
            assert pool.workers()[0].state == "starting"
        with pytest.raises(WorkerStartError, match=r"say hello within 0\.1 s"):
            async with connected(f"unix:{path}", stop=slow, startup=Startup(timeout=0.1)):
                pass


async def test_a_worker_has_one_pool_at_a_time(address: str) -> None:
    async with connected(address) as pool:
        with pytest.raises(WorkerStartError, match=r"FAILED_PRECONDITION.*has a pool already"):
            async with connected(address):
                pass
        assert await pool.execute("add", {"left": 1}) == 2
        async with open_pool(connect=[address], min_ready=0) as second:
            await until(lambda: second.stats().restarts)
            pool._core.close()
            assert await second.execute("add", {"left": 2}) == 3


@asyncio_only
async def test_other_clients_stand_in_the_same_line(address: str, tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    path = address.removeprefix("unix:")
    async with (
        connected(address) as pool,
        Channel(path=path, codec=Codec()) as channel,
        anyio.create_task_group() as tasks,
    ):
        hold = {"started": str(started), "release": str(release)}
        tasks.start_soon(pool.execute, "hold", hold)
        await until(started.exists)
        async with _execute(channel) as call:
            await call.send_message(_request("remember", value=1), end=True)
            release.touch()
            reply = await call.recv_message()
        assert reply is not None
        assert reply.value is not None
        assert decode_value(reply.value.msgpack or b"") == [1]
        assert await pool.execute("remember", {"value": 2}, session="shared") == [1, 2]


@asyncio_only
async def test_nobody_can_send_it_a_pickle(address: str) -> None:
    """Not even by the name of the tool that runs them in workers of a pool's own."""
    pickled = pickle.dumps((os.getpid, ()))
    async with Channel(path=address.removeprefix("unix:"), codec=Codec()) as channel:
        with pytest.raises(GRPCError, match="NOT_FOUND"):
            async with _execute(channel) as call:
                request = _request(RUN_SYNC, pickled=pickled, uses_main=False, as_is=False)
                await call.send_message(request, end=True)
                await call.recv_message()


def _request(tool: str, **params: object) -> ExecuteRequest:
    body = bytes(encode_value(params)[0])
    return ExecuteRequest(tool=tool, params=Value(msgpack=body), session="shared")


def _execute(channel: Channel) -> Call[ExecuteRequest, ExecuteReply]:
    path = "/snakepit.v1.Worker/Execute"
    return channel.request(path, Cardinality.UNARY_UNARY, ExecuteRequest, ExecuteReply)


@asyncio_only
async def test_a_pool_takes_the_place_of_a_connection_that_it_has_lost(address: str) -> None:
    """Nobody has told the worker: a machine in between has gone, say."""
    path = address.removeprefix("unix:")
    async with Channel(path=path, codec=Codec()) as channel, _connect(channel, "one") as lost:
        await _hear(lost)
        with pytest.raises(GRPCError, match="has a pool already"):
            async with _connect(channel, "another") as other:
                await _hear(other)
        async with _connect(channel, "one") as again:
            await _hear(again)
            assert await lost.recv_message() is None
            await lost.cancel()
            await again.end()


def _connect(channel: Channel, pool: str) -> Call[bytes, bytes]:
    kind = Cardinality.STREAM_STREAM
    return channel.request(CONNECT, kind, bytes, bytes, metadata={POOL_KEY: pool})


async def _hear(call: Call[bytes, bytes]) -> None:
    await call.send_request()
    assert await call.recv_message()
