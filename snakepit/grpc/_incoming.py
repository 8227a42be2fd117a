"""What comes on one `Connect` call, to the very last byte.

grpclib's own `recv_message` is cancelled when the connection is lost, and forgets then what had
come: a result that a worker wrote before its death would be lost. This one can be cancelled at any
await and asked again, also after the end.
"""

from __future__ import annotations

import asyncio
import struct

from grpclib.protocol import Stream

from snakepit.errors import ProtocolError
from snakepit.grpc._codec import frames_from

_HEAD = struct.Struct(">?I")  # of a gRPC message: is it compressed, and how long is it


class Incoming:
    """The data of the `Frames` that come on this stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._size: int | None = None  # of the message whose head has been read

    async def receive(self) -> bytes | None:
        """The data of the next message, None at the end. Raises ProtocolError."""
        if self._size is None:
            head = await self._read(_HEAD.size)
            if not head:
                return None
            compressed, self._size = _HEAD.unpack(head)
            if compressed:
                raise ProtocolError("a Frames message is compressed, which nobody has asked for")
        message = await self._read(self._size)
        self._size = None
        return frames_from(message)

    async def _read(self, size: int) -> bytes:
        try:
            return await self._stream.recv_data(size)
        except AssertionError:
            raise ProtocolError("a Frames message is cut short") from None

    async def leftovers(self) -> list[bytes]:
        """What has come whole and was not received; then nothing more comes. Never waits."""
        buffer = self._stream.buffer
        buffer._ack_callback = _do_nothing  # nobody is there to be told
        buffer.eof()
        found: list[bytes] = []
        try:
            while (data := await self.receive()) is not None:
                found.append(data)
        except ProtocolError:
            pass  # the last one was cut short
        return found


def _do_nothing(_size: int) -> None:
    pass


async def end_tasks(*tasks: asyncio.Task[None]) -> None:
    """Cancel these and wait for them; their errors are not heard."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
