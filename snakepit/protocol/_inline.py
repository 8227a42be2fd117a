"""A value whose large buffers came beside it, as one msgpack value again, none of them copied.

For clients that know msgpack and nothing of ours: an index of a buffer means nothing to them. msgspec
reads and writes all that holds no buffer; what does becomes `_Pieces`, and whatever holds that. An
ext says before its payload how long it is, so each is put together from the inside. In place of the
pieces msgspec writes a mark, where what it has written is then cut.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from . import _ext as ext
from ._messages import Buffer

BIN_32, EXT_32 = b"\xc6", b"\xc9"
MARK_BYTES: Final = 16  # of chance: nobody writes it by accident
# Where in the payload of an ext the index of a buffer may stand; None: it is the payload.
INDEX_AT: Final = {
    ext.BYTEARRAY: None,
    ext.BYTES: None,
    ext.MEMORYVIEW: 2,
    ext.NDARRAY: 3,
    ext.TENSOR: 3,
    ext.ARROW: 1,
}
HOLDERS: Final = frozenset((ext.TUPLE, ext.SET, ext.FROZENSET, ext.DICT))


def inline(body: Buffer, buffers: Sequence[Buffer]) -> list[Buffer]:
    """The pieces that together are the value as `encode` writes it without buffers."""
    return _Inliner(buffers).pieces(body) if buffers else [body]


class _Pieces:
    """Stands for a value whose msgpack this is."""

    def __init__(self, *pieces: Buffer) -> None:
        self.pieces = pieces


class _Inliner:
    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._buffers = buffers
        self._mark = secrets.token_bytes(MARK_BYTES)
        self._marked: list[_Pieces] = []  # in the order in which they are written

    def pieces(self, body: Buffer) -> list[Buffer]:
        value = msgspec.msgpack.Decoder(ext_hook=self._read_ext).decode(body)
        return list(self._write(value))

    def _write(self, value: object) -> Iterator[Buffer]:
        self._marked = []
        written = msgspec.msgpack.Encoder(enc_hook=self._write_mark).encode(value)
        around = written.split(self._mark)
        for before, marked in zip(around, self._marked, strict=False):
            yield before
            yield from marked.pieces
        yield around[-1]

    def _write_mark(self, value: object) -> Raw:
        assert isinstance(value, _Pieces), "all else is msgpack's own"
        self._marked.append(value)
        return Raw(self._mark)

    def _read_ext(self, code: int, data: memoryview) -> Any:
        if code in INDEX_AT:
            return self._put_in(code, data)
        if code in HOLDERS:
            held = list(self.pieces(data))  # of one piece: there is none of ours in it
            return _ext_of(code, held) if len(held) > 1 else Ext(code, bytes(data))
        return Ext(code, bytes(data))

    def _put_in(self, code: int, data: memoryview) -> Any:
        """An ext that may name a buffer, with that in its place."""
        fields, at = msgspec.msgpack.decode(data), INDEX_AT[code]
        index = fields if at is None else fields[at]
        if type(index) is not int:
            return Ext(code, bytes(data))
        content = memoryview(self._buffers[index])
        binary = _Pieces(BIN_32 + content.nbytes.to_bytes(4, "big"), content)
        if code == ext.BYTES:
            return binary  # which msgpack has itself
        if at is not None:
            fields[at] = binary
        return _ext_of(code, list(self._write(binary if at is None else fields)))


def _ext_of(code: int, payload: list[Buffer]) -> _Pieces:
    size = sum(memoryview(piece).nbytes for piece in payload)
    return _Pieces(EXT_32 + size.to_bytes(4, "big") + bytes((code,)), *payload)
