"""Calls and messages that are wrong from the first: each is answered, and none with an exception in the log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from _backends import asyncio_only
from _h2_client import METHOD, Client, until_idle
from grpclib.const import Cardinality, Handler, Status
from h2.events import ResponseReceived, StreamEnded

from snakepit.errors import ProtocolError
from snakepit.grpc import Incoming, SoundServer, receive
from snakepit.grpc._generated.grpc.health.v1 import HealthCheckRequest

pytestmark = [pytest.mark.anyio]

HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": METHOD,
    "te": "trailers",
    "content-type": "application/grpc",
}


class Reads:
    """One method, which reads one message."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    async def call(self, stream: Any) -> None:
        self.got.append(await receive(stream))
        await stream.send_message(b"")

    def __mapping__(self) -> dict[str, Handler]:
        return {METHOD: Handler(self.call, Cardinality.UNARY_UNARY, HealthCheckRequest, bytes)}


async def status_of(headers: dict[str, str], data: bytes, service: Reads) -> Status:
    """What the client is told for this call."""
    client = Client(SoundServer([service]))
    client.h2.config.validate_outbound_headers = False
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream, list(headers.items()))
    client.h2.send_data(stream, data, end_stream=True)
    client.server.data_received(client.h2.data_to_send())
    await until_idle()
    events = client.h2.receive_data(client.transport.written)
    (told,) = [event for event in events if isinstance(event, ResponseReceived)]
    assert any(isinstance(event, StreamEnded) for event in events)
    assert not client.transport.is_closing()
    assert not client.server.processor.streams, "its stream was let go of"
    assert told.headers is not None
    return Status(int(dict(told.headers)[b"grpc-status"]))


@asyncio_only
@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"grpc-timeout": "0n"}, Status.DEADLINE_EXCEEDED),
        ({"grpc-timeout": "1n"}, Status.DEADLINE_EXCEEDED),
        ({"grpc-timeout": "soon"}, Status.UNKNOWN),  # grpclib's own answer
        ({"some-bin": "a"}, Status.INVALID_ARGUMENT),
        ({"some-bin": "é"}, Status.INVALID_ARGUMENT),
        ({":path": ""}, Status.UNIMPLEMENTED),
        ({":path": None}, Status.INTERNAL),
        ({":method": None}, Status.INTERNAL),
    ],
)
async def test_a_call_that_cannot_begin_is_answered(
    more: dict[str, str | None], status: Status, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {name: value for name, value in (HEADERS | more).items() if value is not None}
    service = Reads()
    with caplog.at_level(logging.WARNING):
        assert await status_of(headers, bytes(5), service) is status
    assert (service.got, caplog.messages) == ([], [])


@asyncio_only
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\0\0\0\0\x05abc", Status.INVALID_ARGUMENT),  # cut short
        (b"\0\0", Status.INVALID_ARGUMENT),
        (b"\1\0\0\0\0", Status.UNIMPLEMENTED),  # compressed
        (b"\0\0\0\0\x04\x0a\x02\xff\xff", Status.INVALID_ARGUMENT),  # not UTF-8
        (b"\0\0\0\0\x01\x0a", Status.INVALID_ARGUMENT),  # no size
        (b"\0\0\0\0\x01\x0d", Status.INVALID_ARGUMENT),  # a text of another kind
    ],
)
async def test_a_message_that_cannot_be_read_is_answered(
    data: bytes, status: Status, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert await status_of(HEADERS, data, Reads()) is status
    assert caplog.messages == []


class Said:
    """A stream that has said this and ended."""

    def __init__(self, data: bytes) -> None:
        self._data = asyncio.StreamReader()
        self._data.feed_data(data)
        self._data.feed_eof()

    async def recv_data(self, size: int) -> bytes:
        data = await self._data.read(size)
        if data and len(data) < size:
            raise AssertionError("Received less data than expected")
        return data


@asyncio_only
@pytest.mark.parametrize("data", [b"\0\0\0", b"\0\0\0\0\x05abc"])
async def test_a_message_of_connect_that_is_cut_short_is_a_protocol_error(data: bytes) -> None:
    stream: Any = Said(data)
    with pytest.raises(ProtocolError, match="cut short"):
        await Incoming(stream).receive()
