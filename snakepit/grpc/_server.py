"""grpclib's server, with what it lacks mended. It uses private names of grpclib, which is pinned.

- A call that is reset before its handler has begun never gives back what it took of the
  connection's window (grpclib #217): enough of those, and the connection hangs for good. Here each
  stream is released exactly once, at the latest when its task has ended.
- 100 calls at once are all that HTTP/2 allows by default: 100 that hang would block a ping.
- `close` cuts calls off (grpclib #148): `drain` lets them finish first.
- Some calls that are wrong from the first get no answer at all, others an exception in the log.
"""

from __future__ import annotations

import asyncio
from asyncio import BaseTransport, Transport
from collections.abc import Callable, Collection
from typing import Any, Final, cast

from grpclib import GRPCError
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.protocol import H2Protocol, Stream
from grpclib.server import Handler, Server
from h2.settings import SettingCodes

from snakepit.grpc._bulk import PIECE_BYTES, Data, read_in_pieces
from snakepit.grpc._codec import Codec
from snakepit.grpc._limits import CONNECT, FRAMES_BYTES_MAX, STREAMS_MAX, configuration
from snakepit.grpc._protocol import WideProtocol
from snakepit.grpc._pulse import until_silent
from snakepit.grpc._refusals import refusal, refuse

CLOSE_TICK_S: Final = 0.002
FAREWELL_S: Final = 0.3
CONNECT_BYTES_MAX: Final = FRAMES_BYTES_MAX + 64  # with what stands before the data


class SoundHandler(Handler):
    """The calls of one connection."""

    message_bytes_max: int | None = None

    def accept(self, stream: Stream, headers: Any, release_stream: Callable[[], Any]) -> None:
        """Begin a call whose stream is released once, whatever becomes of it."""
        said = dict(headers)
        if self.message_bytes_max is not None:
            is_connect = said.get(":path") == CONNECT
            if is_connect:
                bound(stream, CONNECT_BYTES_MAX)
            else:
                bound(stream, self.message_bytes_max, in_pieces=True)
        released = False

        def release_once() -> None:
            nonlocal released
            if not released:
                released = True
                release_stream()

        if (refused := refusal(said)) is None:
            super().accept(stream, headers, release_once)
        else:
            self._tasks[stream] = self.loop.create_task(refuse(stream, release_once, *refused))

        def ended(task: asyncio.Task[None]) -> None:
            # grpclib forgets every ten calls: one that failed keeps its request and reply until then.
            self._tasks.pop(stream, None)
            self._cancelled.discard(task)
            release_once()

        self._tasks[stream].add_done_callback(ended)

    def close(self) -> None:
        """The connection is lost: end all calls, also those that the client has reset.

        grpclib has them wait until more can be written, to tell the client how they have ended.
        """
        before = list(self._cancelled)
        super().close()
        for task in before:
            task.cancel()

    @property
    def running(self) -> list[asyncio.Task[None]]:
        """The calls that have not ended."""
        return [task for task in (*self._tasks.values(), *self._cancelled) if not task.done()]


def bound(stream: Stream, message_bytes_max: int, *, in_pieces: bool = False) -> None:
    """Have the call fail with RESOURCE_EXHAUSTED when a larger message begins, before it comes.

    `in_pieces`: read what is large so, as a bytearray; once that has begun the call is not asked again.
    """
    read = stream.recv_data

    async def recv_data(size: int) -> Data:
        if size > message_bytes_max:
            reason = f"a message of {size} bytes is over the maximum of {message_bytes_max}"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, reason)
        if in_pieces and size > PIECE_BYTES:
            return await read_in_pieces(read, size)
        return await read(size)

    stream.recv_data = recv_data  # type: ignore[method-assign, assignment]


def _has_unsent(transport: Transport) -> bool:
    """Is there something that is not in the kernel yet, below TLS too?"""
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return any(one.get_write_buffer_size() for one in (transport, below) if one is not None)


class SoundProtocol(WideProtocol):
    """One connection, which its server knows while it is open."""

    settings = WideProtocol.settings | {SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX}

    def __init__(self, server: SoundServer, lost: Callable[[], object], *args: Any) -> None:
        super().__init__(*args)
        self._server, self._lost = server, lost
        self._pulse: asyncio.Task[None] | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._server.connections[self] = cast("Transport", transport)
        if self._server.pings:
            self._pulse = asyncio.get_running_loop().create_task(self._end_if_silent())

    async def _end_if_silent(self) -> None:
        await until_silent(self.connection, None)
        self._server.connections[self].abort()  # to close would be to wait until it reads

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the calls of this connection."""
        self._server.connections.pop(self, None)
        if self._pulse is not None:
            self._pulse.cancel()
        super().connection_lost(exc)
        self._lost()


class SoundServer(Server):
    """Serves with our codec and windows.

    `connections`: those that are open. `first_lost` is called when the first of all has ended.
    `pings`: end a connection whose client is silent, and its calls with it. `message_bytes_max`: of
    what clients may say in one piece, but for `Connect`, which has a maximum of its own; None: there
    is no maximum.
    """

    def __init__(
        self,
        handlers: Collection[Any],
        first_lost: Callable[[], object] = lambda: None,
        config: Configuration | None = None,
        *,
        pings: bool = False,
        message_bytes_max: int | None = None,
    ) -> None:
        super().__init__(handlers, codec=Codec(), config=config or configuration())
        self.pings: bool = pings
        self._message_bytes_max = message_bytes_max
        self.connections: dict[H2Protocol, Transport] = {}
        self._first_lost = first_lost

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = SoundHandler(
            self._mapping, self._codec, self._status_details_codec, self.__dispatch__
        )
        handler.message_bytes_max = self._message_bytes_max
        self._handlers.add(handler)
        lost, self._first_lost = self._first_lost, lambda: None
        return SoundProtocol(self, lost, handler, self._config, self._h2_config)

    async def drain(self, grace_s: float) -> None:
        """Take no more connections, let the calls that run finish, for so long; then close all."""
        assert self._server is not None
        self._server.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while (left := end - loop.time()) > 0 and (running := self._running()):
            await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        self.close()
        await self._until_closed(end)

    async def _until_closed(self, end: float) -> None:
        """Close all connections, each once what has been written there is in the kernel."""
        clock = asyncio.get_running_loop().time
        for transport in self.connections.values():
            transport.close()
        last_unsent = dict.fromkeys(self.connections.values(), clock())
        while self.connections:
            now = clock()
            for transport in self.connections.values():
                if _has_unsent(transport):
                    last_unsent[transport] = now
                # Of TLS the other end has to close its side too, and many never do.
                if now > min(end, last_unsent.get(transport, now) + FAREWELL_S):
                    transport.abort()
            await asyncio.sleep(CLOSE_TICK_S)

    def fds(self) -> list[int]:
        """The descriptors of the connections, which a forked child must not keep."""
        transports = self.connections.values()
        return [transport.get_extra_info("socket").fileno() for transport in transports]

    def _running(self) -> list[asyncio.Task[None]]:
        return [
            task
            for handler in self._handlers
            if isinstance(handler, SoundHandler)
            for task in handler.running
        ]
