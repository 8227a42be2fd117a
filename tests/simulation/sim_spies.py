"""Spies in the pool's core: they note what it does. The tests of nothing else see them.

Workers start by the hundred thousand here, all with the same tools: those are described once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import trio
from sim_world import World

from snakepit import CallQuarantinedError, PoolSaturatedError
from snakepit.launchers._in_process import InProcessWorker
from snakepit.pool._core import PoolCore
from snakepit.pool._sessions import SessionRecord, SessionTable
from snakepit.pool._worker import Worker
from snakepit.transports._memory import MemoryLink
from snakepit.worker import _toolbox
from snakepit.worker._annotations import Signature

# Which call of the plan the task is making.
making: ContextVar[int] = ContextVar("making")

Spy = Callable[..., Any]


@contextmanager
def spying(world: World) -> Generator[None]:
    """Spy for this world, in this block."""
    with (
        replaced(PoolCore, on_core(world)),
        replaced(Worker, on_worker(world)),
        replaced(SessionTable, on_sessions(world)),
        replaced(_toolbox, {"signature_of": signature_of, "schema_of": schema_of}),
    ):
        make = InProcessWorker.__init__

        def made(self: InProcessWorker, link: MemoryLink, adapter: Any, worker_id: str) -> None:
            world.worker_ids[link.ordinal] = worker_id
            world.workers[worker_id] = self
            make(self, link, adapter, worker_id)

        with replaced(InProcessWorker, {"__init__": made}):
            yield


_signatures: dict[Any, Signature] = {}
_schemas: dict[int, dict[str, Any]] = {}  # by the id of a signature, all of which live on
_find_signature, _find_schema = _toolbox.signature_of, _toolbox.schema_of


def signature_of(call: Any) -> Signature:
    function = getattr(call, "__func__", call)
    if function not in _signatures:
        _signatures[function] = _find_signature(call)
    return _signatures[function]


def schema_of(signature: Signature) -> dict[str, Any]:
    if id(signature) not in _schemas:
        _schemas[id(signature)] = _find_schema(signature)
    return _schemas[id(signature)]


@contextmanager
def replaced(owner: Any, spies: dict[str, Spy]) -> Generator[None]:
    original = {name: getattr(owner, name) for name in spies}
    for name, spy in spies.items():
        setattr(owner, name, spy)
    try:
        yield
    finally:
        for name, function in original.items():
            setattr(owner, name, function)


def on_core(world: World) -> dict[str, Spy]:
    submit_it, settle_it = PoolCore.submit, PoolCore.settle
    gone_it, close_it = PoolCore.gone, PoolCore.close

    def submit(core: PoolCore, tool: str, *args: Any, **kwargs: Any) -> Any:
        number = making.get()
        world.asked[number] = trio.current_time()
        try:
            call = submit_it(core, tool, *args, **kwargs)
        except PoolSaturatedError:
            world.saturated += 1
            raise
        except CallQuarantinedError as error:
            world.check(world.venom.refused(tool, error))
            raise
        world.accepted[number] = call
        if call.worker is not None:
            world.check(world.venom.sent(core, call))
        record = call.session
        if record is not None and record.affinity == "strict_fail_fast" and call.worker is None:
            world.is_wrong(f"call {number} waits in {record.id!r}, a session whose calls never do")
        return call

    def settle(core: PoolCore, call: Any) -> None:
        world.settled[call.id] += 1
        world.settled_at[call.id] = trio.current_time()
        if call.worker is not None and call.id in call.worker.seat.calls:
            world.let_go |= {n for n, made in world.accepted.items() if made is call}
        if isinstance(call.error, CallQuarantinedError):
            world.check(world.venom.refused(call.tool, call.error))
        world.venom.settled(call)
        settle_it(core, call)

    def gone(core: PoolCore, worker: Any, death: Any) -> None:
        world.note("buried", worker.id, death.reason)
        world.buried[worker.id] = (trio.current_time(), death.reason)
        world.venom.buried(core, worker, death)
        gone_it(core, worker, death)

    def close(core: PoolCore) -> None:
        if world.closing_at is None:
            world.closing_at = trio.current_time()
            world.core = core  # type: ignore[attr-defined]
            world.note("closing")
        close_it(core)

    return {"submit": submit, "settle": settle, "gone": gone, "close": close}


def on_worker(world: World) -> dict[str, Spy]:
    queue_it = Worker.queue

    def queue(worker: Worker, call: Any, now: float) -> None:
        world.check(world.venom.sent(worker._core, call))
        queue_it(worker, call, now)

    return {"queue": queue}


def on_sessions(world: World) -> dict[str, Spy]:
    open_it, begin_it, sent_it = SessionTable.open, SessionTable.begin, SessionTable.sent
    settled_it, left_it, end_it = (
        SessionTable.settled,
        SessionTable.stream_left,
        SessionTable.end,
    )
    book = world.sessions

    def count(table: SessionTable) -> None:
        most = world.plan.options["sessions"].max
        if len(table) > most:
            world.is_wrong(f"{len(table)} sessions are open, and {most} may be")

    def open_(table: SessionTable, *args: Any) -> Any:
        record = open_it(table, *args)
        world.note("opens", record.id, record.affinity)
        book.knows(record)
        count(table)
        return record

    def begin(table: SessionTable, call: Any, record: Any, *args: Any) -> None:
        book.begin(call, record)
        begin_it(table, call, record, *args)
        count(table)

    def sent(table: SessionTable, call: Any, seat: Any) -> None:
        book.sent(call, seat.name)
        sent_it(table, call, seat)

    def settled(table: SessionTable, call: Any, seat: Any) -> None:
        book.used(call.session)
        settled_it(table, call, seat)

    def stream_left(table: SessionTable, record: Any) -> None:
        book.used(record)
        left_it(table, record)

    def end(table: SessionTable, record: SessionRecord) -> None:
        if table._live.get(record.id) is record:  # else it has ended before
            world.note("ends session", record.id, record.over)
            book.end(record)
        end_it(table, record)

    return {
        "open": open_,
        "begin": begin,
        "sent": sent,
        "settled": settled,
        "stream_left": stream_left,
        "end": end,
    }
