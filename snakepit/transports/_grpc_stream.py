"""A `Connect` call as a stream of bytes: what the host reads and writes, and who carries it.

The host's side never blocks and never waits for grpclib: it takes from and adds to a bounded pile,
and wakes the other side if that has not been woken yet. `carry` runs on grpclib's loop, which under
trio is another thread's: each attribute is written by one side alone.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable
from typing import Final, TypeAlias

import anyio
import anyio.lowlevel
from grpclib.client import Channel as GrpcChannel
from grpclib.client import Handler
from grpclib.client import Stream as GrpcCall
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from snakepit._loops import Signal, this_loop
from snakepit._trace_context import current_trace, headers_of
from snakepit.errors import ProtocolError
from snakepit.grpc import (
    CONNECT,
    FRAMES_BYTES_MAX,
    PID_KEY,
    TOKEN_KEY,
    Codec,
    Incoming,
    WideProtocol,
    configuration,
    end_tasks,
    silence,
    until_silent,
)
from snakepit.process import fork_generation, unguard_fds
from snakepit.protocol import Buffer
from snakepit.transports._byte_channel import ByteStream
from snakepit.transports._grpc_home import Home

PILE_BYTES_MAX: Final = FRAMES_BYTES_MAX // 4  # in each direction
CLOSE_S: Final = 0.5  # for a worker that does not read to take the last words
Call: TypeAlias = GrpcCall[bytes, bytes]


class OwnSocketChannel(GrpcChannel):
    """A connection over a socket of ours."""

    def __init__(self, connected: socket.socket | None) -> None:
        super().__init__(path="", codec=Codec(), config=configuration())
        self._socket = connected
        self._guarded = -1 if connected is None else connected.fileno()
        self._transport: asyncio.Transport | None = None

    def _protocol_factory(self) -> H2Protocol:
        return WideProtocol(Handler(), self._config, self._h2_config)

    async def _create_connection(self) -> H2Protocol:
        self._transport, protocol = await self._loop.create_connection(
            self._protocol_factory, sock=self._socket
        )
        return protocol

    async def end(self) -> None:
        """Close the socket, in a moment: what has been said is in the kernel, or reaches nobody."""
        self.close()
        if self._socket is None:
            return
        unguard_fds(self._guarded)  # by its number: the socket may be closed by now
        if self._transport is None:
            self._socket.close()
            return
        end = self._loop.time() + CLOSE_S
        while self._socket.fileno() >= 0:  # asyncio closes it, and tells nobody
            if self._loop.time() > end:
                self._transport.abort()
            await asyncio.sleep(0)


class GrpcStream(ByteStream):
    """The host's end. Somebody has to run `carry`."""

    is_direct = False  # grpclib reads, in a task of this loop or in another thread

    def __init__(self, home: Home, connected: socket.socket | None, token: str) -> None:
        self._home = home
        self._socket = connected
        # Its task is the pool's: this is the trace of whoever has opened that.
        self._metadata = {TOKEN_KEY: token, **headers_of(current_trace())}
        self.failure: Exception | None = None  # what the call has failed with
        self._generation = fork_generation()
        self._loop = this_loop()
        self._closed = False
        # From grpclib to the host.
        self._incoming: deque[bytes | memoryview] = deque()
        self._came_bytes = 0  # written by grpclib's side
        self._taken_bytes = 0  # by the host's
        self._ended = False
        self._is_silent = False
        self._host_is_woken = False
        self._readable: Signal | None = None
        self._writable: Signal | None = None
        self._woken = False
        # From the host to grpclib.
        self._outgoing: deque[bytes] = deque()
        self._given_bytes = 0  # by the host's
        self._sent_bytes = 0  # by grpclib's
        self._grpc_is_woken = False
        self._begun = False
        self._wants_room = False  # by grpclib's
        self._more = asyncio.Event()
        self._room = asyncio.Event()

    # -- the host's side -----------------------------------------------------------------------

    def read(self, count_max: int) -> bytes:
        ended = self._ended  # looked at first: what comes after it is nothing
        if not self._incoming:
            if self._is_silent:
                raise ProtocolError(silence())
            if ended:
                return b""
            raise BlockingIOError
        chunk = self._next_incoming(count_max)
        self._taken_bytes += len(chunk)
        if self._wants_room and self._unread_bytes < PILE_BYTES_MAX:
            self._home.to_grpc(self._room.set)
        return chunk

    def _next_incoming(self, count_max: int) -> bytes:
        first = self._incoming.popleft()
        if len(first) > count_max:
            rest = memoryview(first)
            self._incoming.appendleft(rest[count_max:])
            return bytes(rest[:count_max])
        if not self._incoming:
            return bytes(first)
        pieces, size = [first], len(first)
        while self._incoming and size + len(self._incoming[0]) <= count_max:
            pieces.append(self._incoming.popleft())
            size += len(pieces[-1])
        return b"".join(pieces)

    @property
    def _unread_bytes(self) -> int:
        return self._came_bytes - self._taken_bytes

    @property
    def _unsent_bytes(self) -> int:
        return self._given_bytes - self._sent_bytes

    def write(self, data: Buffer) -> int:
        if self._ended or self._closed or self._generation != fork_generation():
            raise BrokenPipeError("the worker is gone, or was never this process's")
        room = PILE_BYTES_MAX - self._unsent_bytes
        if room <= 0:
            raise BlockingIOError
        piece = bytes(data) if len(data) <= room else bytes(memoryview(data)[:room])
        self._outgoing.append(piece)
        self._given_bytes += len(piece)
        self._wake_grpc()
        return len(piece)

    def _has_news(self) -> bool:
        return bool(self._incoming) or self._ended

    def _wake_grpc(self) -> None:
        if not self._grpc_is_woken:
            self._grpc_is_woken = True
            self._home.to_grpc(self._more.set)

    def until_readable(self) -> Awaitable[None]:
        return self._until_readable()

    async def _until_readable(self) -> None:
        if self._has_news():
            await anyio.lowlevel.checkpoint()
            return
        if self._generation != fork_generation():
            await anyio.lowlevel.checkpoint()
            raise anyio.BrokenResourceError
        self._woken = self._closed
        self._readable = self._loop.new_signal()
        try:
            while not (self._has_news() or self._woken):
                await self._readable.wait()
                self._readable = self._loop.new_signal()
        finally:
            self._readable = None
        if self._woken:
            await anyio.lowlevel.checkpoint()
            raise anyio.ClosedResourceError

    async def until_writable(self) -> None:
        self._writable = self._loop.new_signal()
        try:
            await anyio.lowlevel.checkpoint()
            while self._unsent_bytes >= PILE_BYTES_MAX and not (self._ended or self._closed):
                await self._writable.wait()
                self._writable = self._loop.new_signal()
        finally:
            self._writable = None
        if self._closed:
            raise anyio.ClosedResourceError

    def wake_reader(self) -> None:
        self._woken = True
        if self._readable is not None:
            self._readable.set()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._generation != fork_generation():
            return
        self.wake_reader()
        self._on_wake()
        self._home.to_grpc(self._end)

    def _on_wake(self) -> None:
        """Something has changed on grpclib's side."""
        self._host_is_woken = False
        for signal in (self._readable, self._writable):
            if signal is not None:
                signal.set()

    # -- grpclib's side ------------------------------------------------------------------------

    def _end(self) -> None:
        self._more.set()
        if not self._begun and not self._outgoing:  # it may never begin
            self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None and self._socket.fileno() >= 0:
            unguard_fds(self._socket.fileno())
            self._socket.close()

    def _open_channel(self) -> OwnSocketChannel | None:
        """None: it has been closed already."""
        assert self._socket is not None
        return OwnSocketChannel(self._socket) if self._socket.fileno() >= 0 else None

    def _wake_host(self) -> None:
        if not self._host_is_woken:
            self._host_is_woken = True
            self._home.to_host(self._on_wake)

    async def carry(self) -> None:
        """Connect, and carry bytes both ways until either side closes. Raises nothing of its own."""
        channel = self._open_channel()
        if channel is None:
            return
        self._begun = True
        try:
            await self._talk(channel)
        except (GRPCError, StreamTerminatedError, OSError, ProtocolError) as error:
            self.failure = self.failure or error
        finally:
            self._ended = True
            self._wake_host()
            await channel.end()

    async def _talk(self, channel: OwnSocketChannel) -> None:
        kind, metadata = Cardinality.STREAM_STREAM, self._metadata
        async with channel.request(CONNECT, kind, bytes, bytes, metadata=metadata) as call:
            try:
                await call.send_request()
                pull = asyncio.create_task(self._pull(call))
                push = asyncio.create_task(self._push(call))
                pulse = asyncio.create_task(self._feel_pulse(call))
                try:
                    tasks = (pull, push, pulse)
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    if push.done() and not self._closed and not pulse.done():
                        await pull  # nobody hears us, but it may have last words
                finally:
                    await end_tasks(pull, push, pulse)
            finally:
                channel.close()  # before the call ends: there is nothing more to wait for

    async def _feel_pulse(self, call: Call) -> None:
        """Return once the worker is silent."""
        headers = dict(await call._stream.recv_headers())
        pid = headers.get(PID_KEY)
        await until_silent(call._stream.connection, int(pid) if pid is not None else None)
        self._is_silent = pid is not None
        if pid is None:  # it may come back: the connection is lost, no more
            self.failure = TimeoutError(silence(is_elsewhere=True))

    async def _pull(self, call: Call) -> None:
        """Carry what the worker says."""
        incoming = Incoming(call._stream)
        try:
            with call._wrapper:
                while (data := await incoming.receive()) is not None:
                    self._put(data)
                    await self._until_room()
        finally:
            for data in await incoming.leftovers():
                self._put(data)

    def _put(self, data: bytes) -> None:
        if data:
            self._incoming.append(data)
            self._came_bytes += len(data)
            self._wake_host()

    async def _until_room(self) -> None:
        while self._unread_bytes >= PILE_BYTES_MAX:
            self._room.clear()
            self._wants_room = True  # then look again: the host takes, then looks at this
            try:
                if self._unread_bytes >= PILE_BYTES_MAX:
                    await self._room.wait()
            finally:
                self._wants_room = False

    async def _push(self, call: Call) -> None:
        """Carry what the host says, all that there is with each message."""
        while True:
            await self._more.wait()
            self._more.clear()
            self._grpc_is_woken = False
            closed = self._closed
            try:
                async with asyncio.timeout(CLOSE_S if closed else None):
                    await self._push_all(call)
                    if closed:  # not before somebody has taken the call
                        await call._stream.recv_headers()
            except TimeoutError:
                return
            if closed:
                await call.end()
                return

    async def _push_all(self, call: Call) -> None:
        while self._outgoing:
            data = self._next_outgoing()
            await call.send_message(data)
            self._sent_bytes += len(data)
            if self._writable is not None:
                self._wake_host()

    def _next_outgoing(self) -> bytes:
        data = self._outgoing.popleft()
        if self._outgoing and len(data) < FRAMES_BYTES_MAX:
            pieces, size = [data], len(data)
            while self._outgoing and size + len(self._outgoing[0]) <= FRAMES_BYTES_MAX:
                pieces.append(self._outgoing.popleft())
                size += len(pieces[-1])
            data = b"".join(pieces)
        return data
