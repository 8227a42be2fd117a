"""Which call goes to which worker: pure, synchronous, every operation O(1).

Calls wait in one line. An idle worker gets the first of them; while more wait than there are
idle workers, a worker whose calls are short is handed a few ahead, so that it never idles for
the length of a round trip. A short call must not wait behind a long one: once a running call
turns out long, or another worker falls idle, the calls behind it are asked back.

A call that only one worker may run is *pinned*: it waits in that worker's own line. When the
worker has time, the older of the two that are first, in its own line and in the common one, is
next. So neither line starves the other, and a long line for one worker holds up nobody elsewhere.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

from snakepit.pool._seat import PREFETCH_MAX, HasId, Phase, Seat

C = TypeVar("C", bound=HasId)

_READY = Phase.READY  # looked up in each call


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
        self._stuck: OrderedDict[Seat[C], None] = OrderedDict()  # the same, none for others
        self._pinned: OrderedDict[int, C] = OrderedDict()  # all that wait for one worker
        self._homeless: OrderedDict[int, C] = OrderedDict()  # those that wait for any to be there
        self._wanted: OrderedDict[Seat[C], None] = OrderedDict()  # idle, with a line of their own
        self._wanted_room: OrderedDict[Seat[C], None] = OrderedDict()  # the same, with room
        self._prefetched = 0

    @property
    def waiting(self) -> int:
        """Calls that no worker has begun."""
        return len(self._queue) + len(self._pinned) + self._prefetched

    @property
    def prefetched(self) -> int:
        """Calls that were sent ahead and have not begun."""
        return self._prefetched

    @property
    def may_recall(self) -> bool:
        """Were calls sent ahead that nobody has asked back yet?"""
        return bool(self._loaded or self._stuck)

    def queued(self) -> list[C]:
        """The calls that wait here: the common line, the next one first, then the pinned ones."""
        return [*self._queue.values(), *self._pinned.values()]

    @property
    def idle(self) -> int:
        """Workers that could begin a call now."""
        return len(self._idle) + len(self._tainted) + len(self._wanted)

    def longest_idle(self) -> Seat[C] | None:
        """Of the workers that could begin a call now the one that had none for longest."""
        return next(iter(self._idle), None)

    def is_full(self) -> bool:
        """Would one more call have to wait, with no place to wait in?"""
        return self._queue_max is not None and not self.idle and self.waiting >= self._queue_max

    def is_full_for(self, seat: Seat[C] | None) -> bool:
        """The same for a call that is pinned there; None: to one that is not there yet."""
        waits = seat is None or seat.phase is not _READY
        return self._queue_max is not None and waits and self.waiting >= self._queue_max

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

    def pin(self, call: C, seat: Seat[C] | None, now: float) -> None:
        """Put the call at the end of this worker's own line; None: keep it until one is there."""
        self._pinned[call.id] = call
        if seat is None:
            self._homeless[call.id] = call
            return
        call.pin = seat
        seat.line[call.id] = call
        if len(seat.line) == 1:
            self.update(seat, now)

    def take_homeless(self) -> list[C]:
        """The calls that wait for any worker to be there; they are to be pinned now."""
        calls = list(self._homeless.values())
        self._homeless.clear()
        for call in calls:
            del self._pinned[call.id]
        return calls

    def abandon(self, seat: Seat[C]) -> list[C]:
        """Empty the own line of a worker that is gone and return what was in it."""
        calls = list(seat.line.values())
        seat.line.clear()
        for call in calls:
            del self._pinned[call.id]
        return calls

    def put_back(self, calls: Iterable[C]) -> None:
        """Put calls that came back unrun at the head of their line, in their order.

        Those who came from one worker; `update` of its seat has to follow.
        """
        for call in reversed(list(calls)):
            line = self._queue
            if call.pin is not None:
                line = call.pin.line
                self._pinned[call.id] = call
            line[call.id] = call
            line.move_to_end(call.id, last=False)

    def withdraw(self, call: C) -> bool:
        """Take the call out of its line; False if it is not in one."""
        if self._queue.pop(call.id, None) is not None:
            return True
        if not self._pinned or self._pinned.pop(call.id, None) is None:
            return False
        if call.pin is None:
            del self._homeless[call.id]
        else:
            del call.pin.line[call.id]
            self._shortened(call.pin)
        return True

    def clear(self) -> list[C]:
        """Empty all lines and return what was in them."""
        calls = self.queued()
        for call in self._pinned.values():
            if call.pin is not None and call.pin.line:
                call.pin.line.clear()
                self._shortened(call.pin)
        for line in (self._queue, self._pinned, self._homeless):
            line.clear()
        return calls

    def _shortened(self, seat: Seat[C]) -> None:
        """Calls have left its own line otherwise than for the worker: with none it is like others."""
        if not seat.line:
            self.update(seat, 0.0)  # a taint that is over by now ends when it is next looked at

    def has_work(self) -> bool:
        """Could `next`, `steal` or `overdue` have anything to say?"""
        return bool(self._queue or self._prefetched or self._pinned)

    def update(self, seat: Seat[C], now: float) -> None:
        """The seat has changed: file it anew. To be called after every change of a seat."""
        shelf = seat.shelf
        if shelf is not None:
            shelf.pop(seat, None)
            shelf = None
        if seat.phase is _READY:
            if seat.line:
                shelf = self._wanted
            elif seat.tainted_until > now:
                shelf = self._tainted
                self._note_taint(seat)
            else:
                shelf = self._idle
        elif self._prefetch and seat.room():
            shelf = self._wanted_room if seat.line else self._room
        seat.shelf = shelf
        if shelf is not None:
            shelf[seat] = None
        if seat.counted or len(seat.calls) > 1:
            self._count(seat)

    def _count(self, seat: Seat[C]) -> None:
        ahead = seat.prefetched_count
        self._prefetched += ahead - seat.counted
        seat.counted = ahead
        loaded = self._loaded
        if not (ahead or self._stuck or seat in loaded):
            return
        loaded.pop(seat, None)
        self._stuck.pop(seat, None)
        if ahead and not seat.recalled:
            stuck = seat.pinned_count and not seat.prefetched_for_others()
            (self._stuck if stuck else loaded)[seat] = None

    def next(self, now: float) -> tuple[Seat[C], C] | None:
        """Lease the first waiting call to the best seat and return both; None if none can go."""
        if self._queue:
            seat = self._pick(now)
            if seat is not None:
                _, call = self._queue.popitem(last=False)
                return self._lease(seat, call, now)
        return self._next_pinned(now) if self._pinned else None

    def fill(self, seat: Seat[C], now: float) -> list[C]:
        """Lease to the seat that `next` has chosen what else it has room for, and return that.

        Only while the common line is long enough for all who have room: then all get theirs anyway.
        """
        queue, calls = self._queue, []
        if len(queue) > PREFETCH_MAX * (1 + len(self._room)) and not (self.idle or seat.line):
            for _ in range(seat.room() if self._prefetch else 0):
                call = next(iter(queue.values()))
                if not call.prefetchable or call.hint is not None:
                    break
                del queue[call.id]
                seat.lease(call, now)
                calls.append(call)
            if calls:
                self.update(seat, now)
        return calls

    def _lease(self, seat: Seat[C], call: C, now: float) -> tuple[Seat[C], C]:
        seat.lease(call, now)
        self.update(seat, now)
        return seat, call

    def _next_pinned(self, now: float) -> tuple[Seat[C], C] | None:
        """For the workers with a line of their own: the first of it, or of the common one.

        The common one has found no other worker. A busy worker that cannot be sent the older one
        ahead is looked at again when its running call ends, so that each look is followed by one.
        """
        while self._wanted or self._wanted_room:
            seat = next(iter(self._wanted or self._wanted_room))
            call = self._older(seat)
            idles = seat.phase is _READY
            if idles or (call.prefetchable and not seat.is_overdue(now)):
                line = seat.line if call.pin is seat else self._queue
                del line[call.id]
                self._pinned.pop(call.id, None)
                return self._lease(seat, call, now)
            del self._wanted_room[seat]
        return None

    def _older(self, seat: Seat[C]) -> C:
        """The older of the first call in the seat's own line and the first one in the common line."""
        own = next(iter(seat.line.values()))
        common = next(iter(self._queue.values()), own)
        return own if own.id <= common.id else common

    def steal(self) -> tuple[Seat[C], tuple[int, ...]] | None:
        """With an idle worker and nobody in the common line: whose prefetched calls to ask back."""
        if self._queue or not self.idle or not self._loaded:
            return None
        seat = next(iter(self._loaded))
        return seat, self._recall(seat, for_others=True)

    def overdue(self, now: float) -> list[tuple[Seat[C], tuple[int, ...]]]:
        """Whose prefetched calls to ask back because the running one turned out long."""
        loaded = (*self._loaded, *self._stuck)
        late = [seat for seat in loaded if seat.is_overdue(now)]
        return [(seat, self._recall(seat)) for seat in late]

    def _recall(self, seat: Seat[C], *, for_others: bool = False) -> tuple[int, ...]:
        ids = seat.recall(for_others=for_others)
        for shelf in (self._loaded, self._stuck, self._room, self._wanted_room):
            shelf.pop(seat, None)
        return ids

    def _note_taint(self, seat: Seat[C]) -> None:
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
        call = next(iter(self._queue.values()))
        hint = call.hint
        if hint is not None and (hint in self._idle or hint in self._tainted):
            return hint
        if self._idle:
            return next(reversed(self._idle))  # the one used last: its caches are warm
        if self._tainted:
            return next(iter(self._tainted))
        # A call that may take long to decode, or streams, waits for an idle worker.
        if call.prefetchable:
            if hint is not None and hint in self._room and not hint.is_overdue(now):
                return hint
            while self._room:
                seat = next(iter(self._room))
                if not seat.is_overdue(now):
                    return seat
                del self._room[seat]  # its call turned out long; filed again when that ends
        return None
