"""Holds: what keeps a part of a segment in use, for as long as anybody looks at it.

Every view of shared memory refers to a hold, so Python's own counting of references decides how long
the memory stays: slices, arrays and tables made of a view keep it, and the last of them lets go.
A hold may die in any thread, in the middle of a garbage collection, at the end of the interpreter
and in a forked child. So all that its end does is one append to a deque, or one store to shared
memory; and in another process than the one that made it, nothing.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from snakepit.protocol import Loose
from snakepit.shm._memory import copy_to, view_of

if TYPE_CHECKING:
    from snakepit.protocol import Buffer
    from snakepit.shm._segments import Segment

Where: TypeAlias = tuple[int, int]  # the number of a segment, and where in it


class Hold:
    """A part of a segment that is in use. `receipt`: what tells its owner that it is no more."""

    __slots__ = ("__weakref__", "end", "offset", "receipt", "segment")

    def __init__(self, segment: Segment, offset: int, size: int, receipt: object = None) -> None:
        self.segment: Segment = segment
        self.offset: int = offset
        self.end: int = offset + size
        self.receipt: object = receipt
        segment.holds.add(ref(self, segment.holds.discard))

    def covers(self, offset: int, size: int) -> bool:
        """Is all of that in this part?"""
        return self.offset <= offset and offset + size <= self.end


class Block(Hold):
    """A part of a segment of our own; at its end it goes back to the arena by way of `freed`."""

    __slots__ = ("_freed", "_pid")

    def __init__(self, segment: Segment, offset: int, size: int, freed: deque[Where]) -> None:
        super().__init__(segment, offset, size)
        self._freed = freed
        self._pid = os.getpid()

    @property
    def address(self) -> int:
        return self.segment.mapping.address + self.offset

    def fill(self, source: Buffer | Loose) -> None:
        """Copy the bytes in."""
        if isinstance(source, Loose):
            source.write_to(self.view(len(source)))
        else:
            copy_to(self.address, source)

    def view(self, size: int, *, writable: bool = True) -> memoryview:
        """Its first bytes; they are in use as long as the view, or what is made of it."""
        assert size <= self.end - self.offset
        return view_of(self.address, size, self, writable=writable)

    def __del__(self, getpid: Any = os.getpid) -> None:
        if getpid() == self._pid:
            self._freed.append((self.segment.number, self.offset))
