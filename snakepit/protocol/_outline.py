"""The other way of `_inline.py`: what is large in arguments that came in one piece, beside them.

There a receiver can copy it without the GIL, or need not copy it at all. Only what is large is looked into, and of
that only what has few members: the rest stays as it is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from . import _ext as ext
from ._inline import BIN_32, EXT_32, HOLDERS, INDEX_AT
from ._messages import Buffer

LARGE_BYTES: Final = 2**16
MEMBER_BYTES_LEAST: Final = 2**10  # on average, else there are too many to be looked at
BIN_32_HEAD: Final = 5  # it and the length
EXT_32_HEAD: Final = 6  # these and the code
MAP, ARRAY = "map", "array"

_map = msgspec.msgpack.Decoder(dict[str, Raw]).decode
_array = msgspec.msgpack.Decoder(list[Raw]).decode


def outline(params: Buffer) -> tuple[Buffer, list[Buffer]]:
    """A map of arguments and, beside it, their large byte strings and arrays, as `encode` has them.

    None is copied. What is no map of names comes back as it is. Raises msgspec.DecodeError: it is no
    msgpack; UnicodeDecodeError: a name is no text.
    """
    outliner = _Outliner()
    try:
        arguments = {name: outliner.walk(memoryview(value)) for name, value in _map(params).items()}
    except msgspec.ValidationError:
        return params, []
    buffers = outliner.buffers
    return (ext.encode_plain(arguments), buffers) if buffers else (params, [])


class _Outliner:
    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    def walk(self, packed: memoryview, depth: int = 0) -> Any:
        """The value as something that msgspec writes as it is, without what is large in it."""
        if len(packed) < LARGE_BYTES or depth > ext.NESTING_MAX:
            return Raw(packed)
        head = packed[:1]
        if head == BIN_32:
            index = self._put_aside(packed)
            return Raw(packed) if index is None else Ext(ext.BYTES, ext.encode_plain(index))
        if head == EXT_32:
            return self._ext(packed[EXT_32_HEAD - 1], packed[EXT_32_HEAD:], depth) or Raw(packed)
        kind, count = _members(packed)
        if not count or len(packed) < count * MEMBER_BYTES_LEAST:
            return Raw(packed)
        if kind is ARRAY:
            return [self.walk(memoryview(member), depth + 1) for member in _array(packed)]
        try:
            members = _map(packed)
        except msgspec.ValidationError:  # names that are no str
            return Raw(packed)
        return {name: self.walk(memoryview(member), depth + 1) for name, member in members.items()}

    def _put_aside(self, packed: memoryview) -> int | None:
        """The index of the buffer that this byte string is now."""
        if packed[:1] != BIN_32 or len(self.buffers) >= ext.BUFFERS_MAX:
            return None
        self.buffers.append(packed[BIN_32_HEAD:])
        return len(self.buffers) - 1

    def _ext(self, code: int, payload: memoryview, depth: int) -> Ext | None:
        if code in HOLDERS:
            return Ext(code, ext.encode_plain(self.walk(payload, depth + 1)))
        if code not in INDEX_AT or code == ext.BYTES:
            return None
        at = INDEX_AT[code]
        if at is None:
            index = self._put_aside(payload)
            return None if index is None else Ext(code, ext.encode_plain(index))
        fields: list[Any] = _array(payload)
        index = self._put_aside(memoryview(fields[at])) if at < len(fields) else None
        if index is None:
            return None
        fields[at] = index
        return Ext(code, ext.encode_plain(fields))


def _members(packed: memoryview) -> tuple[str, int]:
    """Of what kind it is, and of how many members; none: it is something else."""
    head = packed[0]
    if head >> 4 == 0x8:
        return MAP, head & 0xF
    if head >> 4 == 0x9:
        return ARRAY, head & 0xF
    if head in (0xDC, 0xDE):
        return ARRAY if head == 0xDC else MAP, int.from_bytes(packed[1:3])
    if head in (0xDD, 0xDF):
        return ARRAY if head == 0xDD else MAP, int.from_bytes(packed[1:5])
    return "", 0
