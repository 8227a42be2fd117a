"""The answer to a unary call goes in one write, or in grpclib's own way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from _backends import asyncio_only
from _h2_client import METHOD, Client, until_idle
from grpclib.const import Cardinality, Handler
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, TrailersReceived
from h2.settings import SettingCodes

from snakepit.grpc import SoundServer, answer_at_once

pytestmark = [pytest.mark.anyio, asyncio_only]

ASK = b"\0\0\0\0\2\x0a\0"  # Frames without data


class Answering:
    """Answers with `message` in whatever way it goes; `before` is done first."""

    def __init__(self, message: bytes, before: Callable[[Any], Any] | None = None) -> None:
        self._message, self._before = message, before
        self.at_once: bool | None = None
        self.written = 0

    async def call(self, stream: Any) -> None:
        await stream.recv_message()
        if self._before is not None:
            await self._before(stream)
        transport = stream._stream._transport
        before = len(transport.written)
        self.at_once = answer_at_once(stream, self._message)
        self.written = len(transport.written) - before
        if not self.at_once:
            await stream.send_message(self._message)

    def __mapping__(self) -> dict[str, Handler]:
        return {METHOD: Handler(self.call, Cardinality.UNARY_UNARY, bytes, _AsItIs)}


class _AsItIs:
    """So that the codec takes the bytes as the message."""


class Writes(Client):
    """A client that knows in how many writes it was answered."""

    def __init__(self, service: Answering) -> None:
        super().__init__(SoundServer([service]))
        self.writes: list[bytes] = []
        write = self.transport.write

        def count(data: bytes) -> None:
            self.writes.append(data)
            write(data)

        self.transport.write = count  # type: ignore[method-assign]

    async def call(self) -> list[Event]:
        """What comes back."""
        stream = self.begin(ASK)
        self.h2.end_stream(stream)
        self.server.data_received(self.h2.data_to_send())
        self.writes.clear()
        await until_idle()
        events = self.h2.receive_data(self.transport.written)
        self.transport.written = b""
        return events


def heard(events: list[Event]) -> list[Any]:
    """What a client makes of it."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, ResponseReceived | TrailersReceived):
            found.append([(bytes(name), bytes(value)) for name, value in event.headers])
        elif isinstance(event, DataReceived):
            found.append(event.data)
        elif isinstance(event, StreamEnded):
            found.append("end")
    return found


def answer_with(message: bytes) -> list[Any]:
    headers = [(b":status", b"200"), (b"content-type", b"application/grpc+proto")]
    return [
        headers,
        b"\0" + len(message).to_bytes(4, "big") + message,
        [(b"grpc-status", b"0")],
        "end",
    ]


@pytest.mark.parametrize("message", [b"", b"an answer", bytes(2**13)])
async def test_it_is_one_write_and_says_what_grpclib_says_in_three(message: bytes) -> None:
    service = Answering(message)
    client = Writes(service)
    assert heard(await client.call()) == answer_with(message)
    assert (service.at_once, len(client.writes)) == (True, 1)
    service = Answering(message, lambda stream: stream.send_initial_metadata())
    client = Writes(service)
    assert heard(await client.call()) == answer_with(message)
    assert (service.at_once, len(client.writes)) == (False, 3)


async def test_what_the_client_has_no_room_for_does_not_go_at_once() -> None:
    """Nothing of it: there is no half of an answer."""
    service = Answering(bytes(1000))
    client = Writes(service)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1004})
    client.exchange()
    await client.call()
    assert (service.at_once, service.written) == (False, 0)


async def test_nothing_goes_at_once_where_much_waits_to_be_written() -> None:
    async def pause(stream: Any) -> None:
        stream._stream.connection.pause_writing()
        asyncio.get_running_loop().call_soon(stream._stream.connection.resume_writing)

    service = Answering(b"late", pause)
    assert heard(await Writes(service).call()) == answer_with(b"late")
    assert (service.at_once, service.written) == (False, 0)


async def test_a_call_that_has_ended_is_not_answered_again() -> None:
    async def reset(stream: Any) -> None:
        await stream.cancel()

    service = Answering(b"nobody hears it", reset)
    await Writes(service).call()
    assert (service.at_once, service.written) == (False, 0)
