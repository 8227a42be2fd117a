"""Messages ⇄ frames, with large buffers in parts; sans-IO, used by both ends of a byte stream.

A message whose body and buffers are small is one frame. Each large buffer travels before its
message as a *transfer*: numbered `Part` frames of at most 1 MiB, between which other frames may
go. The message then names its transfers, and the receiver puts the bytes back in place. A body
over 1 MiB is itself sent as a transfer. A transfer that is given up ends with an empty part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from msgspec import Raw

from snakepit.errors import ProtocolError
from snakepit.protocol._ext import BUFFERS_MAX
from snakepit.protocol._framing import (
    FRAME_BYTES_MAX,
    PART_BYTES_MAX,
    PREFIX,
    FrameDecoder,
    frame,
    prefix,
)
from snakepit.protocol._loose import Loose
from snakepit.protocol._messages import (
    Buffer,
    Call,
    Drop,
    HostCall,
    HostReply,
    InputItem,
    Item,
    Part,
    Result,
    Start,
    encode_message,
)

# msgpack ext 8 of length 0 and type 127: "the body is the last transfer named here".
BODY_IN_TRANSFER: Final = Raw(b"\xc7\x00\x7f")
TRANSFERS_OPEN_MAX: Final = 1024
assert BUFFERS_MAX + 1 <= TRANSFERS_OPEN_MAX, "all transfers of one message, its body's too, fit"

_PART_HEAD: Final = b"\x93\x10\xcf"  # array of 3, tag 16, uint64: the transfer
_PART_HEAD_BYTES: Final = len(_PART_HEAD) + 8 + 5  # ..., bin32: the bytes

CARRIERS: Final = frozenset(  # the messages with a body
    {Start, Call, Result, Item, HostCall, HostReply, InputItem}
)
_OF_THE_LINK: Final = frozenset({Part, Drop})
Frame = tuple[bytes, memoryview | None]
M = TypeVar("M")


class Packer:
    """Turns messages into frames, numbering the transfers of this direction. From any thread."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def pack(self, message: Any) -> bytes | None:
        """The message as one frame; None if it must go in parts, see `pack_parts`."""
        if type(message) in CARRIERS and (
            message.buffers or len(memoryview(message.body)) > PART_BYTES_MAX
        ):
            return None
        payload = encode_message(message)  # as `frame`, for all the small ones
        size = len(payload)
        return (PREFIX.pack(size) if size <= FRAME_BYTES_MAX else prefix(size)) + payload

    def pack_parts(self, message: Any) -> Iterator[Frame]:
        """The frames of a message with large values, one at a time, in the order to send them.

        Closing the iterator early yields nothing more: the caller then sends `forget(...)`.
        """
        buffers = [
            buffer.in_a_row() if type(buffer) is Loose else memoryview(buffer).cast("B")
            for buffer in message.buffers
            if type(buffer) is not list
        ]
        body = message.body
        if len(memoryview(body)) > PART_BYTES_MAX:
            buffers.append(memoryview(body))
            body = BODY_IN_TRANSFER
        numbers = tuple(next(self._numbers) for _ in buffers)
        for number, buffer in zip(numbers, buffers, strict=True):
            for start in range(0, len(buffer) or 1, PART_BYTES_MAX):
                yield _part_head(number, data := buffer[start : start + PART_BYTES_MAX]), data
        left = iter(numbers)
        # A list is a reference to shared memory and goes as it is.
        named_buffers = [b if type(b) is list else next(left) for b in message.buffers]
        named = type(message)(
            **{
                name: getattr(message, name)
                for name in message.__struct_fields__
                if name not in ("body", "buffers")
            },
            body=body,
            buffers=(*named_buffers, *left),
        )
        yield frame(encode_message(named)), None


def forget(transfer: int) -> bytes:
    """The frame that tells the receiver to drop what it has of a transfer."""
    return frame(encode_message(Part(transfer, None)))


def transfer_of(head: bytes) -> int:
    """The number of the transfer that a part frame belongs to."""
    start = 4 + len(_PART_HEAD)
    return int.from_bytes(head[start : start + 8], "big")


def _part_head(transfer: int, data: memoryview) -> bytes:
    size = len(data)
    return (
        prefix(_PART_HEAD_BYTES + size)
        + _PART_HEAD
        + transfer.to_bytes(8, "big")
        + b"\xc6"
        + size.to_bytes(4, "big")
    )


class Unpacker(Generic[M]):
    """Turns chunks of a byte stream into whole messages, their buffers put back in place.

    What it holds grows only with bytes that have really come.
    """

    def __init__(self, decode: Callable[[bytes], M]) -> None:
        self._frames = FrameDecoder()
        self._decode = decode
        self._transfers: dict[int, bytearray] = {}
        self._broken: str | None = None

    @property
    def broken(self) -> str | None:
        """Why no further message can come, once that is so: what was said before it counts."""
        return self._broken or self._frames.broken

    @property
    def mid_message(self) -> bool:
        """True while a frame or a transfer has begun that has not ended."""
        return self._frames.mid_frame or bool(self._transfers)

    def feed(self, chunk: bytes) -> list[M]:
        """Take in the next bytes and return the messages that they complete.

        Raises ProtocolError where the stream is broken; messages that came before that are
        returned first, then `broken` is set and the next call raises.
        """
        if self._broken is not None:
            raise ProtocolError(self._broken)
        messages: list[M] = []
        try:
            for payload in self._frames.feed(chunk):
                message: Any = self._decode(payload)
                kind = type(message)
                if kind in _OF_THE_LINK:
                    self._take_of_the_link(message)
                    continue
                if kind in CARRIERS and message.buffers:
                    self._put_back(message, message.buffers)
                messages.append(message)
        except ProtocolError as error:
            self._broken = error.message
            if not messages:
                raise
        return messages

    def _take_of_the_link(self, message: Part | Drop) -> None:
        """Act on a message that is the link's own affair."""
        if type(message) is not Part:
            raise ProtocolError(f"{type(message).__name__} on a link without shared memory")
        self._take_part(message)

    def _take_part(self, part: Part) -> None:
        if part.data is None:
            self._transfers.pop(part.transfer, None)
            return
        known = self._transfers.get(part.transfer)
        if known is None:
            if len(self._transfers) >= TRANSFERS_OPEN_MAX:
                raise ProtocolError(f"more than {TRANSFERS_OPEN_MAX} transfers are open at once")
            known = self._transfers[part.transfer] = bytearray()
        known += part.data

    def _put_back(self, message: Any, transfers: tuple[Any, ...]) -> None:
        try:
            buffers: list[Buffer] = [self._transfers.pop(number) for number in transfers]
        except (KeyError, TypeError) as error:
            raise ProtocolError(f"a message names a transfer that never came: {error}") from None
        if bytes(message.body) == bytes(BODY_IN_TRANSFER):
            message.body = Raw(buffers.pop())
        message.buffers = tuple(buffers)
