"""On whose behalf a call is made: the chain of calls that cannot end before it has.

A host tool that makes a call works for the call that has asked for it, in whatever pool. The block of
an open stream works for nobody, but its worker may have to wait for the block: once the window is
full, and the task that should read waits for another call. Both are links of a chain in a context
variable. A link is broken when the host tool has returned, or the block is left: what
was started there and goes on is waited for by nobody.

So a call that would have to wait can be asked whether it could only wait for itself. Those made by
host tools are refused at once. A full window may still turn out to be the stream's end, so a call in a
stream's block is ended when that has not moved for `STALL_S`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias

from snakepit.errors import ReentrancyError
from snakepit.pool._reentrancy import could_be_served
from snakepit.pool._seat import Phase, Seat

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore
    from snakepit.pool._sessions import SessionRecord

    Place: TypeAlias = PoolCore | Seat[PendingCall]

STALL_S: Final = 0.02


class Link:
    """Calls made here are made for `call`, or, where `is_stream`, while that waits for its reader."""

    __slots__ = ("above", "call", "is_broken", "is_stream", "pool", "title")

    def __init__(
        self, core: PoolCore, call: PendingCall, title: str = "", *, is_stream: bool = False
    ) -> None:
        self.call: PendingCall = call
        self.title: str = title
        self.is_stream: bool = is_stream
        self.pool: str = core.settings.name
        self.above: Link | None = link.get() if is_stream else call.link
        self.is_broken: bool = False


link: ContextVar[Link | None] = ContextVar("snakepit_ancestry", default=None)


class OpenStream:
    """`with OpenStream(core, call):` around the block of a stream."""

    def __init__(self, core: PoolCore, call: PendingCall) -> None:
        call.core = core
        reads_now(call)
        self._link = Link(core, call, is_stream=True)

    def __enter__(self) -> None:
        link.set(self._link)

    def __exit__(self, *_: object) -> None:
        self._link.is_broken = True
        if link.get() is self._link:  # else it is left in another order, or in another context
            link.set(self._link.above)


def reads_now(stream: PendingCall) -> None:
    """Note that it is this task that reads; done now and then."""
    if stream.core is not None:
        stream.reader = stream.core.loop.current_task()


def waiting_for(above: Link | None, task: object, *, stalled: bool) -> Iterator[PendingCall]:
    """The calls that cannot end before one that is made by this task, the nearest first.

    `stalled`: count streams whose window is full, and which this task should read.
    """
    while above is not None:
        call = above.call
        if not above.is_stream:
            if above.is_broken:
                return
            yield call
            task = call.task
        elif stalled and not above.is_broken and call.credit <= 0 and call.reader is task:
            yield call
        above = above.above


def join(core: PoolCore, call: PendingCall, above: Link) -> None:
    """Note for whom the call is made."""
    call.link, call.core, call.task = above, core, core.loop.current_task()
    call.prefetchable = False  # behind one of those that wait for it, it would wait for nothing
    core.has_nested = True
    for one in _all(above):
        if one.call.below is None:
            one.call.below = {}
        one.call.below[call] = None


def leave(call: PendingCall) -> None:
    """The call has settled."""
    for one in _all(call.link):
        if one.call.below is not None:
            one.call.below.pop(call, None)


def choose_place(
    core: PoolCore,
    place: tuple[SessionRecord, Seat[PendingCall] | None] | None,
    above: Link,
    tool: str,
    *,
    awaited: bool,
) -> tuple[SessionRecord, Seat[PendingCall] | None] | None:
    """Where a call of this chain is to wait, if it must. Raises ReentrancyError: it could only wait for itself."""
    ancestors = set(waiting_for(above, core.loop.current_task(), stalled=False))
    if not ancestors:
        return place
    at: Place = core
    if place is not None and place[0].strict and place[1] is not None:
        at = place[1]
    if _could_wait(at, ancestors, stalled=False):
        return place
    if place is not None and at is not core and place[0].seat is None:
        # The session has no home yet: any worker will do that could come free.
        for slot in core.slots:
            seat = slot.worker.seat
            serves = seat.phase in (Phase.READY, Phase.LEASED)
            if serves and _could_wait(seat, ancestors, stalled=False):
                return place[0], seat
    if not awaited:
        return place
    core.saturated += 1
    raise _error(core, tool, above, core.loop.current_task(), stalled=False)


def watch(core: PoolCore, call: PendingCall) -> None:
    """A call waits: look again whether it may, in case a stream does not move."""
    above = call.link
    while above is not None:
        if above.is_stream and not above.is_broken:
            core.deadlines.at(core.now() + STALL_S, lambda: recheck(call))
            return
        above = above.above


def stalled(core: PoolCore, stream: PendingCall) -> None:
    """The window of a stream is full, and calls wait that were made in its block."""
    core.deadlines.at(core.now() + STALL_S, lambda: recheck_all(stream.below or ()))


def recheck_all(calls: Iterable[PendingCall]) -> None:
    """Have another look at these, the newest first: one that ends may let the others go on."""
    for call in sorted(calls, key=lambda call: call.id, reverse=True):
        recheck(call)


def recheck(call: PendingCall) -> None:
    """End the call if it waits and could only wait for itself."""
    core = call.core
    if core is None or not _waits(call):
        return
    ancestors = set(waiting_for(call.link, call.task, stalled=True))
    if ancestors and not _could_wait(_place_of(call), ancestors, stalled=True):
        core.saturated += 1
        core.give_up(call, _error(core, call.tool, call.link, call.task, stalled=True))


def _could_wait(place: Place, ancestors: set[PendingCall], *, stalled: bool) -> bool:
    def waits_at(holder: PendingCall) -> Iterator[Place]:
        for call in tuple(holder.below or ()):
            if _waits(call) and holder in waiting_for(call.link, call.task, stalled=stalled):
                yield _place_of(call)

    return could_be_served(place, ancestors, _holders, waits_at)


def _holders(place: Place) -> Iterator[PendingCall | None]:
    if isinstance(place, Seat):
        yield _holder(place)
    else:
        for slot in place.slots:
            if not slot.given_up:
                yield _holder(slot.worker.seat)


def _holder(seat: Seat[PendingCall]) -> PendingCall | None:
    """Who keeps the worker from taking a call; None: nobody, or one that is about to end."""
    if seat.phase is not Phase.LEASED:
        return None
    call = next(iter(seat.calls.values()))
    return None if call.settled or call.given_up else call


def _waits(call: PendingCall) -> bool:
    """Does somebody wait for the call, and it for a worker?"""
    return (
        call.worker is None
        and not call.settled
        and not call.given_up
        and (not call.window or call.awaited)
    )


def _place_of(call: PendingCall) -> Place:
    assert call.core is not None
    return call.core if call.pin is None else call.pin


def _all(above: Link | None) -> Iterator[Link]:
    while above is not None:
        yield above
        above = above.above


def _error(
    core: PoolCore, tool: str, above: Link | None, task: object, *, stalled: bool
) -> ReentrancyError:
    waiting = set(waiting_for(above, task, stalled=stalled))
    chain = [f"{tool!r} (pool {core.settings.name!r})"]
    for one in _all(above):
        if one.call in waiting:
            if one.title:
                chain.append(one.title)
            kind = "stream of " if one.is_stream else ""
            chain.append(f"{kind}{one.call.tool!r} (pool {one.pool!r})")
    return ReentrancyError(
        f"the call of {tool!r} could only wait for itself, and did not run",
        tuple(reversed(chain)),
    )
