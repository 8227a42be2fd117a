"""What grpclib's server lacks, each fault shown on the one and mended on the other."""

from __future__ import annotations

import asyncio
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.settings
import pytest
from _backends import asyncio_only
from _h2_client import METHOD, Client, Held, until_idle
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from snakepit.grpc import CONNECT, FRAMES_BYTES_MAX, Codec, SoundServer, _pulse
from snakepit.grpc._limits import HTTP2_FRAME_BYTES_MAX

pytestmark = [pytest.mark.anyio]

SMALL = Configuration(http2_connection_window_size=2**17, http2_stream_window_size=2**16)


@asyncio_only
@pytest.mark.parametrize("kind", ["grpclib", "sound"])
async def test_a_call_reset_before_it_began_gives_its_window_back(kind: str) -> None:
    """Four times the connection's window goes by in calls that were reset at once (grpclib #217)."""
    service = Held()
    server = {
        "grpclib": lambda: Server([service], codec=Codec(), config=SMALL),
        "sound": lambda: SoundServer([service], config=SMALL),
    }[kind]()
    client = Client(server)
    went = 0
    for _ in range(16):
        if client.h2.outbound_flow_control_window < 2**15:
            break
        stream = client.begin(bytes(2**15))
        client.h2.reset_stream(stream)
        client.exchange()  # headers, data and reset come in one read
        await until_idle()
        client.exchange()
        if client.transport.written:
            client.h2.receive_data(client.transport.written)
            client.transport.written = b""
        went += 2**15
    assert not service.begun.is_set()
    if kind == "sound":
        assert went == 4 * 2**17
    else:
        assert went <= 2**17, "grpclib has mended it: SoundHandler can go"


@asyncio_only
async def test_a_connection_lets_a_thousand_calls_hang_and_one_more_go_on() -> None:
    client = Client(SoundServer([Held()]))
    code = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
    assert client.h2.remote_settings[code] == 1000
    assert Client(Server([Held()], codec=Codec())).h2.remote_settings[code] == 100


@asyncio_only
async def test_a_large_frame_may_come_right_behind_the_consent_to_it() -> None:
    """h2 allows it only from the next read on; here the first read of all has both."""
    client = Client(SoundServer([Held()]), exchanged=False)
    client.h2.receive_data(client.transport.written)
    stream = client.begin(b"")
    assert client.h2.max_outbound_frame_size == HTTP2_FRAME_BYTES_MAX
    client.h2.send_data(stream, bytes(HTTP2_FRAME_BYTES_MAX))
    client.server.data_received(client.h2.data_to_send())
    assert client.server.processor.streams[stream].data_received == HTTP2_FRAME_BYTES_MAX
    client.h2.reset_stream(stream)
    client.exchange()
    await until_idle()


PRIORITY_UPDATE = bytes((0, 0, 4, 0x10)) + bytes(5) + bytes(4)  # RFC 9218, which h2 does not know


@asyncio_only
@pytest.mark.parametrize("kind", ["grpclib", "sound"])
async def test_a_frame_of_an_unknown_kind_is_ignored(kind: str) -> None:
    """As HTTP/2 has it."""
    server: Server = {"grpclib": Server, "sound": SoundServer}[kind]([Held()])
    client = Client(server)
    fault = nullcontext() if kind == "sound" else pytest.raises(NotImplementedError)
    with fault:  # at which asyncio ends the connection
        client.server.data_received(PRIORITY_UPDATE)


@asyncio_only
async def test_a_frame_over_the_maximum_ends_the_connection() -> None:
    client = Client(SoundServer([Held()]))
    size = HTTP2_FRAME_BYTES_MAX + 1
    head = size.to_bytes(3, "big") + b"\0\0" + (1).to_bytes(4, "big")
    client.server.data_received(head + bytes(size))
    assert client.transport.is_closing()


class Receives:
    """Two methods that wait for a message."""

    async def call(self, stream: Any) -> None:
        await stream.recv_message()

    def __mapping__(self) -> dict[str, Handler]:
        handler = Handler(self.call, Cardinality.UNARY_UNARY, bytes, bytes)
        return {METHOD: handler, CONNECT: handler}


@asyncio_only
@pytest.mark.parametrize(
    ("path", "size", "is_refused"),
    [
        (METHOD, 10, False),
        (METHOD, 11, True),
        (CONNECT, FRAMES_BYTES_MAX + 5, False),
        (CONNECT, FRAMES_BYTES_MAX * 2, True),
    ],
)
async def test_a_message_over_the_maximum_is_refused_when_it_begins(
    path: str, size: int, is_refused: bool
) -> None:
    """That of `Connect` is its own, and none of a tool's request."""
    client = Client(SoundServer([Receives()], message_bytes_max=10))
    stream = client.begin(b"\0" + size.to_bytes(4, "big"), path)
    client.exchange()
    await until_idle()
    assert (client.server.handler.running == []) is is_refused
    client.h2.reset_stream(stream)
    client.exchange()
    await until_idle()


@asyncio_only
async def test_a_call_that_nobody_reads_does_not_use_up_the_window_of_the_others() -> None:
    """grpclib's windows are equal by default: one full stream is a full connection."""
    for server, left in ((SoundServer([Held()]), True), (Server([Held()], codec=Codec()), False)):
        client = Client(server)
        one = client.h2.get_next_available_stream_id()
        stream = client.begin(b"")
        assert stream == one
        while size := min(2**14, client.h2.local_flow_control_window(stream)):
            client.h2.send_data(stream, bytes(size))
        client.exchange()
        await until_idle()
        other = client.begin(b"")
        assert (client.h2.local_flow_control_window(other) > 0) is left
        client.h2.reset_stream(stream)
        client.h2.reset_stream(other)
        client.exchange()
        await until_idle()


@asyncio_only
async def test_a_server_that_drains_lets_its_calls_finish_and_takes_no_more(tmp_path: Path) -> None:
    service = Held()
    server = SoundServer([service])
    path = str(tmp_path / "socket")
    await server.start(path=path)
    async with Channel(path=path, codec=Codec()) as channel:
        async with channel.request(METHOD, Cardinality.UNARY_UNARY, bytes, bytes) as call:
            await call.send_message(b"before", end=True)
            await service.begun.wait()
            draining = asyncio.create_task(server.drain(10))
            await until_idle()
            with socket.socket(socket.AF_UNIX) as late, pytest.raises(OSError):
                late.connect(path)
            assert not draining.done()
            service.may_end.set()
            assert await call.recv_message() == b"before"
        await draining
        assert server.connections == {}


@asyncio_only
async def test_a_server_that_drains_ends_what_takes_too_long(tmp_path: Path) -> None:
    service = Held()
    server = SoundServer([service])
    path = str(tmp_path / "socket")
    await server.start(path=path)
    async with Channel(path=path, codec=Codec()) as channel:
        async with channel.request(METHOD, Cardinality.UNARY_UNARY, bytes, bytes) as call:
            await call.send_message(b"for ever", end=True)
            await service.begun.wait()
            await server.drain(0.01)
            with pytest.raises(Exception):  # noqa: B017 - whatever a cut connection says
                await call.recv_message()
        assert server.connections == {}


class EndlessStream(Held):
    """One method, which yields as long as the client takes it; `ended` when it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    async def call(self, stream: Any) -> None:
        try:
            await stream.recv_message()
            while True:
                await stream.send_message(bytes(2**16))
        finally:
            self.ended.set()

    def __mapping__(self) -> dict[str, Handler]:
        return {METHOD: Handler(self.call, Cardinality.UNARY_STREAM, bytes, bytes)}


@asyncio_only
async def test_a_client_that_freezes_while_it_is_written_to_is_cut_off_and_its_call_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What lies in the kernel, unread, does not keep the connection."""
    passed = asyncio.Semaphore(0)
    monkeypatch.setattr(_pulse, "_pause", passed.acquire)
    service, path = EndlessStream(), str(tmp_path / "socket")
    server = SoundServer([service], pings=True)
    await server.start(path=path)
    async with asyncio.timeout(20):
        with socket.socket(socket.AF_UNIX) as frozen:
            frozen.connect(path)
            frozen.sendall(endless_request())
            while not any(map(is_stuck, server.connections.values())):
                await asyncio.sleep(0.001)
            for _ in range(_pulse.MISSED_MAX):
                assert not service.ended.is_set()
                passed.release()
                await until_idle()
            await service.ended.wait()
    await server.drain(1)


def is_stuck(transport: asyncio.Transport) -> bool:
    return transport.get_write_buffer_size() > 0


def endless_request() -> bytes:
    """A client's side of a call that has all the windows that there are, and is never read."""
    client = Client(SoundServer([Held()]), exchanged=False)
    client.h2.clear_outbound_data_buffer()
    client.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.h2.initiate_connection()
    client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
    client.h2.increment_flow_control_window(2**30)
    stream = client.begin(bytes(5))
    client.h2.end_stream(stream)
    return client.h2.data_to_send()


@asyncio_only
async def test_a_call_that_was_reset_by_a_client_that_does_not_read_ends_with_the_connection() -> (
    None
):
    """grpclib has it wait for ever to tell the client how it has ended."""
    for server, left in ((SoundServer([Held()]), 0), (Server([Held()], codec=Codec()), 1)):
        client = Client(server)
        stream = client.begin(b"")
        client.exchange()
        await until_idle()
        client.server.pause_writing()
        client.h2.reset_stream(stream)
        client.exchange()
        await until_idle()
        client.server.connection_lost(None)
        await until_idle()
        waiting = [task for task in asyncio.all_tasks() if "request_handler" in repr(task)]
        assert len(waiting) == left
        for task in waiting:
            task.cancel()
        await until_idle()
