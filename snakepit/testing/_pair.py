"""A link with both ends in our hands: the host's channel, and the worker's end as a `Peer`.

A check gets one from `open_pair()`. For transports that spawn, `pair_of(transport)` makes it;
for others, write a few lines around `running(channel)` and, where messages are frames on a stream
of bytes, `BytePeer(stream)`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

from snakepit.protocol import NIL, Packer, Result, ToHost, ToWorker, Unpacker, decode_to_worker
from snakepit.transports import ByteStream, Channel, Link, Transport
from snakepit.transports._memory import MemoryLink
from snakepit.transports._stdio import PipeStream

READ_BYTES_MAX: Final = 2**16

C = TypeVar("C", bound=Channel)


class Peer(ABC):
    """The worker's end of a link, as the checks drive it; on the event loop of the channel.

    It reads only while `receive` is awaited: one that is left alone is a worker that does not read.
    """

    @abstractmethod
    async def send(self, *messages: ToHost) -> None:
        """Send these to the host, in this order, and wait until the link has taken them."""

    @abstractmethod
    async def receive(self) -> ToWorker:
        """Wait for the next message of the host.

        Raises anyio.EndOfStream: the host has closed its end.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Leave in good order, after the last message; what was not read is lost. Idempotent."""

    @abstractmethod
    async def break_off(self) -> None:
        """Die in the middle of a message: some of it is sent, and then nothing ever."""


class BytePeer(Peer):
    """A peer that speaks in frames, or in any bytes at all, on the worker's end of a stream."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._packer = Packer()
        self._unpacker: Unpacker[ToWorker] = Unpacker(decode_to_worker)
        self._received: deque[ToWorker] = deque()

    async def send(self, *messages: ToHost) -> None:
        await anyio.lowlevel.checkpoint()
        for message in messages:
            await self.send_bytes(self.pack(message))

    async def send_bytes(self, data: bytes) -> None:
        """Write these bytes, whatever they mean."""
        await anyio.lowlevel.checkpoint()
        left = memoryview(data)
        while left:
            try:
                left = left[self._stream.write(left) :]
            except BlockingIOError:
                await self._stream.until_writable()
            except OSError as error:
                raise anyio.BrokenResourceError from error

    def pack(self, message: ToHost) -> bytes:
        """All frames of the message, in one piece."""
        whole = self._packer.pack(message)
        if whole is not None:
            return whole
        parts = self._packer.pack_parts(message)
        return b"".join(head + bytes(data or b"") for head, data in parts)

    async def receive(self) -> ToWorker:
        await anyio.lowlevel.checkpoint()
        while not self._received:
            try:
                chunk = self._stream.read(READ_BYTES_MAX)
            except BlockingIOError:
                await self._stream.until_readable()
                continue
            except OSError as error:
                raise anyio.BrokenResourceError from error
            if not chunk:
                raise anyio.BrokenResourceError if self.mid_message else anyio.EndOfStream
            self._received += self._unpacker.feed(chunk)
        return self._received.popleft()

    @property
    def mid_message(self) -> bool:
        """Whether something has begun to come that has neither been completed nor taken back."""
        return self._unpacker.mid_message

    async def aclose(self) -> None:
        self._stream.close()
        await anyio.lowlevel.checkpoint()

    async def break_off(self) -> None:
        await self.send_bytes(self.pack(Result(1, NIL))[:-1])
        await self.aclose()


OpenPair: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Channel, Peer]]]
OpenBytePair: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Channel, BytePeer]]]


@asynccontextmanager
async def running(channel: C) -> AsyncGenerator[C]:
    """Run the channel for the length of the block, and close it at the end."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.run)
        try:
            yield channel
        finally:
            await channel.aclose()  # noqa: ASYNC102 - closing never waits
            tasks.cancel_scope.cancel()


def pair_of(transport: Transport) -> OpenBytePair:
    """An `open_pair` for a transport that hands its workers two descriptors of a byte stream.

    The peer holds duplicates of `stdin` and `stdout` of the link, as a worker's process does. In
    memory it holds the worker's end itself.
    """

    @asynccontextmanager
    async def open_pair() -> AsyncGenerator[tuple[Channel, BytePeer]]:
        with transport.open_link() as link:
            if isinstance(link, MemoryLink):
                async with running(link.connect()) as channel:
                    yield channel, BytePeer(link.worker_end)
                return
            assert isinstance(link, Link), "a worker that is a process takes two descriptors"
            ends = (os.dup(link.stdin), os.dup(link.stdout))
            for end in ends:
                os.set_blocking(end, False)
            stream = PipeStream(*ends)
            try:
                link.worker_started()
                async with running(link.connect()) as channel:
                    yield channel, BytePeer(stream)
            finally:
                stream.close()

    return open_pair
