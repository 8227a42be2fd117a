"""Bytes that do not lie in a row yet, where they lie, and those that cannot be seen: for links with shared memory.

A table or an array that is not contiguous has to be written somewhere before it can travel. Where
shared memory is at hand it is written there at once, by whoever knows the place. And what lies in
shared memory already need not be contiguous: a part of it is named, and what is to be seen there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Loose:
    """So many bytes, to be written where they are wanted. `write`: puts them into a buffer of that size."""

    __slots__ = ("_row", "_size", "_write")

    def __init__(self, size: int, write: Callable[[memoryview], object]) -> None:
        self._size = size
        self._write = write
        self._row: memoryview | None = None

    def __len__(self) -> int:
        return self._size

    def write_to(self, target: memoryview) -> None:
        """Write them; from any thread, of which others may run meanwhile."""
        self._write(target)

    def in_a_row(self) -> memoryview:
        """The bytes, in memory of this process alone; made once. Raises MemoryError."""
        if self._row is None:
            import mmap

            try:
                memory = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError as error:
                raise MemoryError(f"no memory for {self._size} bytes: {error}") from error
            row = memoryview(memory)
            self._write(row)
            self._row = row.toreadonly()
        return self._row

    def __bytes__(self) -> bytes:
        return bytes(self.in_a_row())


class Missing:
    """So many bytes that have come, and that this process cannot see. `why`: for whoever wants to read them."""

    __slots__ = ("_size", "why")

    def __init__(self, size: int, why: str) -> None:
        self._size = size
        self.why: str = why

    def __len__(self) -> int:
        return self._size


class Place(Protocol):
    """A part of shared memory that somebody keeps in use. `offset` and `end`: within `segment`."""

    segment: Any
    offset: int
    end: int


class Places(Protocol):
    """The shared memory that this process knows, by address."""

    def place_of(self, address: int, nbytes: int) -> Place | None:
        """Where all of these bytes lie, kept in use together; None: not in shared memory."""

    def view(self, address: int, nbytes: int, keep: object) -> memoryview:
        """These bytes, of such a place; the view, and what is made of it, keeps `keep` alive."""

    def address_in(self, place: Place) -> int:
        """Where the place's segment begins."""
