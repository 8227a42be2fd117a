"""What is told of an address where no worker answers."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from threading import Thread

import anyio
import pytest
from _backends import one_loop_each
from grpclib.const import Status

from snakepit import Startup, WorkerStartError, open_pool
from snakepit.transports._grpc_dial import refusal

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
