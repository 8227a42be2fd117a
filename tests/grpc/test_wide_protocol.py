"""What other implementations of HTTP/2 may say, and grpclib or h2 cannot take."""

from __future__ import annotations

import asyncio

import pytest
from _backends import asyncio_only
from _h2_client import METHOD, Client, Held, until_idle
from hyperframe.frame import DataFrame, Frame, GoAwayFrame

from snakepit.grpc import SoundServer, frames_with
from snakepit.grpc._limits import HTTP2_FRAME_BYTES_MAX
from snakepit.grpc._protocol import WideFrameBuffer

pytestmark = [pytest.mark.anyio]

MESSAGE = frames_with(b"hello")
REQUEST = bytes(4) + bytes((len(MESSAGE),)) + MESSAGE
NO_MORE, REFUSED = 0, 7  # codes of GOAWAY


def goaway(code: int, last_stream: int = 0) -> bytes:
    return bytes(GoAwayFrame(0, error_code=code, last_stream_id=last_stream).serialize())


async def answer(client: Client, service: Held) -> bytes:
    """What the client gets for its call."""
    await until_idle()
    assert service.begun.is_set()
    service.may_end.set()
    await until_idle()
    written, client.transport.written = client.transport.written, b""
    return written


@asyncio_only
@pytest.mark.parametrize(("code", "is_served"), [(NO_MORE, True), (REFUSED, False)])
async def test_a_client_that_begins_no_more_calls_is_served_those_it_has(
    code: int, is_served: bool
) -> None:
    """Node's close, Envoy's drain. To h2 each GOAWAY is the end of all."""
    service = Held()
    client = Client(SoundServer([service]))
    client.begin(REQUEST)
    client.exchange()
    await until_idle()
    client.server.data_received(goaway(code))
    assert client.transport.is_closing() is not is_served
    assert (MESSAGE in await answer(client, service)) is is_served


@asyncio_only
async def test_an_empty_piece_is_not_the_end_of_a_message() -> None:
    service = Held()
    client = Client(SoundServer([service]))
    stream = client.begin(b"")
    for piece in (b"", REQUEST[:7], b"", REQUEST[7:]):
        client.h2.send_data(stream, piece)
    client.h2.end_stream(stream)
    client.exchange()
    assert MESSAGE in await answer(client, service)


@asyncio_only
async def test_a_header_that_is_not_ascii_does_not_end_the_connection_of_others() -> None:
    service = Held()
    client = Client(SoundServer([service]))
    client.begin(REQUEST)
    client.begin(REQUEST, path=f"{METHOD}-é")
    client.exchange()
    assert not client.transport.is_closing()
    assert MESSAGE in await answer(client, service)


@asyncio_only
async def test_what_is_no_http2_is_known_by_its_first_bytes() -> None:
    """They would be the size of a frame that never comes whole."""
    server = SoundServer([Held()])
    client = Client(server)
    client.server.data_received(b"HTTP/1.1 400 Bad Request\r\n")
    assert client.transport.is_closing()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("said", "comes"),
    [
        (goaway(NO_MORE, last_stream=1), []),
        (goaway(NO_MORE, last_stream=2**31 - 1), []),
        (goaway(NO_MORE, last_stream=0), [GoAwayFrame]),  # our call was not taken
        (goaway(REFUSED, last_stream=1), [GoAwayFrame]),
        (DataFrame(1).serialize(), []),
        (DataFrame(1, flags=["END_STREAM"]).serialize(), [DataFrame]),
        (DataFrame(1, flags=["PADDED"], pad_length=3).serialize(), [DataFrame]),
    ],
)
def test_what_a_server_says_is_passed_over_where_nothing_follows_from_it(
    said: bytes, comes: list[type[Frame]]
) -> None:
    buffer = WideFrameBuffer(server=False)
    buffer.max_frame_size = HTTP2_FRAME_BYTES_MAX
    buffer.add_data(said + DataFrame(1, data=b"more").serialize())
    assert [type(frame) for frame in buffer] == [*comes, DataFrame]
