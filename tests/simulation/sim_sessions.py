"""The book of all sessions of a run: where their calls were sent, what they found, how they ended.

A tool leaves in the state of its session which calls have run there. As workers in memory share
this process, the state can hold the very session it is of, and whether a tool finds what it ought
to find can be said to the last call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import trio

from snakepit import context
from snakepit.pool._call import PendingCall
from snakepit.pool._core import PoolCore
from snakepit.pool._sessions import SessionRecord

EPSILON_S = 1e-6


class Book:
    """One session. Calls bear the pool's own numbers here."""

    def __init__(self, record: SessionRecord) -> None:
        self.record = record
        self.sends: list[tuple[int, str]] = []  # calls, each with the worker it was sent to
        self.begun: set[tuple[int, str]] = set()
        self.used_at = trio.current_time()
        self.ended = 0  # how often

    def is_home(self, worker: str) -> bool:
        return any(where == worker for _, where in self.sends)

    def found_by(self, call: int, worker: str) -> list[int]:
        """The calls before this one that ran there since the session came there for the last time."""
        last = max(at for at, send in enumerate(self.sends) if send == (call, worker))
        before: dict[int, None] = {}
        for other, where in reversed(self.sends[:last]):
            if where != worker:
                break
            if (other, worker) in self.begun:
                before[other] = None
        return list(reversed(before))


class Ledger:
    """The books of all of them."""

    def __init__(self) -> None:
        self.books: dict[SessionRecord, Book] = {}
        self.of_call: dict[int, Book] = {}
        self.wrong: list[str] = []

    def named(self, session_id: str) -> list[Book]:
        return [book for record, book in self.books.items() if record.id == session_id]

    # -- what the pool does ----------------------------------------------------------------------

    def knows(self, record: SessionRecord) -> Book:
        if record not in self.books:
            self.books[record] = Book(record)
        return self.books[record]

    def begin(self, call: PendingCall, record: SessionRecord) -> None:
        book = self.of_call[call.id] = self.knows(record)
        book.used_at = trio.current_time()
        if book.ended:
            self.wrong.append(f"session {record.id!r} takes a call after its end")

    def sent(self, call: PendingCall, worker: str) -> None:
        self.of_call[call.id].sends.append((call.id, worker))

    def used(self, record: SessionRecord) -> None:
        self.knows(record).used_at = trio.current_time()

    def end(self, record: SessionRecord) -> None:
        book = self.knows(record)
        book.ended += 1
        if record.over.startswith("was not used"):
            idle = trio.current_time() - book.used_at
            if record.ttl_s is None or idle < record.ttl_s - EPSILON_S:
                self.wrong.append(f"session {record.id!r} {record.over}, but it was {idle:g} s ago")

    # -- what its tools see ------------------------------------------------------------------------

    def begins(self, worker: str, session: str | None) -> Iterator[str]:
        """A tool begins, in a call that was made in this session: what is wrong with what it finds."""
        here = context()
        state = here.session
        if here.session_id != session:
            yield f"was made in session {session!r} and runs in {here.session_id!r}"
            return
        if session is None:
            if state:
                yield f"is in no session and finds {state}"
            state["calls"] = [here.call_id]
            return
        book = self.of_call[here.call_id]
        if state.setdefault("of", book) is not book:
            yield f"finds the state of another session {state['of'].record.id!r}"
        found, expected = state.setdefault("calls", []), book.found_by(here.call_id, worker)
        if found != expected:
            yield f"finds that {found} ran before it in {session!r}, not {expected}"
        found.append(here.call_id)
        book.begun.add((here.call_id, worker))
        homes = {where for _, where in book.begun}
        if book.record.strict and len(homes) > 1:
            yield f"is one of a strict session that ran on {sorted(homes)}"
        if book.record.strict and found != sorted(found):
            yield f"runs out of its turn in {session!r}: {found}"


def of_sessions(ledger: Ledger, core: PoolCore) -> Iterator[str]:
    """What is wrong with the sessions when the pool is closed."""
    yield from ledger.wrong
    table, scheduler = core.sessions, core.scheduler
    for book in ledger.books.values():
        record, name = book.record, f"session {book.record.id!r}"
        if record.calls or record.streams:
            yield f"{name} still has {len(record.calls)} calls and {record.streams} streams"
        if record.held and book.ended != 1:
            yield f"{name} was ended {book.ended} times by its block"
        if book.ended and (record.seat is not None or record.alarm is not None):
            yield f"{name} has ended, and yet has a worker or an alarm"
        if table._live.get(record.id) is record and (book.ended or record.held):
            yield f"{name} has ended and is open"
    left: dict[str, Any] = {
        "homes": len(table._homes._counts),
        "at": [seat.name for seat in table._at],
        "pinned": len(scheduler._pinned),
        "homeless": len(scheduler._homeless),
        "wanted": len(scheduler._wanted) + len(scheduler._wanted_room),
        "stuck": len(scheduler._stuck),
        "lines": [slot.worker.id for slot in core.slots if slot.worker.seat.line],
    }
    if any(left.values()):
        yield f"left of sessions: {left}"


def of_kept_states(workers: dict[str, Any], core: PoolCore) -> Iterator[str]:
    """While the pool is quiet: a worker keeps the state of those sessions alone that live there."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for record in core.sessions._live.values():
        if record.seat is not None:
            homes[record.seat.name].add(record.id)
    for slot in core.slots:
        worker = workers.get(slot.worker.id)
        if worker is None or worker._lane is None or not slot.is_ready:
            continue
        kept = set(worker._lane._execution.sessions._states)
        if not kept <= homes[slot.worker.id]:
            yield f"{slot.worker.id} keeps {sorted(kept - homes[slot.worker.id])} for nobody"
        if core.sessions.count_at(slot.worker.seat) != len(homes[slot.worker.id]):
            yield f"{slot.worker.id} counts {core.sessions.count_at(slot.worker.seat)} sessions"


def untruth_of_session(
    core: PoolCore, ledger: Ledger, session: str | None, error: Any, *, ran: bool
) -> str | None:
    """Why this error of a call in a session cannot be true, or None."""
    if session is None or error.session_id != session:
        return "it was not in that session"
    books = ledger.named(session)
    match type(error).__name__:
        case "SessionLostError":
            if ran:
                return "it ran"
            if not any(b.record.strict and b.is_home(error.worker_id) for b in books):
                return "no strict session lived there"
        case "SessionBusyError":
            affinities = {core.settings.sessions.affinity, *(b.record.affinity for b in books)}
            if ran or ("strict_fail_fast" not in affinities and "ended" not in error.reason):
                return "its calls may wait"
        case "SessionNotFoundError":
            if not any(b.record.over for b in books):
                return "it is open"
    return None
