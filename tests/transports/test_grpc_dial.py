"""What is told of an address where no worker answers."""

from __future__ import annotations

import socket
from collections.abc import Generator
from concurrent.futures.thread import _threads_queues
from contextlib import contextmanager, suppress
from threading import Event as ThreadsEvent
from threading import Thread, current_thread
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from _backends import one_loop_each, trio_only
from grpclib.const import Status

from snakepit import Startup, WorkerStartError, open_pool
from snakepit._address import Address, parse_address
from snakepit.transports import _grpc_dial
from snakepit.transports._grpc_dial import refusal
from snakepit.transports._grpc_names import Place, places_of

PATIENCE_S = 20


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({":status": "502", "content-type": "text/html"}, Status.UNAVAILABLE, "HTTP status 502"),
        ({":status": "404"}, Status.UNAVAILABLE, "HTTP status 404"),
        (
            {":status": "200", "grpc-status": "12", "grpc-message": "no%20"},
            Status.UNIMPLEMENTED,
            "no ",
        ),
        ({":status": "400", "grpc-status": "2", "grpc-message": "why"}, Status.UNKNOWN, "why"),
        ({":status": "200", "grpc-status": "99"}, Status.UNKNOWN, "status 99"),
        ({":status": "200", "grpc-status": "x"}, Status.UNKNOWN, "status x"),
    ],
)
def test_a_refusal_is_told_whoever_refuses(
    headers: dict[str, str], status: Status, says: str
) -> None:
    error = refusal(headers)
    assert error is not None
    assert error.status is status
    assert error.message is not None
    assert says in error.message


@pytest.mark.parametrize(
    "headers", [{}, {":status": "200"}, {":status": "200", "grpc-status": "0"}]
)
def test_what_went_well_is_no_refusal(headers: dict[str, str]) -> None:
    assert refusal(headers) is None


@contextmanager
def answers(data: bytes) -> Generator[str]:
    """Somebody who says this to whoever connects, and waits. The address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            made, _ = listener.accept()
            with made, suppress(ConnectionResetError):
                made.sendall(data)
                while made.recv(2**16):
                    pass

        thread = Thread(target=serve)
        thread.start()
        yield f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        thread.join(PATIENCE_S)


@one_loop_each
@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_who_speaks_something_else_is_known_at_once(said: bytes) -> None:
    with answers(said) as address, pytest.raises(WorkerStartError, match="cannot connect to tcp"):
        with anyio.fail_after(PATIENCE_S):
            async with open_pool(connect=[address], startup=Startup(timeout=2 * PATIENCE_S)):
                pass


@one_loop_each
@pytest.mark.parametrize(
    ("address", "places"),
    [
        ("unix:/some/socket", []),
        ("tcp:127.0.0.1:5", [("127.0.0.1", 5)]),
        ("tcp:[::1]:5", [("::1", 5)]),
        ("tcp:some.example:5", [("127.0.0.1", 5), ("127.0.0.2", 5)]),
    ],
)
async def test_a_name_leads_to_all_its_places_once(
    address: str, places: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(host: object, port: object, *more: int) -> list[Any]:
        if b"example" not in bytes(str(host), "ascii") or more[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "none")
        kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [(*kind, (f"127.0.0.{number}", port)) for number in (1, 2, 1)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert await places_of(parse_address(address)) == places


@trio_only
async def test_the_end_of_the_interpreter_does_not_wait_for_a_name_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for threads of concurrent.futures, also for daemons."""
    begun, answered, threads = anyio.Event(), ThreadsEvent(), list[Thread]()
    tell = trio.lowlevel.current_trio_token().run_sync_soon

    def look_up(_host: object, port: object, *more: int) -> list[Any]:
        if more[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        threads.append(current_thread())
        tell(begun.set)
        answered.wait(PATIENCE_S)
        raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with anyio.fail_after(PATIENCE_S):
            async with open_pool(connect=["tcp:localhost:5"], min_ready=0):
                await begun.wait()
        assert [thread.daemon for thread in threads] == [True]
        assert not set(threads) & set(_threads_queues)
    finally:
        answered.set()
        for thread in threads:
            thread.join(0.1)


@one_loop_each
@pytest.mark.parametrize(
    ("is_second_there", "says"), [(False, "failed.*; .*failed"), (True, "Connection lost|Protocol")]
)
async def test_places_are_tried_until_one_takes_the_connection(
    is_second_there: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answers(b"HTTP/1.1 400 Bad Request\r\n\r\n") as there, socket.socket() as not_there:
        not_there.bind(("127.0.0.1", 0))  # and does not listen
        nowhere = not_there.getsockname()
        second = parse_address(there)
        places = [nowhere, (second.host, second.port) if is_second_there else nowhere]

        async def found(_address: Address) -> list[Place]:
            await anyio.lowlevel.checkpoint()
            return places

        monkeypatch.setattr(_grpc_dial, "places_of", found)
        with pytest.raises(WorkerStartError, match=says), anyio.fail_after(PATIENCE_S):
            async with open_pool(connect=["tcp:localhost:5"]):
                pass
        if not is_second_there:
            socket.create_connection((second.host, second.port)).close()
