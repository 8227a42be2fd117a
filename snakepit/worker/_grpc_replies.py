"""What a client gets of what a tool has made: in the encoding of its request, small ones at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, TypeAlias

from grpclib.server import Stream

from snakepit.errors import SerializationError
from snakepit.grpc import answer_at_once
from snakepit.grpc._json import write_json
from snakepit.protocol import Item, Result, decode_value
from snakepit.protocol._inline import inline
from snakepit.worker._grpc_host import Inbox, Outcome
from snakepit.worker._grpc_messages import JSON, MSGPACK, PackedReply, Request

LARGE_BYTES: Final = 2**16  # JSON of that size keeps the loop from other calls: it has a thread
REPLY_BYTES_MAX: Final = 2**32 - 2**20  # of gRPC's 4 GiB, less what may stand before what is large

ExecuteCall: TypeAlias = Stream[Request, PackedReply]


class Arrivals(Inbox):
    """What comes for a client's call. A small result is sent to the client in the same step: `answered`.

    `reply`: that result as the client wants it, whether or not it could be sent.
    """

    def __init__(self, call: ExecuteCall, *, as_json: bool) -> None:
        super().__init__()
        self._call, self._as_json = call, as_json
        self.answered = False
        self.reply: PackedReply | None = None

    def put_nowait(self, outcome: Outcome | None) -> None:
        if isinstance(outcome, Result) and not _is_large(outcome):
            with suppress(Exception):  # the handler meets it again, and tells the client
                self.reply = _in_json(outcome) if self._as_json else _in_msgpack(outcome)
                self.answered = answer_at_once(self._call, bytes(self.reply))
        super().put_nowait(outcome)


async def reply_with(message: Result | Item, *, as_json: bool) -> PackedReply:
    """What the tool has made, in the encoding of the request. Raises SerializationError."""
    size = _size_of(message)
    _check_size(size)
    pack = _in_json if as_json else _in_msgpack
    if memoryview(message.body).nbytes < LARGE_BYTES and (size < LARGE_BYTES or not as_json):
        reply = pack(message)
    else:
        reply = await asyncio.to_thread(pack, message)
    _check_size(reply.size)  # JSON makes more of it
    return reply


def _check_size(size: int) -> None:
    if size > REPLY_BYTES_MAX:
        raise SerializationError(f"{size} bytes are too many for one message of gRPC; stream them")


def _is_large(message: Result | Item) -> bool:
    return _size_of(message) >= LARGE_BYTES


def _size_of(message: Result | Item) -> int:
    return sum(memoryview(part).nbytes for part in (message.body, *message.buffers))


def _in_msgpack(message: Result | Item) -> PackedReply:
    return PackedReply(MSGPACK, inline(message.body, message.buffers))


def _in_json(message: Result | Item) -> PackedReply:
    return PackedReply(JSON, write_json(decode_value(message.body, message.buffers)))
