"""`Frames` ⇄ bytes by hand, everything else by betterproto2.

`Frames` is on the way of every call of a pool, and one field of bytes: two bytes before a short
run of data. A test holds this to what the generated class makes of it. The worker of a pool never
imports the generated code, which takes longer to load than the rest of the worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

from grpclib.encoding.base import CodecBase

from snakepit.errors import ProtocolError

_LENGTH_DELIMITED: Final = 2
_VARINT_BYTES_MAX: Final = 10
Bytes = TypeVar("Bytes", bytes, memoryview)


class Codec(CodecBase):
    """Where a method's type is `bytes` it is the data of `Frames`, else a generated class."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The message as it travels."""
        return frames_with(message) if message_type is bytes else bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """The message that came. Raises ProtocolError."""
        return frames_from(data) if message_type is bytes else message_type.parse(data)


def frames_with(data: bytes) -> bytes:
    """A `Frames` with this data."""
    return head_of(1, len(data)) + data if data else b""


def head_of(field: int, size: int) -> bytes:
    """What stands before so many bytes of this field."""
    if size <= 0x7F:
        return bytes((field << 3 | _LENGTH_DELIMITED, size))
    head = bytearray((field << 3 | _LENGTH_DELIMITED,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def frames_from(message: bytes) -> bytes:
    """The data of a `Frames`; fields that a newer peer has added are ignored. Raises ProtocolError."""
    data = b""
    for number, value in fields_of(message):
        if number == 1:
            data = value
    return data


def fields_of(message: Bytes) -> Iterator[tuple[int, Bytes]]:
    """Number and data of each field of any message that is length-delimited. Raises ProtocolError."""
    for tag, part in parts_of(message):
        if tag & 7 == _LENGTH_DELIMITED:
            yield tag >> 3, part


def parts_of(message: Bytes) -> Iterator[tuple[int, Any]]:
    """Tag and content of each field of any message: an int of a varint, else its bytes. Raises ProtocolError."""
    position, length = 0, len(message)
    while position < length:
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size, position = _varint(message, position)
        elif kind == 0:
            value, position = _varint(message, position)
            yield tag, value
            continue
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ProtocolError(f"not a message of protobuf's: a field of wire type {kind}")
        end = position + size
        if end > length:
            raise ProtocolError("not a message of protobuf's: it is cut short")
        yield tag, message[position:end]
        position = end


def _varint(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    if position < len(message) and (byte := message[position]) < 0x80:
        return byte, position + 1  # as most are
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        if position + index >= len(message):
            break
        byte = message[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ProtocolError("not a message of protobuf's: a number without an end")
