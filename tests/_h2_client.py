"""HTTP/2 without sockets: a client of a server of grpclib's, and a service to call."""

from __future__ import annotations

import asyncio
from typing import Any

import h2.config
import h2.connection
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

METHOD = "/test.Test/Call"


class Held:
    """One method, whose calls reply once they may."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def call(self, stream: Any) -> None:
        self.begun.set()
        await self.may_end.wait()
        await stream.send_message(await stream.recv_message())

    def __mapping__(self) -> dict[str, Handler]:
        return {METHOD: Handler(self.call, Cardinality.UNARY_UNARY, bytes, bytes)}


class Memory(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Client:
    """An HTTP/2 client of this server, without a socket: nothing happens but what is said here."""

    def __init__(self, server: Server, *, exchanged: bool = True) -> None:
        self.transport, self.server = Memory(), server._protocol_factory()
        self.server.connection_made(self.transport)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        if exchanged:
            self.exchange()

    def exchange(self) -> None:
        """All that was said, in one piece each way, until nobody has more to say."""
        while data := self.h2.data_to_send():
            self.server.data_received(data)
            if self.transport.written:
                self.h2.receive_data(self.transport.written)
                self.transport.written = b""

    def begin(self, data: bytes, path: str = METHOD) -> int:
        stream = self.h2.get_next_available_stream_id()
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        self.h2.send_headers(stream, list(headers.items()))
        for start in range(0, len(data), 2**14):
            self.h2.send_data(stream, data[start : start + 2**14])
        return stream


async def until_idle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
