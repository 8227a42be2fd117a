"""Large messages go in pieces, and others have their turn between two of them."""

from __future__ import annotations

import asyncio
import gc
from itertools import pairwise
from typing import Any
from weakref import ref

import pytest
from _backends import asyncio_only
from _h2_client import Client, Held, until_idle
from grpclib.const import Cardinality, Handler
from grpclib.server import Server
from h2.events import DataReceived
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from snakepit.grpc import Codec, SoundServer, _bulk, send_in_pieces
from snakepit.grpc._bulk import PIECE_BYTES, in_pieces, read_in_pieces
from snakepit.grpc._generated.grpc.health.v1 import HealthCheckRequest

WINDOW_BYTES = 2**30
LARGE_BYTES = 20 * PIECE_BYTES + 7
HEALTH = "/test.Test/Check"
BULK = "/test.Test/Bulk"


@given(st.lists(st.binary(max_size=30), max_size=12))
def test_pieces_are_the_same_bytes_and_none_is_large(parts: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bulk, "PIECE_BYTES", 10)
        pieces = list(in_pieces(parts))
    whole = b"".join(parts)
    assert b"".join(pieces) == whole
    assert all(len(piece) == 10 for piece in pieces[:-1])
    assert all(0 < len(piece) <= 10 for piece in pieces) or not whole


class Service:
    """One call that is answered at once, one with much, one that is sent much."""

    def __init__(self) -> None:
        self.received: Any = None
        self.turns = asyncio.Lock()

    async def check(self, call: Any) -> None:
        await call.recv_message()
        await call.send_message(b"well")

    async def bulk(self, call: Any) -> None:
        self.received = await call._stream.recv_data(5)
        self.received = await call._stream.recv_data(int.from_bytes(self.received[1:], "big"))
        data = bytearray(LARGE_BYTES)
        await send_in_pieces(call, (b"head", data), 4 + LARGE_BYTES, self.turns)

    def __mapping__(self) -> dict[str, Handler]:
        unary = Cardinality.UNARY_UNARY
        return {
            HEALTH: Handler(self.check, unary, bytes, bytes),
            BULK: Handler(self.bulk, unary, bytes, bytes),
        }


def client_of(service: Service) -> Client:
    """A client with room for anything."""
    client = Client(SoundServer([service], message_bytes_max=WINDOW_BYTES))
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES})
    client.h2.increment_flow_control_window(WINDOW_BYTES)
    client.exchange()
    return client


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


async def until_answered(client: Client, calls: int) -> list[tuple[int, bytes]]:
    """What came: on which stream, and the data."""
    came: list[tuple[int, bytes]] = []
    ended: set[int] = set()
    while len(ended) < calls:
        await asyncio.sleep(0)
        client.server.data_received(client.h2.data_to_send())
        written, client.transport.written = client.transport.written, b""
        for event in client.h2.receive_data(written):
            if isinstance(event, DataReceived):
                came.append((event.stream_id, event.data))
            if type(event).__name__ == "StreamEnded":
                assert event.stream_id is not None
                ended.add(event.stream_id)
    return came


@asyncio_only
async def test_a_call_is_answered_amid_a_large_reply_to_another_on_the_same_connection() -> None:
    client = client_of(Service())
    bulk = client.begin(message(b""), BULK)
    client.h2.end_stream(bulk)
    client.exchange()
    await asyncio.sleep(0)
    check = client.begin(message(b""), HEALTH)
    client.h2.end_stream(check)
    came = await until_answered(client, 2)
    streams = [stream for stream, _ in came]
    assert streams.index(check) < len(streams) / 2
    data = b"".join(data for stream, data in came if stream == bulk)
    assert data == message(b"head" + bytes(LARGE_BYTES))
    client.server.connection_lost(None)


class Counts:
    """A call on which pieces are sent, by tasks of which each notes the turns of the loop."""

    _send_initial_metadata_done = True
    connection: Any

    def __init__(self, sent: list[int], turn: list[int]) -> None:
        self._stream, self._sent, self._turn = self, sent, turn
        self.connection = self

    def is_closing(self) -> bool:
        return False

    async def send_data(self, _: bytes) -> None:  # noqa: ASYNC910 - as grpclib's does not either
        self._sent.append(self._turn[0])


@asyncio_only
async def test_many_large_replies_are_sent_one_piece_a_turn_of_the_loop() -> None:
    sent, turn, lock = list[int](), [0], asyncio.Lock()

    async def count() -> None:
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    calls: list[Any] = [Counts(sent, turn) for _ in range(8)]
    await asyncio.gather(
        *(send_in_pieces(call, (bytes(LARGE_BYTES),), LARGE_BYTES, lock) for call in calls)
    )
    counting.cancel()
    assert len(sent) == 8 * 21
    assert len(set(sent)) == len(sent)


class Gives:
    """A stream that has all of `data` already; who reads never waits."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.asked: list[int] = []

    async def read(self, size: int) -> bytes:  # noqa: ASYNC910 - as grpclib's does not either
        self.asked.append(size)
        piece, self._data = self._data[:size], self._data[size:]
        return bytes(piece)


@asyncio_only
async def test_a_large_message_is_read_in_pieces_between_which_others_run() -> None:
    data = (bytes(range(251)) * (LARGE_BYTES // 251 + 1))[:LARGE_BYTES]
    gives, turns = Gives(data), list[int]()

    async def count() -> None:
        while True:
            turns.append(len(gives.asked))
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await asyncio.sleep(0)
    read = await read_in_pieces(gives.read, LARGE_BYTES)
    counting.cancel()
    assert read == data
    assert gives.asked == [PIECE_BYTES] * 20 + [7]
    assert all(after - before <= 1 for before, after in pairwise(turns))


@asyncio_only
async def test_a_large_message_that_is_cut_short_is_what_has_come_of_it() -> None:
    assert await read_in_pieces(Gives(bytes(PIECE_BYTES + 3)).read, LARGE_BYTES) == bytes(
        PIECE_BYTES + 3
    )


@asyncio_only
async def test_a_server_with_a_maximum_reads_large_messages_in_pieces() -> None:
    service = Service()
    client = client_of(service)
    sent = HealthCheckRequest.__name__.encode() * 10_000
    stream = client.begin(message(sent), BULK)
    client.h2.end_stream(stream)
    client.server.data_received(client.h2.data_to_send())
    await until_answered(client, 1)
    await until_idle()
    assert type(service.received) is bytearray
    assert service.received == sent
    client.server.connection_lost(None)


class Bulk:
    """Something large."""


@asyncio_only
@pytest.mark.parametrize("kind", ["grpclib", "sound"])
async def test_a_call_that_lost_its_connection_keeps_nothing_alive(kind: str) -> None:
    made: list[ref[Bulk]] = []

    class Keeps(Held):
        async def call(self, stream: Any) -> None:
            bulk = Bulk()
            made.append(ref(bulk))
            await super().call(stream)

    client = Client(SoundServer([Keeps()]) if kind == "sound" else Server([Keeps()], codec=Codec()))
    client.begin(message(b""))
    client.exchange()
    await until_idle()
    client.server.connection_lost(None)
    await until_idle()
    gc.collect()
    if kind == "sound":
        assert made[0]() is None
    else:
        assert made[0]() is not None, "grpclib has mended it: SoundHandler need not forget"
