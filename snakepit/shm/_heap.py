"""The shared memory of one process: its own arena, and every segment that it knows by address.

A host has one for each pool, used by all its links; a worker has one. Threads may share it: what
takes long, making a segment or copying into it, is done outside of its lock.
"""

from __future__ import annotations

import gc
import os
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from snakepit.protocol import Place
from snakepit.shm import _segments
from snakepit.shm._arena import Arena
from snakepit.shm._holds import Block, Hold, Where
from snakepit.shm._memory import view_of
from snakepit.shm._segments import Segment

if TYPE_CHECKING:
    from snakepit.shm._endpoint import Endpoint
    from snakepit.shm._memory import Mapping

# Between two full garbage collections for want of memory; nothing else runs meanwhile, so those that
# take long, as among millions of objects, take no more than this share of the time.
COLLECT_INTERVAL_S: Final = 1.0
COLLECT_SHARE: Final = 0.05
IDLE_TRIM_S: Final = 10.0


class Heap:
    """Blocks to lend, and which segment an address lies in."""

    def __init__(
        self, budget: int, make: Callable[[int], tuple[int, Mapping]] = _segments.create
    ) -> None:
        self.lock: AbstractContextManager[Any] = RLock()  # never held while anything is waited for
        self.arena: Arena = Arena(budget)
        self.endpoints: set[Endpoint] = set()
        self.references: int = 0  # buffers that travelled as references
        self.copies: int = 0  # of these, how many had to be copied into a segment, and their bytes
        self.copied_bytes: int = 0
        self.donations: int = 0  # buffers that found no room and were given away
        self.freed_blocks: int = 0
        self.has_warned: bool = False
        self._make = make
        self._own: dict[int, Segment] = {}
        self._known: list[tuple[int, int]] = []  # addresses and numbers, in order
        self._by_number: dict[int, Segment] = {}
        self._freed: deque[Where] = deque()
        self._orphans: list[Segment] = []  # in use, though the peer that made them is gone
        self._numbers = 0
        self._collect_from = 0.0
        self._closed = False
        self._pid = os.getpid()

    # -- blocks --------------------------------------------------------------------------------

    def take(self, nbytes: int) -> Block | None:
        """A block, in a segment that is made if need be; None: the budget is spent, or the memory.

        It may take long: 0.2 ms for each MiB that is made.
        """
        block = self.take_warm(nbytes)
        if block is not None or os.getpid() != self._pid:
            return block
        size = self._plan(nbytes)
        if size is None:
            return None
        try:
            fd, mapping = self._make(size)
        except OSError:
            with self.lock:
                self.arena.abandon(size)
            return None
        with self.lock:
            if self._closed:
                self.arena.abandon(size)
                os.close(fd)
                return None
            segment = self._enter(fd, mapping)
            self._own[segment.number] = segment
            return self._block(segment, self.arena.add(segment.number, size, nbytes), nbytes)

    def take_warm(self, nbytes: int) -> Block | None:
        """A block in a segment that is there already, else None. Quick."""
        if os.getpid() != self._pid:
            return None  # in a forked child, where the lock may be held for ever
        with self.lock:
            if self._closed:
                return None
            self._reclaim()
            place = self.arena.find(nbytes)
            if place is None:
                return None
            return self._block(self._own[place[0]], place[1], nbytes)

    def trim(self, bytes_wanted: int = 2**63, *, idle_s: float = 0.0) -> None:
        """Give segments back that have been idle for so long; `speak` should follow."""
        with self.lock:
            self._reclaim()
            before = time.monotonic() - idle_s
            dropped = [self._own.pop(n) for n in self.arena.trim(bytes_wanted, before)]
            for segment in dropped:
                self._leave(segment)
        self._tell(dropped)

    @property
    def idle_bytes(self) -> int:
        """Kept for reuse."""
        return self.arena.total_bytes - self.arena.used_bytes

    @property
    def lease_count(self) -> int:
        """Messages whose memory peers still look at."""
        return sum(len(endpoint.leases) for endpoint in list(self.endpoints))

    @property
    def oldest_lease_s(self) -> float | None:
        """How long ago the oldest of them was sent."""
        with self.lock:
            granted = [endpoint.leases.oldest_since for endpoint in self.endpoints]
        known = [since for since in granted if since is not None]
        return time.monotonic() - min(known) if known else None

    def reclaim(self) -> None:
        """Take in what peers and views have let go of."""
        if os.getpid() == self._pid:
            with self.lock:
                self._reclaim()

    @property
    def has_news(self) -> bool:
        """Has `speak` something to tell?"""
        return os.getpid() == self._pid and any(one.has_news for one in list(self.endpoints))

    def speak(self) -> None:
        """Tell peers of the segments that are gone; where messages to them may be sent."""
        for endpoint in list(self.endpoints):
            endpoint.speak()

    def close(self) -> None:
        """Give everything back; views that are alive keep what they show. Idempotent."""
        with self.lock:
            self._closed = True
            for segment in list(self._own.values()):
                self._leave(segment)
            self._own.clear()
            self._orphans.clear()

    def _plan(self, nbytes: int) -> int | None:
        with self.lock:
            size = self.arena.plan(nbytes)
        if size is None and nbytes <= self.arena.budget:
            self.trim(nbytes + nbytes // 8)
            with self.lock:
                size = self.arena.plan(nbytes)
            start = time.monotonic()
            if size is None and start >= self._collect_from:
                gc.collect()  # views in cycles
                end = time.monotonic()
                pause = max(COLLECT_INTERVAL_S, (end - start) / COLLECT_SHARE)
                self._collect_from = end + pause
                self.trim(nbytes + nbytes // 8)
                with self.lock:
                    size = self.arena.plan(nbytes)
        return size

    def _reclaim(self) -> None:
        for endpoint in self.endpoints:
            endpoint.leases.collect()
        now = time.monotonic()
        freed = self._freed
        while freed:
            number, offset = freed.popleft()
            if number in self._own:
                self.arena.give_back(number, offset, now)
                self.freed_blocks += 1
        if self._orphans:
            self._tell([segment for segment in self._orphans if not segment.holds])
            self._orphans = [segment for segment in self._orphans if segment.holds]

    def _block(self, segment: Segment, offset: int, nbytes: int) -> Block:
        return Block(segment, offset, nbytes, self._freed)

    # -- segments ------------------------------------------------------------------------------

    def find(self, address: int, nbytes: int) -> Segment | None:
        """The segment that all of these bytes lie in."""
        with self.lock:
            position = bisect_right(self._known, (address, 2**63)) - 1
            if position < 0:
                return None
            start, number = self._known[position]
            segment = self._by_number[number]
            return segment if address + nbytes <= start + segment.size else None

    def place_of(self, address: int, nbytes: int) -> Hold | None:
        """What keeps all of these bytes in use; None: they lie in no segment."""
        segment = self.find(address, nbytes)
        return (
            None if segment is None else segment.hold_of(address - segment.mapping.address, nbytes)
        )

    def view(self, address: int, nbytes: int, keep: object) -> memoryview:
        """These bytes; the view keeps `keep` alive."""
        return view_of(address, nbytes, keep)

    def address_in(self, place: Place) -> int:
        """Where the segment of the place begins."""
        begins: int = place.segment.mapping.address
        return begins

    def enter(self, fd: int, mapping: Mapping) -> Segment:
        """Know a segment that a peer has shown."""
        with self.lock:
            return self._enter(fd, mapping)

    def leave(self, segment: Segment) -> None:
        """Know it no more; whom it was shown need not either, as `speak` will tell."""
        with self.lock:
            self._leave(segment)
        self._tell([segment])

    def orphan(self, segment: Segment) -> None:
        """Know it no more, as its peer is gone. Others need not either, once nobody looks at it."""
        with self.lock:
            self._leave(segment)
            if not self._closed:
                self._orphans.append(segment)
                self._reclaim()

    def _enter(self, fd: int, mapping: Mapping) -> Segment:
        self._numbers += 1
        segment = Segment(fd, mapping, self._numbers)
        self._by_number[segment.number] = segment
        insort(self._known, (mapping.address, segment.number))
        return segment

    def _leave(self, segment: Segment) -> None:
        if self._by_number.pop(segment.number, None) is not None:
            self._known.remove((segment.mapping.address, segment.number))
            segment.close_fd()

    def _tell(self, dropped: list[Segment]) -> None:
        for endpoint in list(self.endpoints):
            endpoint.forget([segment for segment in dropped if segment.owner is not endpoint])
