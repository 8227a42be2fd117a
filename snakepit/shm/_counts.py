"""What a worker makes of its share of the memory: six numbers behind the ledgers, for the host's statistics.

The worker stores them as it sends something large, and as it gives up what idles; the host reads them
when it is asked. They are for people to look at, and nothing depends on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from snakepit.shm._heap import Heap

COUNTS: Final = 6
COUNTS_BYTES: Final = COUNTS * 8

Counts: TypeAlias = tuple[int, ...]  # used and idle bytes, references, copies, copied bytes, gifts


def store_counts(into: memoryview, heap: Heap) -> None:
    """Write them down."""
    arena = heap.arena
    into[0], into[1] = arena.used_bytes, heap.idle_bytes
    into[2], into[3], into[4] = heap.references, heap.copies, heap.copied_bytes
    into[5] = heap.donations
