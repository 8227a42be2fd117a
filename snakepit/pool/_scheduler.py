"""Which call goes to which worker: pure, synchronous, every operation O(1).

Calls wait in one line. An idle worker gets the first of them; while more wait than there are
idle workers, a worker whose calls are short is handed a few ahead, so that it never idles for
the length of a round trip. A short call must not wait behind a long one: once a running call
turns out long, or another worker falls idle, the calls behind it are asked back.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

from snakepit.pool._seat import OVERDUE_S, HasId, Phase, Seat

C = TypeVar("C", bound=HasId)


class Scheduler(Generic[C]):
    """The line of waiting calls and the workers that may serve them.

    `queue_max`: how many calls may wait (prefetched ones count as waiting); None: no bound.
    """

    def __init__(self, *, queue_max: int | None = None, prefetch: bool = True) -> None:
        self._queue_max = queue_max
        self._prefetch = prefetch
        self._queue: OrderedDict[int, C] = OrderedDict()
        self._idle: OrderedDict[Seat[C], None] = OrderedDict()
        self._tainted: OrderedDict[Seat[C], None] = OrderedDict()
        self._taint_ends: list[tuple[float, int, Seat[C]]] = []  # a heap, each seat once
        self._taint_known: set[Seat[C]] = set()
        self._order = itertools.count()
        self._room: OrderedDict[Seat[C], None] = OrderedDict()
        self._loaded: OrderedDict[Seat[C], None] = OrderedDict()  # have calls to ask back
        self._prefetched = 0

    @property
    def waiting(self) -> int:
        """Calls that no worker has begun."""
        return len(self._queue) + self._prefetched

    @property
    def prefetched(self) -> int:
        """Calls that were sent ahead and have not begun."""
        return self._prefetched

    @property
    def may_recall(self) -> bool:
        """Were calls sent ahead that nobody has asked back yet?"""
        return bool(self._loaded)

    def queued(self) -> list[C]:
        """The calls in line, the next one first."""
        return list(self._queue.values())

    @property
    def idle(self) -> int:
        """Workers that could begin a call now."""
        return len(self._idle) + len(self._tainted)

    def is_full(self) -> bool:
        """Would one more call have to wait, with no place to wait in?"""
        return self._queue_max is not None and not self.idle and self.waiting >= self._queue_max

    def submit(self, call: C) -> bool:
        """Put the call at the end of the line; True if it is the first one there."""
        first = not self._queue
        self._queue[call.id] = call
        return first

    def lease_idle(self, call: C, now: float) -> Seat[C] | None:
        """Lease the call where a worker idles and nobody is in line, else None: then `submit`."""
        if self._queue or not self._idle or self._taint_ends:
            return None
        seat = next(reversed(self._idle))  # as `_pick` would
        seat.lease(call, now)
        self.update(seat, now)
        return seat

    def put_back(self, calls: Iterable[C]) -> None:
        """Put calls that came back unrun at the head of the line, in their order."""
        for call in reversed(list(calls)):
            self._queue[call.id] = call
            self._queue.move_to_end(call.id, last=False)

    def withdraw(self, call: C) -> bool:
        """Take the call out of the line; False if it is not in it."""
        return self._queue.pop(call.id, None) is not None

    def clear(self) -> list[C]:
        """Empty the line and return what was in it."""
        calls = list(self._queue.values())
        self._queue.clear()
        return calls

    def has_work(self) -> bool:
        """Could `next`, `steal` or `overdue` have anything to say?"""
        return bool(self._queue or self._prefetched)

    def update(self, seat: Seat[C], now: float) -> None:
        """The seat has changed: file it anew. To be called after every change of a seat."""
        if seat.shelf is not None:
            seat.shelf.pop(seat, None)
            seat.shelf = None
        phase = seat.phase
        if phase is Phase.READY:
            if seat.tainted_until > now:
                self._file_tainted(seat)
            else:
                self._idle[seat] = None
                seat.shelf = self._idle
        elif self._prefetch and seat.has_room():
            self._room[seat] = None
            seat.shelf = self._room
        if seat.counted or len(seat.calls) > 1:
            self._count(seat)

    def _count(self, seat: Seat[C]) -> None:
        self._loaded.pop(seat, None)
        ahead = seat.prefetched_count
        self._prefetched += ahead - seat.counted
        seat.counted = ahead
        if ahead and not seat.recalled:
            self._loaded[seat] = None

    def next(self, now: float) -> tuple[Seat[C], C] | None:
        """Lease the first waiting call to the best seat and return both; None if none can go."""
        if not self._queue:
            return None
        seat = self._pick(now)
        if seat is None:
            return None
        _, call = self._queue.popitem(last=False)
        seat.lease(call, now)
        self.update(seat, now)
        return seat, call

    def steal(self) -> tuple[Seat[C], tuple[int, ...]] | None:
        """With an idle worker and nobody in line: whose prefetched calls to ask back."""
        if self._queue or not self.idle or not self._loaded:
            return None
        seat = next(iter(self._loaded))
        return seat, self._recall(seat)

    def overdue(self, now: float) -> list[tuple[Seat[C], tuple[int, ...]]]:
        """Whose prefetched calls to ask back because the running one turned out long."""
        late = [seat for seat in self._loaded if now - seat.head_since >= OVERDUE_S]
        return [(seat, self._recall(seat)) for seat in late]

    def _recall(self, seat: Seat[C]) -> tuple[int, ...]:
        ids = seat.recall()
        for shelf in (self._loaded, self._room):
            shelf.pop(seat, None)
        return ids

    def _file_tainted(self, seat: Seat[C]) -> None:
        self._tainted[seat] = None
        seat.shelf = self._tainted
        if seat not in self._taint_known:
            self._taint_known.add(seat)
            heapq.heappush(self._taint_ends, (seat.tainted_until, next(self._order), seat))

    def _end_taints(self, now: float) -> None:
        while self._taint_ends and self._taint_ends[0][0] <= now:
            seat = heapq.heappop(self._taint_ends)[2]
            self._taint_known.remove(seat)
            if seat in self._tainted:
                del self._tainted[seat]
                self._idle[seat] = None
                seat.shelf = self._idle
                self._idle.move_to_end(seat, last=False)  # no call has warmed it lately

    def _pick(self, now: float) -> Seat[C] | None:
        if self._taint_ends:
            self._end_taints(now)
        if self._idle:
            return next(reversed(self._idle))  # the one used last: its caches are warm
        if self._tainted:
            return next(iter(self._tainted))
        # A call that may take long to decode, or streams, waits for an idle worker.
        if next(iter(self._queue.values())).prefetchable:
            while self._room:
                seat = next(iter(self._room))
                if now - seat.head_since < OVERDUE_S:
                    return seat
                del self._room[seat]  # its call turned out long; filed again when that ends
        return None
