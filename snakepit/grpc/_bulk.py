"""Large messages in pieces, so that none keeps the loop from other calls for longer than a piece.

grpclib puts a message together before it sends it, and what has come of one before it is read: copies
of all of it, at each of which every call and ping on every connection waits. It uses private names of
grpclib, which is pinned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from grpclib.server import Stream

from snakepit.grpc._answer import head_of_message

PIECE_BYTES: Final = 2**17
Data: TypeAlias = bytes | bytearray | memoryview
Read: TypeAlias = Callable[[int], Awaitable[bytes]]


async def send_in_pieces(
    call: Stream[Any, Any], message: Iterable[Data], size: int, turns: asyncio.Lock
) -> None:
    """Send what `message` is when put together, of `size` bytes. Other tasks run before each piece.

    `turns`: of all who send in pieces on this loop. However many they are, it does one piece a turn.
    """
    if not call._send_initial_metadata_done:
        await call.send_initial_metadata()
    for piece in in_pieces((head_of_message(size), *message)):
        async with turns:
            await asyncio.sleep(0)
        await hold_if_lost(call)
        await call._stream.send_data(piece)  # not in it: this client may not be reading
    call._send_message_done = True


async def hold_if_lost(call: Stream[Any, Any]) -> None:  # noqa: ASYNC910 - nothing is sent here
    """If the connection is lost, wait to be cancelled, in a moment: asyncio logs each write there."""
    if call._stream.connection.is_closing():
        await asyncio.Event().wait()


def in_pieces(parts: Iterable[Data]) -> Iterator[bytes]:
    """The same bytes, at most `PIECE_BYTES` at a time: what is small together, what is large cut up."""
    held, room = list[memoryview](), PIECE_BYTES
    for part in parts:
        left = memoryview(part).cast("B")
        while len(left) > room:
            held.append(left[:room])
            yield b"".join(held)
            left, held, room = left[room:], [], PIECE_BYTES
        held.append(left)
        room -= len(left)
    if held:
        yield b"".join(held)


async def read_in_pieces(read: Read, size: int) -> bytearray:
    """What `read` gives for `size`, asked for in pieces. Less at the end of the stream, as `read` has it."""
    data = bytearray()
    while (left := size - len(data)) and (piece := await read(min(left, PIECE_BYTES))):
        data += piece
        await asyncio.sleep(0)
    return data
