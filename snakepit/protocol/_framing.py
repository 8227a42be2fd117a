"""Length-prefixed frames, sans-IO.

A frame is a big-endian u32 length and that many bytes of payload. Bytes go in as they
arrive, whole payloads come out. The length is checked before anything is kept for it, so a
lying prefix costs nothing; after a `ProtocolError` the decoder is unusable: a byte stream
that lost its place never finds it again.
"""

from __future__ import annotations

import struct
from typing import Final

from snakepit.errors import ProtocolError

PREFIX: Final = struct.Struct(">I")
PREFIX_BYTES: Final = PREFIX.size
PART_BYTES_MAX: Final = 2**20
FRAME_BYTES_MAX: Final = 4 * 2**20
assert PART_BYTES_MAX < FRAME_BYTES_MAX < 2**32, (
    "a part and its envelope fit a frame; the prefix is a u32"
)


def frame(payload: bytes) -> bytes:
    """The payload as a frame. Raises ProtocolError above `FRAME_BYTES_MAX`."""
    if len(payload) > FRAME_BYTES_MAX:
        prefix(len(payload))  # raises
    return PREFIX.pack(len(payload)) + payload


def prefix(payload_bytes: int) -> bytes:
    """The length prefix of a payload of that size. Raises ProtocolError above the maximum."""
    if payload_bytes > FRAME_BYTES_MAX:
        raise ProtocolError(
            f"a frame of {payload_bytes} bytes is over the maximum of {FRAME_BYTES_MAX}"
        )
    return PREFIX.pack(payload_bytes)


class FrameDecoder:
    """Turns chunks of a byte stream into payloads.

    Holds at most one unfinished frame: never more than `FRAME_BYTES_MAX` plus the chunk fed.
    """

    def __init__(self) -> None:
        self._partial = bytearray()  # the begun frame, prefix included, when it spans chunks
        self._broken: str | None = None

    @property
    def mid_frame(self) -> bool:
        """True while a frame has begun that has not ended: an EOF now is a death, not a goodbye."""
        return bool(self._partial)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in the next bytes of the stream and return the payloads that they complete.

        Raises ProtocolError where the stream is broken; what came before that is returned first,
        and the next call raises.
        """
        if self._broken is not None:
            raise ProtocolError(self._broken)
        if not self._partial and len(chunk) >= PREFIX_BYTES:
            size = PREFIX.unpack_from(chunk)[0]
            if size == len(chunk) - PREFIX_BYTES and size <= FRAME_BYTES_MAX:
                return [chunk[PREFIX_BYTES:]]  # the usual case: one frame, and all of it
        payloads: list[bytes] = []
        try:
            self._split(chunk, payloads)
        except ProtocolError as error:
            self._broken = error.message
            self._partial.clear()
            if not payloads:
                raise
        return payloads

    @property
    def broken(self) -> str | None:
        """Why nothing more can come, once that is so."""
        return self._broken

    def _split(self, chunk: bytes, payloads: list[bytes]) -> None:
        partial, position, end = self._partial, 0, len(chunk)
        if partial:
            position = self._fill(chunk, payloads)
        while (start := position + PREFIX_BYTES) <= end:
            size = self._size(PREFIX.unpack_from(chunk, position)[0])
            if end - start < size:
                break
            position = start + size
            payloads.append(chunk[start:position])
        if position < end:
            partial += memoryview(chunk)[position:]

    def _fill(self, chunk: bytes, payloads: list[bytes]) -> int:
        """Go on with the begun frame; return how much of the chunk it took."""
        partial, taken = self._partial, 0
        if len(partial) < PREFIX_BYTES:
            taken = min(PREFIX_BYTES - len(partial), len(chunk))
            partial += chunk[:taken]
            if len(partial) < PREFIX_BYTES:
                return taken
        size = self._size(PREFIX.unpack_from(partial)[0])
        more = min(PREFIX_BYTES + size - len(partial), len(chunk) - taken)
        partial += memoryview(chunk)[taken : taken + more]
        if len(partial) == PREFIX_BYTES + size:
            payloads.append(bytes(memoryview(partial)[PREFIX_BYTES:]))
            partial.clear()
        return taken + more

    def _size(self, size: int) -> int:
        if size > FRAME_BYTES_MAX:
            raise ProtocolError(f"a frame claims {size} bytes; the maximum is {FRAME_BYTES_MAX}")
        return size
