"""The callers of a simulation: they make their steps, and note what became of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from _endings import kind_of
from sim_inputs import Food, InputError
from sim_maps import run_map
from sim_plan import CallerPlan, CallPlan, EndPlan, MapPlan, SessionPlan, Step
from sim_sessions import Book
from sim_spies import making
from sim_tools import item
from sim_world import Outcome, World

from snakepit import Pool, Session, SnakepitError

SLOWLY_S = 0.03  # more than from one update to the next


class HeardEnough(Exception):
    """Raised by a caller that was told of progress."""


async def make_steps(world: World, pool: Pool, caller: CallerPlan) -> None:
    """All that this caller does, in a session if it has one."""
    try:
        if caller.session is None:
            await each_step(world, pool, caller, None)
        else:
            await in_session(world, pool, caller, caller.session)
    finally:
        world.done.add(caller.number)


async def each_step(world: World, pool: Pool, caller: CallerPlan, session: Session | None) -> None:
    if caller.together:
        async with trio.open_nursery() as nursery:
            for step in caller.steps:
                nursery.start_soon(make_step, world, pool, step, session)
    else:
        for step in caller.steps:
            await make_step(world, pool, step, session)


async def make_step(world: World, pool: Pool, step: Step, session: Session | None = None) -> None:
    if isinstance(step, CallPlan):
        await make_call(world, pool, step, session)
    elif isinstance(step, MapPlan):
        await run_map(world, pool, step, session or step.session)
    else:
        await end_session(world, pool, step)


# -- calls -------------------------------------------------------------------------------------------


async def make_call(
    world: World, pool: Pool, plan: CallPlan, session: Session | None = None
) -> None:
    """Make the call and note how it ended. It does end, or the run is stuck."""
    await trio.sleep(plan.pause_s)
    making.set(plan.number)
    asked = trio.current_time()
    world.note("asks", plan.number, plan.tool)
    kind, value, failure = "cancelled", None, None
    scope = trio.CancelScope()
    if plan.cancel_after_s is not None:
        scope.deadline = asked + plan.cancel_after_s
    params, food = plan.params(), None
    if plan.meal is not None:
        food = world.food[plan.number] = Food(world, plan)
        params["food"] = food.items
    try:
        with scope:
            if plan.items is None:
                value = await pool.execute(
                    plan.tool,
                    params,
                    session=session or plan.session,
                    timeout=plan.timeout,
                    idempotent=plan.idempotent,
                    on_progress=None if plan.hears is None else listener(world, plan),
                )
                kind = "value"
            else:
                kind = await read(world, pool, plan, session)
    except (SnakepitError, HeardEnough, InputError) as error:
        kind, failure = kind_of(error), error
    finally:
        world.note("ended", plan.number, kind)
        scheduler = pool._core.scheduler
        if scheduler._queue and scheduler.idle:
            world.is_wrong(f"{len(scheduler._queue)} calls wait, {scheduler.idle} idle")
        if any(not seat.calls for seat in scheduler._wanted):
            world.is_wrong("calls wait for a worker that idles")
        if plan.number in world.outcomes:
            world.is_wrong(f"call {plan.number} ended twice")
        if world.running_of([plan.number]):
            world.is_wrong(f"call {plan.number} ended ({kind}) while its tool runs")
        if food is not None:
            food.check_over()
        if world.helping[plan.number]:
            world.is_wrong(f"call {plan.number} ended ({kind}) while it is helped")
        world.outcomes[plan.number] = Outcome(
            plan.number,
            kind,
            asked,
            trio.current_time(),
            value,
            failure,
            scope.deadline if scope.cancel_called else None,
        )


async def read(world: World, pool: Pool, plan: CallPlan, session: Session | None) -> str:
    number = plan.number
    async with pool.stream(
        plan.tool,
        plan.params(),
        session=session or plan.session,
        timeout=plan.timeout,
        window=plan.window,
    ) as stream:
        while plan.read is None or world.taken[number] < plan.read:
            try:
                chunk = await anext(stream)
            except StopAsyncIteration:
                return "items"
            if chunk != item(number, world.taken[number]):
                world.is_wrong(f"stream {number}: {chunk!r} is item {world.taken[number]}")
            world.taken[number] += 1
            await trio.sleep(plan.read_pause_s)
    return "left"


def listener(world: World, plan: CallPlan) -> Callable[..., Any]:
    """What the caller gives as `on_progress`."""
    number, heard = plan.number, world.heard[plan.number]

    def at_once(done: float, total: float | None, message: str | None) -> None:
        if (total, message) != (plan.order.get("updates"), f"call {number}"):
            world.is_wrong(f"call {number} is told of {message!r}")
        if number in world.outcomes:
            world.is_wrong(f"call {number} is told of progress when it has ended")
        if heard and done <= heard[-1] and len(world.runs[number]) == 1:
            world.is_wrong(f"call {number} is told {done} after {heard}")
        heard.append(done)
        if plan.hears == "enough":
            raise HeardEnough

    async def slowly(done: float, total: float | None, message: str | None) -> None:
        at_once(done, total, message)
        await trio.sleep(SLOWLY_S)

    return slowly if plan.hears == "slowly" else at_once


# -- sessions ----------------------------------------------------------------------------------------


async def in_session(world: World, pool: Pool, caller: CallerPlan, plan: SessionPlan) -> None:
    """The block of a session, with this caller's steps in it, or going on when it is left."""
    await trio.sleep(plan.pause_s)
    session: Session | None = None
    scope = trio.CancelScope()
    if plan.cancel_after_s is not None:
        scope.deadline = trio.current_time() + plan.cancel_after_s
    async with trio.open_nursery() as others:
        kind = "left"
        try:
            with scope:
                async with pool.session(plan.id, affinity=plan.affinity, ttl=plan.ttl) as session:
                    if plan.leave_after_s is None:
                        await each_step(world, pool, caller, session)
                    else:
                        for step in caller.steps:
                            others.start_soon(make_step, world, pool, step, session)
                        await trio.sleep(plan.leave_after_s)
        except SnakepitError as error:
            kind = kind_of(error)
            was_refused(world, pool, plan, error)
        finally:
            world.note("session left", plan.id, kind)
            world.session_endings[kind] += 1
            if session is not None:
                is_over(world, pool, caller, session)


def was_refused(world: World, pool: Pool, plan: SessionPlan, error: SnakepitError) -> None:
    table, core = pool._core.sessions, pool._core
    true = {
        "SessionBusyError": plan.id in table._live,
        "PoolSaturatedError": len(table) >= core.settings.sessions.max,
        "PoolClosedError": core.closing.is_set(),
        "PoolBrokenError": core.broken is not None,
    }
    if not true.get(type(error).__name__, False):
        world.is_wrong(f"session {plan.id!r} was refused with {error!r}")


def is_over(world: World, pool: Pool, caller: CallerPlan, session: Session) -> None:
    """Its block has been left, just now."""
    record = session._record
    if pool._core.sessions._live.get(record.id) is record:
        world.is_wrong(f"session {record.id!r} is open after its block")
    running = world.running_of(call.number for call in caller.calls())
    if running or record.calls:
        world.is_wrong(f"session {record.id!r} was left while {running} run: {record.calls}")


async def end_session(world: World, pool: Pool, plan: EndPlan) -> None:
    """End a session that was made on demand."""
    await trio.sleep(plan.pause_s)
    table = pool._core.sessions
    scope = trio.CancelScope()
    if plan.cancel_after_s is not None:
        scope.deadline = trio.current_time() + plan.cancel_after_s
    kind = "cancelled"
    try:
        with scope:
            await pool.end_session(plan.session)
            kind = "ended"
    except SnakepitError as error:
        kind = kind_of(error)
        record = table._live.get(plan.session)
        busy, missing = kind == "SessionBusyError", kind == "SessionNotFoundError"
        if not ((busy and record is not None and record.held) or (missing and record is None)):
            world.is_wrong(f"end_session({plan.session!r}) raised {error!r}")
    world.note("end_session", plan.session, kind)
    world.session_endings[kind] += 1
    if kind == "ended":
        for book in world.sessions.named(plan.session):
            if book.record.over == "was ended":
                check_ended(world, pool, book)


def check_ended(world: World, pool: Pool, book: Book) -> None:
    numbers = [n for n, call in world.accepted.items() if call.session is book.record]
    if pool._core.sessions._live.get(book.record.id) is book.record:
        world.is_wrong(f"session {book.record.id!r} is open after it was ended")
    if world.running_of(numbers):
        world.is_wrong(f"session {book.record.id!r} was ended while {numbers} run")
