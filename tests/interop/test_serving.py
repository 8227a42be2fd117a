"""How a worker that serves any client begins and ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest
from _backends import asyncio_only
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from test_interop import ADD_MORE, served

from snakepit.grpc import Codec
from snakepit.grpc._generated.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse
from snakepit.grpc._generated.snakepit.v1 import ExecuteReply, ExecuteRequest, Value
from snakepit.protocol import decode_value, encode_value

EXECUTE, WATCH = "/snakepit.v1.Worker/Execute", "/grpc.health.v1.Health/Watch"
UNARY = Cardinality.UNARY_UNARY
NOT_SERVING = 2


def request(tool: str, **params: object) -> ExecuteRequest:
    body = encode_value(params, buffer_threshold=2**40)[0]
    return ExecuteRequest(tool=tool, params=Value(msgpack=bytes(body)))


@asyncio_only
async def test_sigterm_lets_the_call_that_runs_finish_and_takes_no_other(tmp_path: Path) -> None:
    path, log = str(tmp_path / "socket"), tmp_path / "log"
    with served("--listen", f"unix:{path}") as process:
        async with Channel(path=path, codec=Codec()) as channel:
            health = channel.request(
                WATCH, Cardinality.UNARY_STREAM, HealthCheckRequest, HealthCheckResponse
            )
            call = channel.request(EXECUTE, UNARY, ExecuteRequest, ExecuteReply)
            late = channel.request(EXECUTE, UNARY, ExecuteRequest, ExecuteReply)
            async with health, call, late:
                await health.send_message(HealthCheckRequest(), end=True)
                assert (await health.recv_message()) == HealthCheckResponse(status=1)
                os.mkfifo(log)
                await call.send_message(request("open_and_add", path=str(log)), end=True)
                writing = await opened(log)
                process.send_signal(signal.SIGTERM)
                assert (await health.recv_message()) == HealthCheckResponse(status=NOT_SERVING)
                await late.send_message(request("add", left=1), end=True)
                with pytest.raises(GRPCError, match="UNAVAILABLE"):
                    await late.recv_message()
                os.close(writing)
                reply = await call.recv_message()
                assert reply is not None
                assert reply.value is not None
                assert decode_value(reply.value.msgpack or b"") == "all was read"
        # It ends by itself; a second signal would cut that short.
        await anyio.to_thread.run_sync(process.wait, 20)


async def opened(fifo: Path) -> int:
    """The writing end, once the tool has the reading one."""
    with anyio.fail_after(20):
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                await anyio.sleep(0.003)


@asyncio_only
async def test_it_listens_on_several_addresses_tcp_among_them(tmp_path: Path) -> None:
    """Port 0 is a free one, which it tells."""
    unix = str(tmp_path / "socket")
    with served("--listen", "tcp:127.0.0.1:0", "--listen", f"unix:{unix}") as process:
        told = re.search(r" on tcp:127\.0\.0\.1:(\d+), unix:(.*)\n", process.told)
        assert told is not None
        assert told[2] == unix
        port = int(told[1])
        for channel in (
            Channel("127.0.0.1", port, codec=Codec()),
            Channel(path=unix, codec=Codec()),
        ):
            async with (
                channel,
                channel.request(EXECUTE, UNARY, ExecuteRequest, ExecuteReply) as call,
            ):
                await call.send_message(request("add", left=1, right=2), end=True)
                reply = await call.recv_message()
            assert reply is not None
            assert reply.value is not None
            assert reply.value.msgpack == b"\x03"


@asyncio_only
async def test_a_request_over_the_maximum_is_refused_and_the_next_one_served(
    tmp_path: Path,
) -> None:
    """Before it has come: its client need not send the rest."""
    path = str(tmp_path / "socket")
    with served("--listen", f"unix:{path}", "--max-request-mb", "1"):
        async with Channel(path=path, codec=Codec()) as channel:
            for size in (2**20 - 100, 2**20, 8 * 2**20, 2**20 - 100):
                call = channel.request(EXECUTE, UNARY, ExecuteRequest, ExecuteReply)
                try:
                    async with call:
                        await call.send_message(request("echo", value=bytes(size)), end=True)
                        reply = await call.recv_message()
                except GRPCError as error:
                    assert size >= 2**20
                    assert error.status is Status.RESOURCE_EXHAUSTED
                    assert str(error.message).endswith("is over the maximum of 1048576")
                else:
                    assert size < 2**20
                    assert reply is not None
                    assert reply.value is not None
                    assert decode_value(reply.value.msgpack or b"") == bytes(size)


def test_a_socket_that_a_killed_worker_has_left_is_replaced_and_a_live_one_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with served("--listen", f"unix:{path}"):
        run = start("--adapter", "interop_adapter:Interop", "--listen", f"unix:{path}")
        assert run.returncode == 2
        assert "in use" in run.stderr
    assert not path.exists()


QUICK = """
import sys
from snakepit.worker import __main__, _grpc_serving
_grpc_serving.DRAIN_S = _grpc_serving.STOP_S = 0.1
sys.exit(__main__.main(sys.argv[1:]))
"""


@contextmanager
def started(argv: list[str], path: object) -> Generator[subprocess.Popen[str]]:
    """A worker that is to listen there."""
    with subprocess.Popen(
        [sys.executable, *argv, "--listen", f"unix:{path}"],
        env=os.environ | ADD_MORE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def stubborn(path: str) -> Generator[subprocess.Popen[str]]:
    """A quick worker of that kind, once it serves there."""
    with started(["-c", QUICK, "--adapter", "interop_adapter:Stubborn"], path) as process:
        assert process.stderr is not None
        assert "serves" in process.stderr.readline()
        yield process


@asyncio_only
@pytest.mark.parametrize("tool", ["never_stop", "lock_twice"])
async def test_a_tool_that_does_not_stop_does_not_keep_the_worker(
    tmp_path: Path, tool: str
) -> None:
    """What it has started is ended with it. A tool in C code, which no signal reaches, neither."""
    path, log = str(tmp_path / "socket"), tmp_path / "log"
    os.mkfifo(log)
    with stubborn(path) as process:
        assert process.stderr is not None
        async with Channel(path=path, codec=Codec()) as channel:
            call = channel.request(EXECUTE, UNARY, ExecuteRequest, ExecuteReply)
            with pytest.raises((GRPCError, StreamTerminatedError)):
                async with call:
                    await call.send_message(request(tool, path=str(log)), end=True)
                    told = await anyio.to_thread.run_sync(log.open)
                    assert await anyio.to_thread.run_sync(told.readline) == "it runs\n"
                    process.send_signal(signal.SIGTERM)
                    await call.recv_message()
        assert await anyio.to_thread.run_sync(process.wait, 20) == 1
        assert "a tool does not stop" in process.stderr.read()
        assert not Path(path).exists()
        with told:
            assert await anyio.to_thread.run_sync(told.read) == ""  # nobody has it open


def test_a_cleanup_that_does_not_end_does_not_keep_the_worker(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with stubborn(path) as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 1
        said = process.stderr.read()
        assert "it cleans up" in said
        assert "cleanup does not end" in said
        assert not Path(path).exists()


SLOW = """
import sys, threading
from snakepit import Adapter, tool

def begin_for_ever(_adapter=None):
    print("it begins", file=sys.stderr, flush=True)
    threading.Event().wait()

class Slow(Adapter):
    initialize = begin_for_ever if {initializes} else None
    if not {initializes}:
        begin_for_ever()

    @tool
    def nothing(self):
        pass
"""


@pytest.mark.parametrize("initializes", [False, True], ids=["loading", "initialize"])
def test_a_worker_that_is_told_to_end_before_it_is_ready_goes_without_a_word(
    tmp_path: Path, initializes: bool
) -> None:
    adapter, path = tmp_path / "slow.py", tmp_path / "socket"
    adapter.write_text(SLOW.format(initializes=initializes), encoding="ascii")
    argv = ["-m", "snakepit.worker", "--adapter", f"{adapter}:Slow"]
    with started(argv, path) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "it begins\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
        assert not path.exists()


def test_a_worker_whose_standard_streams_are_closed_serves_all_the_same(tmp_path: Path) -> None:
    """A daemon's: the next thing that is opened would be stderr, and what is printed go into that."""
    socket_ = tmp_path / "socket"
    worker = f'exec "{sys.executable}" -m snakepit.worker --adapter interop_adapter:Interop'
    shell = ["sh", "-c", f'{worker} --listen "unix:{socket_}" <&- >&- 2>&-']
    with subprocess.Popen(shell, env=os.environ | ADD_MORE) as process:
        try:
            end = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < end:
                with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
                    client.connect(str(socket_))
                    assert client.recv(9)
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (0, -signal.SIGTERM)  # it may have nothing to end yet
        finally:
            process.kill()


def test_an_adapter_that_cannot_be_loaded_ends_it(tmp_path: Path) -> None:
    run = start("--adapter", "no_such_module:X", "--listen", f"unix:{tmp_path / 'socket'}")
    assert run.returncode == 1
    assert "no_such_module" in run.stderr
    assert not (tmp_path / "socket").exists()


FAILS = """
import sys
from snakepit.worker import __main__, _grpc_serving
async def start(*_, **__): raise OSError("no descriptor is left")
_grpc_serving.SoundServer.start = start
sys.exit(__main__.main(sys.argv[1:]))
"""


def test_a_worker_whose_thread_for_grpc_has_failed_ends(tmp_path: Path) -> None:
    """Its socket would take connections that nobody serves."""
    adapter = "--adapter", "interop_adapter:Interop"
    run = subprocess.run(
        [sys.executable, "-c", FAILS, *adapter, "--listen", f"unix:{tmp_path / 'socket'}"],
        env=os.environ | ADD_MORE,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert run.returncode == 1
    assert "no descriptor is left" in run.stderr
    assert not (tmp_path / "socket").exists()


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakepit.worker", *arguments],
        env=os.environ | ADD_MORE,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
