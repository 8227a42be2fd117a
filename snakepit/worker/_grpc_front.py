"""The thread that serves gRPC to the host of this worker: one `Connect`, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from grpclib import GRPCError
from grpclib.const import Cardinality, Handler, Status
from grpclib.events import RecvRequest, listen
from grpclib.server import Stream

from snakepit.grpc import (
    CONNECT,
    FRAMES_BYTES_MAX,
    PID_KEY,
    TOKEN_KEY,
    Incoming,
    SoundServer,
    end_tasks,
)

DRAIN_S = 1.0  # for what has been said to get into the kernel


class Front:
    """Carries bytes between `Connect` and the inner end of the wire.

    `may_call` decides about the token that a call carries, "" for none.
    """

    def __init__(
        self, listener: socket.socket, inner: socket.socket, may_call: Callable[[str], bool]
    ) -> None:
        self._listener, self._inner, self._may_call = listener, inner, may_call
        self._thread = Thread(target=self._run, name="snakepit-grpc", daemon=True)
        self._server: SoundServer | None = None
        self._is_taken = False
        self._over: asyncio.Event

    def start(self) -> None:
        """Begin to serve, in a thread of its own."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended, which it does when the wire has."""
        self._thread.join(timeout_s)

    @property
    def is_running(self) -> bool:
        """Does it serve, or still end?"""
        return self._thread.is_alive()

    def close_in_child(self) -> None:
        """In a forked child: let go of all descriptors, so that the host sees the worker's end."""
        self._inner.close()
        self._listener.close()
        for fd in self._server.fds() if self._server is not None else ():
            with suppress(OSError):
                os.close(fd)

    # -- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._inner.close()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = SoundServer([self], self._host_lost)
        self._server = server
        listen(server, RecvRequest, self._authenticate)
        await server.start(sock=self._listener)
        await self._over.wait()
        await server.drain(DRAIN_S)

    def _host_lost(self) -> None:
        """The first connection, which is the host's own, has ended."""
        if not self._is_taken:
            self._over.set()

    async def _authenticate(self, event: RecvRequest) -> None:
        said = event.metadata.get(TOKEN_KEY, "")
        if not isinstance(said, str) or not self._may_call(said):
            raise GRPCError(Status.UNAUTHENTICATED, f"the metadata {TOKEN_KEY} is wrong")

    def __mapping__(self) -> dict[str, Handler]:
        return {CONNECT: Handler(self._connect, Cardinality.STREAM_STREAM, bytes, bytes)}

    async def _connect(self, stream: Stream[bytes, bytes]) -> None:
        if self._is_taken:
            raise GRPCError(Status.FAILED_PRECONDITION, "this worker has its host already")
        self._is_taken = True
        try:
            await self._carry(stream)
        finally:
            self._over.set()  # also when it is cut off before anything has been carried

    async def _carry(self, stream: Stream[bytes, bytes]) -> None:
        reader, writer = await asyncio.open_unix_connection(
            sock=self._inner, limit=FRAMES_BYTES_MAX // 2
        )
        incoming = Incoming(stream._stream)
        hear = asyncio.create_task(_hear(incoming, writer))
        tell = asyncio.create_task(_tell(stream, reader))
        try:
            await asyncio.wait((hear, tell), return_when=asyncio.FIRST_COMPLETED)
            if not tell.done():
                writer.write_eof()  # the host has ended its side, and may still listen
                await tell
        finally:
            await end_tasks(hear, tell)
            for data in await incoming.leftovers():
                writer.write(data)
            writer.close()  # the wire sees the end of its host, after the last of its words
            with suppress(OSError):
                await writer.wait_closed()


async def _hear(incoming: Incoming, writer: asyncio.StreamWriter) -> None:
    """Carry what the host says."""
    while (data := await incoming.receive()) is not None:
        writer.write(data)
        await writer.drain()


async def _tell(stream: Stream[bytes, bytes], reader: asyncio.StreamReader) -> None:
    """Carry what the worker says, all that there is with each message."""
    await stream.send_initial_metadata(metadata={PID_KEY: str(os.getpid())})
    while data := await reader.read(FRAMES_BYTES_MAX):
        await stream.send_message(data)
