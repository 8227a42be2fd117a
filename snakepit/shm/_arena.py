"""The arena: which part of which segment is free. Pure bookkeeping, no memory is touched here.

Making a segment costs ten times what filling a warm one does, so segments are kept and reused,
the last one freed first. A large block has a segment of its own, from size classes an eighth of a
power of two apart; smaller ones are cut out of slabs, first fit. What is in use and what is
kept for reuse is together never more than the budget.

Making one takes time, so it is done outside of here: `plan` says what to make and sets the bytes
aside, `add` takes it in, `abandon` gives the bytes back.
"""

from __future__ import annotations

from typing import Final

SLAB_BYTES_MAX: Final = 16 * 2**20
SLABS_MIN: Final = 8  # that the budget has room for
BLOCKS_MIN: Final = 4  # in a slab; a larger block has a segment of its own
ALIGNMENT: Final = 4096


def class_of(nbytes: int) -> int:
    """The size of the segment that a large block gets: at most an eighth more, whole pages."""
    step = max(ALIGNMENT, 1 << max(0, nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


def rounded(nbytes: int) -> int:
    """The size of a block in a slab."""
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


class Slots:
    """The free parts of one segment, as (offset, size), in order and never touching each other."""

    __slots__ = ("free", "idle_since", "size", "used")

    def __init__(self, size: int) -> None:
        self.size = size
        self.free: list[tuple[int, int]] = [(0, size)]
        self.used: dict[int, int] = {}
        self.idle_since = 0.0

    def take(self, size: int) -> int | None:
        """The first part that is large enough."""
        for position, (offset, free) in enumerate(self.free):
            if free >= size:
                rest = [(offset + size, free - size)] if free > size else []
                self.free[position : position + 1] = rest
                self.used[offset] = size
                return offset
        return None

    def give_back(self, offset: int) -> int:
        """Free the block there, and join it with its free neighbours; its size."""
        size = self.used.pop(offset)
        free = self.free
        position = next((i for i, part in enumerate(free) if part[0] > offset), len(free))
        free.insert(position, (offset, size))
        for left in (position, position - 1):
            if 0 <= left < len(free) - 1 and sum(free[left]) == free[left + 1][0]:
                free[left : left + 2] = [(free[left][0], free[left][1] + free[left + 1][1])]
        return size


class Arena:
    """Blocks of segments. The numbers of the segments are the caller's."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.slab_bytes: int = rounded(min(SLAB_BYTES_MAX, budget // SLABS_MIN))
        self.slab_block_max: int = self.slab_bytes // BLOCKS_MIN
        self.segments: dict[int, Slots] = {}
        self.used_bytes: int = 0  # in blocks
        self.total_bytes: int = 0  # in segments, made or about to be
        self._slabs: list[int] = []
        self._idle: dict[
            int, list[int]
        ] = {}  # by size, segments of one block; the last was freed last

    def find(self, nbytes: int) -> tuple[int, int] | None:
        """A block in a segment that is there, as its number and offset."""
        size = rounded(nbytes)
        if size > self.slab_block_max:
            size = class_of(nbytes)
            idle = self._idle.get(size)
            if not idle:
                return None
            number = idle.pop()
            return number, self._take(number, size)
        for number in self._slabs:
            offset = self.segments[number].take(size)
            if offset is not None:
                self.used_bytes += size
                return number, offset
        return None

    def plan(self, nbytes: int) -> int | None:
        """How large a segment must be made for the block; None: that would be over the budget."""
        size = self.slab_bytes if rounded(nbytes) <= self.slab_block_max else class_of(nbytes)
        if self.total_bytes + size > self.budget:
            return None
        self.total_bytes += size
        return size

    def abandon(self, size: int) -> None:
        """What was planned could not be made."""
        self.total_bytes -= size

    def add(self, number: int, size: int, nbytes: int) -> int:
        """Take in the segment that was planned for the block; where in it the block is."""
        self.segments[number] = Slots(size)
        if rounded(nbytes) <= self.slab_block_max:
            self._slabs.append(number)
            return self._take(number, rounded(nbytes))
        return self._take(number, size)

    def give_back(self, number: int, offset: int, now: float) -> None:
        """The block is not used any more."""
        slots = self.segments[number]
        self.used_bytes -= slots.give_back(offset)
        if not slots.used:
            slots.idle_since = now
            if number not in self._slabs:
                self._idle.setdefault(slots.size, []).append(number)

    def trim(self, bytes_wanted: int, idle_before: float = float("inf")) -> list[int]:
        """Give up idle segments, the longest idle first, until so many bytes are freed."""
        idle = [
            (slots.idle_since, number)
            for number, slots in self.segments.items()
            if not slots.used and slots.idle_since <= idle_before
        ]
        dropped: list[int] = []
        for _, number in sorted(idle):
            if bytes_wanted <= 0:
                break
            size = self.segments.pop(number).size
            self.total_bytes -= size
            bytes_wanted -= size
            if number in self._slabs:
                self._slabs.remove(number)
            else:
                self._idle[size].remove(number)
            dropped.append(number)
        return dropped

    def _take(self, number: int, size: int) -> int:
        offset = self.segments[number].take(size)
        assert offset is not None
        self.used_bytes += size
        return offset
