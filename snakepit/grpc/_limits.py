"""Names and numbers that host and worker agree on."""

from __future__ import annotations

from typing import Any, Final

from grpclib.config import Configuration

CONNECT: Final = "/snakepit.v1.Worker/Connect"
TOKEN_KEY: Final = "snakepit-token"  # noqa: S105 - its name
TOKEN_BYTES: Final = 32  # of randomness; it travels as hexadecimal digits

FRAMES_BYTES_MAX: Final = 2**20  # of data in one `Frames`
STREAM_WINDOW_BYTES: Final = 2**20
CONNECTION_WINDOW_BYTES: Final = 64 * 2**20
STREAMS_MAX: Final = 1000  # calls at once on one connection
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
