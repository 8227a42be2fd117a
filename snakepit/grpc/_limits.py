"""Names and numbers that host and worker agree on."""

from __future__ import annotations

import socket
from typing import Any, Final

from grpclib.config import Configuration

CONNECT: Final = "/snakepit.v1.Worker/Connect"
TOKEN_KEY: Final = "snakepit-token"  # noqa: S105 - its name
POOL_KEY: Final = (
    "snakepit-pool"  # which pool it is: it may take the place of a connection that it has lost
)
PID_KEY: Final = "snakepit-pid"  # of a worker that runs where its host does
TOKEN_BYTES: Final = 32  # of randomness; it travels as hexadecimal digits

FRAMES_BYTES_MAX: Final = 2**20  # of data in one `Frames`
STREAM_WINDOW_BYTES: Final = 2**20
CONNECTION_WINDOW_BYTES: Final = 64 * 2**20
HTTP2_FRAME_BYTES_MAX: Final = 2**18  # as much as asyncio reads at once
STREAMS_MAX: Final = 1000  # calls at once on one connection
KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # found within 25 s
assert STREAM_WINDOW_BYTES < CONNECTION_WINDOW_BYTES, (
    "a stream that nobody reads must not use up the window of the others"
)


def configuration(**more: Any) -> Configuration:
    """The configuration of either end: each advertises how much the other may send unread."""
    return Configuration(
        http2_connection_window_size=CONNECTION_WINDOW_BYTES,
        http2_stream_window_size=STREAM_WINDOW_BYTES,
        **more,
    )


def keep_alive(made: socket.socket) -> None:
    """Have the kernel notice that the machine at the other end of a TCP connection is gone."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):  # macOS has other names
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
