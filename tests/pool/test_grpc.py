"""Pools over gRPC: what the other transports do, and what only this one can get wrong."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from adapters import AsyncTools, Tools
from keeping import Keeping
from pool_kit import PATIENCE_S, lines, run_python, tools_pool, until

from snakepit import (
    CallTimeoutError,
    Pool,
    WorkerDiedError,
    open_pool_sync,
)
from snakepit.transports import _grpc

MIB = 2**20


@asynccontextmanager
async def grpc_pool(adapter: Any = Tools, **options: Any) -> AsyncGenerator[Pool]:
    async with tools_pool(adapter, transport="grpc", **options) as pool:
        yield pool


async def test_calls_streams_and_sessions_work(tmp_path: Path) -> None:
    async with grpc_pool(Keeping) as pool:
        assert await pool.execute("add", {"left": 1, "right": 2}) == 3
        async with pool.stream("count", {"stop": 100}) as numbers:
            assert [number async for number in numbers] == list(range(100))
        async with pool.session("s") as session:
            assert await session.execute("remember", {"value": 1}) == [1]
            assert await session.execute("remember", {"value": 2}) == [1, 2]


@pytest.mark.parametrize("tool_backend", ["asyncio", "trio"])
async def test_async_tools_have_a_loop_of_their_own(tool_backend: str) -> None:
    async with grpc_pool(AsyncTools, tool_backend=tool_backend) as pool:
        assert await pool.execute("echo", {"value": [1]}) == [1]


async def test_a_cancelled_call_is_interrupted_and_its_worker_lives_on(tmp_path: Path) -> None:
    async with grpc_pool() as pool:
        pid = await pool.execute("pid")
        for tool in ("sleep", "spin"):
            with pytest.raises(CallTimeoutError):
                await pool.execute(tool, {"started": str(tmp_path / tool)}, timeout=0.3)
        with anyio.move_on_after(PATIENCE_S) as scope:
            async with anyio.create_task_group() as tasks:
                log = str(tmp_path / "log")
                tasks.start_soon(pool.execute, "beat", {"log": log})
                await until(lambda: lines(tmp_path / "log"))
                tasks.cancel_scope.cancel()
        assert not scope.cancelled_caught
        beats = lines(tmp_path / "log")
        assert await pool.execute("pid") == pid
        assert lines(tmp_path / "log") == beats


async def test_leaving_a_stream_early_closes_the_generator(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with grpc_pool() as pool:
        async with pool.stream("count", {"stop": 10**9, "log": str(log)}) as numbers:
            async for number in numbers:
                if number == 3:
                    break
        assert lines(log)[-1] == "closed"


@pytest.mark.parametrize("how", ["exit", "kill", "segv"])
async def test_a_worker_that_dies_fails_its_call_alone(how: str) -> None:
    async with grpc_pool(size=2) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"how": how})
        assert caught.value.started
        assert await pool.execute("add", {"left": 1}) == 2


async def test_what_came_before_a_stream_was_cut_off_is_read() -> None:
    async with (
        grpc_pool() as pool,
        pool.stream("count_then", {"stop": 5, "what": "exit"}) as numbers,
    ):
        came = []
        with pytest.raises(WorkerDiedError):
            async for number in numbers:
                came.append(number)  # noqa: PERF401 - what came before the error counts
        assert came == list(range(len(came)))


async def test_a_large_value_does_not_hold_up_the_calls_beside_it() -> None:
    """One worker has 8 MiB to take in; another link's calls go on meanwhile."""
    async with grpc_pool(size=2) as pool:
        sizes: list[int] = []

        async def large() -> None:
            sizes.append(len(await pool.execute("echo", {"value": bytes(8 * MIB)})))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(large)
            small = 0
            while not sizes:
                assert await pool.execute("add", {"left": small}) == small + 1
                small += 1
        assert sizes == [8 * MIB]
        assert small > 3


async def test_a_storm_of_cancelled_calls_leaves_the_worker_as_it_was() -> None:
    """A thousand calls given up at once; the link has lost nothing, its windows are whole."""
    async with grpc_pool() as pool:
        pid = await pool.execute("pid")
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(pool.execute, "echo", {"value": bytes(5000)})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert len(await pool.execute("echo", {"value": bytes(8 * MIB)})) == 8 * MIB
        assert await pool.execute("pid") == pid


async def test_all_links_of_a_host_share_one_thread_and_none_under_asyncio(
    anyio_backend_name: str,
) -> None:
    def threads() -> int:
        return [thread.name for thread in threading.enumerate()].count("snakepit-grpc")

    async with grpc_pool(size=2), grpc_pool():
        assert threads() == (1 if anyio_backend_name == "trio" else 0)
    assert threads() == 0


def test_blocking_code_has_it_too() -> None:
    with open_pool_sync(Tools, size=1, transport="grpc") as pool:
        assert pool.execute("add", {"left": 1}) == 2


# -- who may call a worker -----------------------------------------------------------------------


async def test_a_socket_lies_in_a_private_folder_that_is_gone_before_the_worker_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the death of either side, at any moment, leaves nothing on disk."""
    seen: list[tuple[str, int, list[str]]] = []
    remove = _grpc.GrpcLink._remove_folder

    def record(link: Any) -> None:
        folder = link._folder
        if os.path.exists(folder):
            seen.append((folder, os.stat(folder).st_mode & 0o777, os.listdir(folder)))
        remove(link)
        assert not os.path.exists(folder)

    monkeypatch.setattr(_grpc.GrpcLink, "_remove_folder", record)
    with _grpc.GrpcTransport().open_link():
        ((folder, mode, files),) = seen
        assert (mode, files) == (0o700, ["worker.sock"])
        assert not os.path.exists(folder)
    async with grpc_pool() as pool:
        assert await pool.execute("add", {"left": 1}) == 2
        assert not os.path.exists(seen[1][0])
    assert len(seen) == 2


CALL = """
import asyncio, sys
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError
from snakepit.grpc import CONNECT, TOKEN_KEY, Codec

async def main(path, token):
    async with Channel(path=path, codec=Codec()) as channel:
        metadata = {TOKEN_KEY: token} if token else {}
        async with channel.request(CONNECT, Cardinality.STREAM_STREAM, bytes, bytes, metadata=metadata) as call:
            await call.send_message(b"", end=True)
            await call.recv_message()

try:
    asyncio.run(main(*sys.argv[1:]))
except GRPCError as error:
    print(error.status.name)
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("token", ["", "00" * 32])
async def test_a_call_without_the_token_is_refused(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = kept_paths(monkeypatch)
    async with grpc_pool() as pool:
        run = await anyio.to_thread.run_sync(run_python, "-c", CALL, paths[0], token)
        assert run.stdout.split() == ["UNAUTHENTICATED"], run.stderr
        assert await pool.execute("add", {"left": 1}) == 2


@pytest.mark.skipif(os.getuid() != 0, reason="needs unprivileged user namespaces")
async def test_another_user_does_not_even_reach_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = kept_paths(monkeypatch)
    code = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError: print('refused')"
    )
    async with grpc_pool():
        run = await anyio.run_process([sys.executable, "-I", "-S", "-c", code, paths[0]])
        assert run.stdout.split() == [b"refused"]


def kept_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sockets of workers, which are not removed until the end."""
    paths: list[str] = []

    def keep(link: Any) -> None:
        path = os.path.join(link._folder, "worker.sock")
        if path in paths:
            shutil.rmtree(link._folder)
        else:
            paths.append(path)

    monkeypatch.setattr(_grpc.GrpcLink, "_remove_folder", keep)
    return paths


# -- without the extra ---------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["h2", "multidict"])
def test_with_half_of_the_extra_the_error_says_what_to_install(missing: str) -> None:
    """What it does without all of it is tested in an environment that has nothing of it."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import anyio, snakepit\n"
        "async def main():\n"
        "    async with snakepit.open_pool(transport='grpc', size=1): pass\n"
        "try: anyio.run(main)\n"
        "except snakepit.ConfigError as error: print(error)\n"
    )
    run = run_python("-c", code)
    assert "pip install 'snakepit-pool[grpc]'" in run.stdout, run.stderr
    assert "transport" in run.stdout
