"""Gifts: memory that is handed over for good, where the budget has no room for a loan.

A segment with nothing else in it, written once and sealed against any further change, whose descriptor
is passed on and closed. From then on it is the receiver's: it goes with his last look at it, nothing
has to be given back, and so nobody ever waits for anybody.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Any, Final

from snakepit.protocol import Loose
from snakepit.shm._memory import copy_to
from snakepit.shm._segments import F_ADD_SEALS, HAS_MEMFD, SEALS, create, create_memfd, is_spare

if TYPE_CHECKING:
    from snakepit.protocol import Buffer

GIFT_BYTES_MIN: Final = 4 * 2**20  # a pipe is as quick for less
SEAL_WRITE: Final = 0x8
_WRITE_BYTES_MAX: Final = 2**30


class Gift:
    """A segment that is to be given away. `number`: what the receiver was told it is called, 0 before."""

    __slots__ = ("fd", "number", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd: int = fd
        self.size: int = size
        self.number: int = 0

    def close(self) -> None:
        """Keep it no longer. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self, close: Any = os.close) -> None:
        if self.fd >= 0:
            close(self.fd)


def make_gift(source: Buffer | Loose) -> Gift | None:
    """The bytes in a segment of their own; None: they are too few, or there is no memory for it.

    It may take long, and is for a thread: half a millisecond for each MiB.
    """
    size = len(source)
    if size < GIFT_BYTES_MIN:
        return None
    try:
        if isinstance(source, Loose) or not HAS_MEMFD:
            fd, mapping = create(size)
            gift = Gift(fd, size)
            if isinstance(source, Loose):
                source.write_to(mapping.view(0, size))
            else:
                copy_to(mapping.address, source)
            return gift
        gift = Gift(create_memfd(), size)
        if not is_spare(gift.fd):
            return None
        rest = memoryview(source).cast("B")
        while rest:  # twice as quick as to map it and fault its pages in
            rest = rest[os.write(gift.fd, rest[:_WRITE_BYTES_MAX]) :]
        fcntl.fcntl(gift.fd, F_ADD_SEALS, SEALS | SEAL_WRITE)
    except OSError:
        return None
    return gift
