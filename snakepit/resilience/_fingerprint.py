"""Which calls are the same call: of one tool, with the same arguments.

Nothing here is done while no worker dies. What is compared first, and costs nothing, is a call's
*shape*: its tool and the sizes of what it carries. Only calls of one shape are hashed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

from snakepit.protocol import Loose

Shape: TypeAlias = tuple[str | int, ...]

SAMPLE_BYTES_MAX: Final = 2**20  # of all pieces of a call: a millisecond
BLOCK_BYTES: Final = 2**12
BLOCKS_MIN: Final = 2  # of each piece: its beginning and its end
DIGEST_BYTES: Final = 16
LOOSE_BYTES_MAX: Final = (
    2**22
)  # what does not lie in a row is written for its digest up to this size


class Fingerprint:
    """A call's: `shape` at once, `digest` when it is asked for.

    `pieces`: its encoded arguments and the large buffers beside them, as bytes. Of those that are
    larger than their share of `SAMPLE_BYTES_MAX` only a sample counts, and the size; and of those that
    do not lie in a row yet and are larger than `LOOSE_BYTES_MAX`, the size alone.
    """

    __slots__ = ("_digest", "_pieces", "_tool", "shape")

    def __init__(self, tool: str, pieces: Sequence[bytes | memoryview | Loose]) -> None:
        self.shape: Shape = (tool, *map(len, pieces))
        self._tool, self._pieces = tool, pieces
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """The same for the same call."""
        if self._digest is None:
            total = blake2b(self._tool.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)
            share = SAMPLE_BYTES_MAX // max(1, len(self._pieces))
            for piece in self._pieces:
                total.update(b"%d:" % len(piece))
                for part in _sample(_in_a_row(piece), share):
                    total.update(part)
            self._digest = total.digest()
        return self._digest


def _in_a_row(piece: bytes | memoryview | Loose) -> memoryview:
    if not isinstance(piece, Loose):
        return memoryview(piece)
    row = bytearray()
    if len(piece) <= LOOSE_BYTES_MAX:
        try:
            row = bytearray(len(piece))
            piece.write_to(memoryview(row))
        except Exception:  # whatever the library that it is of raises, or there is no memory
            row = bytearray()
    return memoryview(row)


def _sample(piece: memoryview, share: int) -> Iterator[memoryview]:
    """All of it, or blocks at even distances, the first and the last of it among them."""
    size = len(piece)
    blocks = max(BLOCKS_MIN, share // BLOCK_BYTES)
    if size <= blocks * BLOCK_BYTES:
        yield piece
        return
    for block in range(blocks):
        start = block * (size - BLOCK_BYTES) // (blocks - 1)
        yield piece[start : start + BLOCK_BYTES]
