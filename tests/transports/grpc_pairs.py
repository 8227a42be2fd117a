"""Both ends of a gRPC link in one process: the host's, and the thread that serves it in a worker."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from snakepit.grpc import TOKEN_BYTES
from snakepit.testing import BytePeer, running
from snakepit.transports import ByteChannel, ByteStream, Channel
from snakepit.transports._grpc import GrpcLink, GrpcTransport
from snakepit.transports._stdio import PipeStream
from snakepit.worker._grpc_front import Front


class GrpcPeer(BytePeer):
    """The other end of the wire, as the main thread of a worker has it."""

    def __init__(self, stream: ByteStream, front: Front, channel: ByteChannel) -> None:
        super().__init__(stream)
        self._front, self._channel = front, channel

    async def aclose(self) -> None:
        """Close, and let the threads have their time: the checks only wait for tasks."""
        await super().aclose()
        with anyio.move_on_after(5):
            while self._front.is_running or not self._channel._stream._ended:
                await anyio.sleep(0.001)


@asynccontextmanager
async def grpc_pair() -> AsyncGenerator[tuple[Channel, BytePeer]]:
    """A link whose worker is the thread that serves it there."""
    with GrpcTransport().open_link() as link:
        front, wire = serve(link)
        ends = (wire.fileno(), os.dup(wire.fileno()))
        wire.detach()
        stream = PipeStream(*ends)
        try:
            async with running(link.connect()) as channel:
                yield channel, GrpcPeer(stream, front, channel)
        finally:
            stream.close()
            with anyio.fail_after(5, shield=True):
                while front.is_running:
                    await anyio.sleep(0.001)


def serve(link: GrpcLink) -> tuple[Front, socket.socket]:
    """Do what a worker does that has inherited what the link has for it."""
    os.set_blocking(link.stdin, False)  # all of it is there
    token = os.read(link.stdin, 2 * TOKEN_BYTES).decode()
    listener = socket.socket(fileno=os.dup(*link.pass_fds))
    ours, theirs = socket.socketpair()
    for end in (listener, ours):
        end.setblocking(False)
    link.worker_started()
    front = Front(listener, theirs, lambda said: said == token)
    front.start()
    return front, ours
