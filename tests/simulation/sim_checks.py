"""What has to hold after each run, whatever happened in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from _endings import closing_s
from sim_plan import CallPlan
from sim_run import simulate
from sim_sessions import of_sessions, untruth_of_session
from sim_tools import LIMIT_S, answer_of
from sim_world import Outcome, World

from snakepit import ReentrancyError
from snakepit.pool._core import PoolCore
from snakepit.pool._seat import Phase
from snakepit.pool._stats import stats_of

NOT_ACCEPTED = {
    "CallQuarantinedError",
    "PoolSaturatedError",
    "PoolClosedError",
    "PoolBrokenError",
    "ToolNotFoundError",
    "InvalidParamsError",
    "SessionBusyError",
    "SessionLostError",
    "SessionNotFoundError",
}
EPSILON_S = 1e-6
TAIL = 40  # lines of the log that a failure shows


def problems(world: World) -> Iterator[str]:
    """What is wrong with this run, if anything."""
    yield from world.wrong
    core: PoolCore | None = getattr(world, "core", None)
    if core is None:
        yield "the pool was never closed"
        return
    for number, plan in world.calls.items():
        yield from (f"call {number}: {problem}" for problem in of_call(world, core, number, plan))
    yield from of_workers(world)
    yield from of_closing(world, core)
    yield from of_counters(world, core)
    yield from of_sessions(world.sessions, core)


def of_call(world: World, core: PoolCore, number: int, plan: CallPlan) -> Iterator[str]:
    outcome = world.outcomes.get(number)
    runs = world.runs[number]
    if outcome is None:
        if runs:
            yield "it ran and never ended"
        return  # its caller was cancelled before it
    call = world.accepted.get(number)
    if call is None and outcome.kind not in NOT_ACCEPTED | {"cancelled"}:
        yield f"it ended ({outcome.kind}) and never began"
    barrier = core.settings.crash_barrier
    again = barrier.max_retries if is_idempotent(plan) and barrier.retry == "idempotent" else 0
    moves = call is None or call.session is None or not call.session.strict
    if plan.items is not None or not moves:
        again = 0
    if len(runs) > 1 + again:
        yield f"it ran {len(runs)} times, and may {1 + again} times"
    if call is not None:
        if world.settled[call.id] != 1:
            yield f"it was settled {world.settled[call.id]} times"
        if call.alarm is not None and call.alarm.action is not None:
            yield "an alarm of it is still set"
    lie = untruth(world, core, plan, outcome)
    if lie:
        told = f"{outcome.error!r}" if outcome.error else outcome.kind
        yield f"ended with {told}, but {lie}"


def is_idempotent(plan: CallPlan) -> bool:
    return plan.tool == "again" if plan.idempotent is None else plan.idempotent


def untruth(world: World, core: PoolCore, plan: CallPlan, outcome: Outcome) -> str | None:
    """Why the outcome cannot be true, or None."""
    runs = world.runs[plan.number]
    took = outcome.ended - outcome.asked + EPSILON_S
    limit = plan.timeout
    if limit is None:
        limit = LIMIT_S if plan.tool == "limited" else core.settings.call_timeout
    match outcome.kind:
        case "value":
            if outcome.value != answer_of(plan):
                return f"the value is {outcome.value!r}"
            meal = plan.meal
            if meal is not None and meal.fails_at is None:
                wanted = meal.count if meal.bites is None else min(meal.bites, meal.count)
                if world.eaten[plan.number] != wanted:
                    return f"it was given {world.eaten[plan.number]} of {wanted} items"
            if plan.talk is not None and world.helped[plan.number] != plan.talk.count:
                return f"it was helped {world.helped[plan.number]} of {plan.talk.count} times"
            updates = plan.order.get("updates")
            if updates and plan.hears and (world.heard[plan.number] or [0])[-1] != updates:
                return f"its caller heard {world.heard[plan.number]} of {updates} updates"
            if not any(run.how == "returned" for run in runs):
                return "no tool returned it"
        case "items":
            if world.taken[plan.number] != plan.items or runs[-1].how != "returned":
                return f"{world.taken[plan.number]} of {plan.items} items came"
        case "left":
            if world.taken[plan.number] != plan.read:
                return "it had not read what it wanted"
        case "cancelled":
            ended_by_body = world.plan.ending in ("cancel", "raise", "leave", "calm")
            if outcome.cancelled_at is None and not ended_by_body:
                return "nobody cancelled it"
        case "ToolError":
            if not any(run.how == "raised" for run in runs):
                return "its tool did not raise"
        case "SerializationError":
            if plan.order["how"] != "unencodable" or not runs:
                return "its value can travel"
        case "CallTimeoutError":
            if limit is None or took < limit:
                return f"its time was not over after {took:g} s"
            # Only a worker that was not heard in time leaves it open whether the call began.
            if not runs and not world.faults.happened and world.plan.stop.cancel_grace > 0:
                return "it had not begun"
        case "QueueTimeoutError":
            limits = [t for t in (limit, core.settings.queue.timeout) if t is not None]
            if not limits or took < min(limits):
                return f"its time was not over after {took:g} s"
            if runs:
                return "it had begun"
        case "WorkerDiedError":
            worker = outcome.error.worker_id  # type: ignore[union-attr]
            if worker not in world.buried:
                return f"{worker} lives"
            if len(runs) == 1 and runs[0].worker != worker and not is_idempotent(plan):
                return "it never ran there"
        case "CallQuarantinedError":
            return world.venom.untruth(core, plan, outcome.error, runs=len(runs))
        case "PoolClosedError":
            if world.closing_at is None or outcome.ended < world.closing_at:
                return "the pool was not closing"
        case "PoolBrokenError":
            if core.broken is None:
                return "the pool was not broken"
        case "PoolSaturatedError":
            of_sessions = "Sessions.max" in str(outcome.error)
            most = core.settings.sessions.max if of_sessions else core.settings.queue.max_size
            if most in (None, 10_000) or runs:
                return "there was room, or it ran"
        case "unread":
            pass
        case "InputError":
            if not world.food[plan.number].raised or not runs:
                return "its input did not raise"
            # A run may come before that one, if its worker died before it was heard to ask for an item.
            if any(run.how != "cut short" or run.worker not in world.buried for run in runs[:-1]):
                return "an earlier run came to its end"
        case "HeardEnough":
            if plan.hears != "enough" or not world.heard[plan.number]:
                return "its caller did not say so"
        case "SessionBusyError" | "SessionLostError" | "SessionNotFoundError":
            return untruth_of_session(
                core, world.sessions, plan.session, outcome.error, ran=bool(runs)
            )
        case "ToolNotFoundError":
            if plan.tool != "nonsense" or runs:
                return "there is such a tool"
        case "InvalidParamsError":
            if not plan.misfit or runs:
                return "its arguments fit"
        case kind:
            return f"{kind} is not how a call ends"
    return None


def of_workers(world: World) -> Iterator[str]:
    """No worker is ended that has given no reason to be; what can end one is in the plan."""
    for worker, (when, reason) in world.buried.items():
        if world.closing_at is not None and when >= world.closing_at:
            continue
        if worker in world.culprits:
            continue
        # A tool that is ended with its worker, or has no time to end by itself.
        given_up = {
            world.calls[n].tool for n, outcome in world.outcomes.items() if gave_up(outcome)
        }
        if any(f"{tool!r}" in reason for tool in given_up & {"fragile", "brief"}):
            continue
        if world.plan.stop.cancel_grace > 0 or "did not stop" not in reason:
            yield f"worker {worker} was ended without a reason: {reason}"


def gave_up(outcome: Outcome) -> bool:
    return outcome.kind in (
        "cancelled",
        "left",
        "unread",
        "CallTimeoutError",
        "HeardEnough",
        "InputError",
        "PoolClosedError",
        "SessionNotFoundError",
    )


def of_closing(world: World, core: PoolCore) -> Iterator[str]:
    assert world.closing_at is not None
    if world.closed_at is None:
        yield "the block was never left"
        return
    bound = closing_s(core.settings.stop)
    # Tools in memory that shield themselves cannot be ended; those here do so for a while.
    bound += max([0.0, *(p.order["extra"] for p in world.calls.values())])
    took = world.closed_at - world.closing_at
    if took > bound + EPSILON_S:
        yield f"closing took {took:g} s, and may take {bound:g} s"
    for slot in core.slots:
        if slot.worker.seat.phase is not Phase.GONE:
            yield f"{slot.worker.id} is {slot.worker.seat.phase} after the block"
        if slot.worker.seat.calls:
            yield f"{slot.worker.id} still has calls"
    if any(world.running.values()):
        yield f"tools run after the block: {world.running}"


def of_counters(world: World, core: PoolCore) -> Iterator[str]:
    stats, scheduler = stats_of(core), core.scheduler
    left = {
        "waiting": scheduler.waiting,
        "prefetched": scheduler.prefetched,
        "idle": scheduler.idle,
        "loaded": len(scheduler._loaded),
        "room": len(scheduler._room),
        "counted": sum(slot.worker.seat.counted for slot in core.slots),
        "workers": len(core._worker_of),
        "busy": stats.busy,
        "queued": stats.queued,
    }
    if any(left.values()):
        yield f"left in the pool: {left}"
    if stats.requests != len(world.accepted):
        yield f"{stats.requests} requests, and {len(world.accepted)} calls accepted"
    kinds = [world.outcomes[n].kind for n in world.accepted if n in world.outcomes]
    failed = sum(kind not in ("value", "items", "left") for kind in kinds)
    probes = sum(n not in world.outcomes for n in world.accepted)
    # These may have had their answer when they were given up; a listener may stop before it comes.
    maybe = sum(map(kinds.count, ("left", "cancelled", "unread", "HeardEnough"))) + probes
    if not failed - maybe <= stats.errors <= failed + maybe:
        yield f"{stats.errors} errors counted, {failed} seen"
    if stats.errors != sum(c.given_up or c.error is not None for c in world.accepted.values()):
        yield f"{stats.errors} errors counted wrongly"
    refused = Counter(outcome.kind for outcome in world.outcomes.values())
    refused += world.probe_errors + world.nested_endings
    stuck = sum(isinstance(call.fate, ReentrancyError) for call in world.accepted.values())
    if stats.saturated != world.saturated + stuck:
        yield f"{stats.saturated} saturated, {world.saturated} and {stuck} seen"
    late = refused["QueueTimeoutError"]
    if not late <= stats.queue_timeouts <= late + refused["cancelled"] + refused["unread"]:
        yield f"{stats.queue_timeouts} queue timeouts, {late} seen"


def simulate_and_check(seed: int) -> tuple[World, list[str]]:
    """One run, and what is wrong with it."""
    world = simulate(seed)
    return world, list(problems(world))


def report(world: World, found: list[str], *, tail: int | None = TAIL) -> str:
    """What happened at last, what is wrong, and how to see it again."""
    shown = world.log if tail is None else world.log[-tail:]
    lines = [f"{event[0]:>12.6f}  {' '.join(map(str, event[1:]))}" for event in shown]
    wrong = [f"  {problem}" for problem in found] or ["  nothing is wrong"]
    return "\n".join(
        [
            *lines,
            f"seed {world.plan.seed}:",
            *wrong,
            f"again: make simulate SEED={world.plan.seed} RUNS=1",
        ]
    )
