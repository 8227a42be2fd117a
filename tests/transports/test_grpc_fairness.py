"""What stands before a small message, or a ping, on a link that a large value has filled."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from grpc_pairs import grpc_pair

from snakepit.grpc import STREAM_WINDOW_BYTES
from snakepit.protocol import PART_BYTES_MAX, Cancel, Unpacker, decode_to_worker
from snakepit.testing._probes import large_call
from snakepit.transports import _grpc_stream
from snakepit.transports._grpc_stream import PILE_BYTES_MAX

PATIENCE_S = 20
ON_ITS_WAY_BYTES_MAX = (
    PILE_BYTES_MAX + STREAM_WINDOW_BYTES + 2**19
)  # and what kernel and threads have
AHEAD_BYTES_MAX = PART_BYTES_MAX + ON_ITS_WAY_BYTES_MAX


async def until_full(stream: Any) -> None:
    """Until the link takes nothing more of what waits."""
    before = -1
    while stream._sent_bytes != before or not before:
        before = stream._sent_bytes
        await anyio.sleep(0.05)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The connections of links, over which nobody pings by himself."""
    found: list[Any] = []

    async def keep(connection: Any, pid: int | None) -> None:
        found.append(connection)
        await _grpc_stream.asyncio.Event().wait()

    monkeypatch.setattr(_grpc_stream, "until_silent", keep)
    return found


async def test_a_large_value_that_nobody_takes_holds_up_neither_a_message_nor_a_ping(
    connections: list[Any],
) -> None:
    """A message waits for the part that was begun and for what is on its way, a ping for nothing."""
    with anyio.fail_after(PATIENCE_S):
        async with grpc_pair() as (channel, peer):
            stream, home = channel._stream, channel._home
            call = large_call(1)
            size = len(memoryview(call.buffers[0]))
            assert size > 2 * AHEAD_BYTES_MAX, "it fills the link"
            assert channel.send_nowait(call)
            await until_full(stream)
            await ping(connections[0], home)
            assert channel.send_nowait(Cancel(2))
            assert await bytes_before(peer, Cancel(2)) <= AHEAD_BYTES_MAX


async def ping(connection: Any, home: Any) -> None:
    """Until the answer is there."""
    answered = anyio.Event()

    def begin() -> None:
        connection.ping_ack_process = lambda: home.to_host(answered.set)
        connection._connection.ping(bytes(8))
        connection.flush()

    home.to_grpc(begin)
    await answered.wait()


async def bytes_before(peer: Any, message: Any) -> int:
    """How much comes up to this message."""
    unpacker: Unpacker[Any] = Unpacker(decode_to_worker)
    count = 0
    while True:
        try:
            chunk = peer._stream.read(2**14)
        except BlockingIOError:
            await peer._stream.until_readable()
            continue
        count += len(chunk)
        if message in unpacker.feed(chunk):
            return count
