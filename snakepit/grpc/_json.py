"""`google.protobuf.Value` ⇄ Python, by hand: what JSON can say, and a refusal of all else.

Generated code makes an object of each number, a hundred times slower. Nothing here belongs to a
loop: what is large is for a thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from struct import Struct
from types import NoneType
from typing import Any, Final, TypeAlias, cast

from snakepit.errors import ProtocolError, SerializationError
from snakepit.grpc._bulk import PIECE_BYTES
from snakepit.grpc._codec import head_of, parts_of

WHOLE_MAX: Final = 2**53  # up to here a double tells each whole number from the next one
NESTING_MAX: Final = 150  # as the wire has it
# Tags: the number of a field, and how it travels.
NULL, NUMBER, STRING, BOOL, OBJECT, ARRAY = 0x08, 0x11, 0x1A, 0x20, 0x2A, 0x32
ENTRY, ITEM = 0x0A, 0x0A  # of an object, of an array
KEY, OF_KEY = 0x0A, 0x12  # of an entry
DOUBLE: Final = Struct("<d")
KINDS: Final = frozenset((NoneType, bool, str, float, int, list, tuple, dict))  # not what is more
Path = tuple[Any, object] | None  # of a value, the last step first


def read_json(data: memoryview, depth: int = 0) -> Any:
    """The value; whole numbers are ints. Raises ProtocolError."""
    if depth > NESTING_MAX:
        raise ProtocolError(f"it is nested deeper than {NESTING_MAX} levels")
    value: Any = None
    for tag, part in parts_of(data):
        if tag == NUMBER:
            (value,) = DOUBLE.unpack(part)
            if not math.isfinite(value):
                raise ProtocolError(f"it has no {value}; ask with msgpack")
            if value.is_integer() and abs(value) <= WHOLE_MAX:
                value = int(value)
        elif tag == STRING:
            value = _text(part)
        elif tag == BOOL:
            value = bool(part)
        elif tag == OBJECT:
            entries = [part_ for tag_, part_ in parts_of(part) if tag_ == ENTRY]
            value = dict(_entry(entry, depth + 1) for entry in entries)
        elif tag == ARRAY:
            value = [read_json(part_, depth + 1) for tag_, part_ in parts_of(part) if tag_ == ITEM]
        elif tag == NULL:
            value = None
    return value


def _entry(data: memoryview, depth: int) -> tuple[str, Any]:
    parts = dict(parts_of(data))
    return _text(parts.get(KEY, memoryview(b""))), read_json(
        parts.get(OF_KEY, memoryview(b"")), depth
    )


def _text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"not UTF-8: {error}") from None


class _Long:
    """What is written of a value that is large: pieces of so many bytes together, joined by nobody."""

    __slots__ = ("pieces", "size")

    def __init__(self, head: bytes, parts: Iterable[_Written], size: int) -> None:
        self.size = len(head) + size
        self.pieces = [head]
        small, room = list[bytes](), PIECE_BYTES
        for part in parts:
            if isinstance(part, _Long):
                self.pieces += (b"".join(small), *part.pieces)
                small, room = [], PIECE_BYTES
            elif len(part) < room:
                small.append(part)
                room -= len(part)
            else:
                self.pieces += (b"".join(small), part)
                small, room = [], PIECE_BYTES
        self.pieces.append(b"".join(small))

    def __len__(self) -> int:
        return self.size


_Written: TypeAlias = "bytes | _Long"


def write_json(value: object) -> list[bytes]:
    """The same the other way, in pieces; tuples become arrays. Raises SerializationError, which says where."""
    written = _write(value)
    return written.pieces if isinstance(written, _Long) else [written]


def _write(value: object, path: Path = None, depth: int = 0) -> _Written:
    if depth > NESTING_MAX:
        raise SerializationError(f"the value is nested deeper than {NESTING_MAX} levels")
    match value:
        case _ if type(value) not in KINDS:
            pass
        case None:
            return b"\x08\0"
        case bool():
            return b"\x20\1" if value else b"\x20\0"
        case str():
            return _delimited(STRING, (_bytes(value, path),))
        case float() if math.isfinite(value):
            return b"\x11" + DOUBLE.pack(value)
        case int() if abs(value) <= WHOLE_MAX:
            return b"\x11" + DOUBLE.pack(value)
        case list() | tuple():
            return _delimited(
                ARRAY,
                [
                    _delimited(ITEM, (_write(item, (path, index), depth + 1),))
                    for index, item in enumerate(value)
                ],
            )
        case dict() if all(type(key) is str for key in value):
            return _delimited(
                OBJECT,
                [
                    _delimited(
                        ENTRY,
                        (
                            _delimited(KEY, (_bytes(key, path),)),
                            _delimited(OF_KEY, (_write(item, (path, key), depth + 1),)),
                        ),
                    )
                    for key, item in value.items()
                ],
            )
    what = f"JSON has no {type(value).__name__} like this one; ask with msgpack"
    raise SerializationError(what, _where(path))


def _delimited(tag: int, parts: Sequence[_Written]) -> _Written:
    size = sum(map(len, parts))
    head = head_of(tag >> 3, size)
    if size < PIECE_BYTES:
        return b"".join((head, *cast("Sequence[bytes]", parts)))  # what is long is longer than that
    return _Long(head, parts, size)


def _bytes(text: str, path: Path) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise SerializationError(f"JSON has no such text: {error}", _where(path)) from None


def _where(path: Path) -> str:
    steps = []
    while path is not None:
        path, step = path
        steps.append(f"[{step!r}]")
    return "".join(reversed(steps))
