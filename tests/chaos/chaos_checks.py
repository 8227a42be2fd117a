"""What has to hold after each round, whatever happened in it: the same as in the simulation, and no leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _endings import closing_s, untruth_of_quarantine
from chaos_deaths import deaths_by, of_burials, untruth_of_loss, untruth_of_worker_death
from chaos_tools import ChaosError, complaint
from chaos_world import Asked, Outcome, Run, World

from snakepit.pool._worker import LAST_WORDS_S

SLACK_S = 2.0  # beyond each bound: this machine has others to serve
LATE_FACTOR = 2.0  # for what this process is late itself: others, with their CPUs, may be as late
CLOSING_SLACK_S = 20.0


def problems(world: World) -> Iterator[str]:
    """What is wrong with this round, if anything."""
    yield from world.wrong
    for number, asked in world.calls.items():
        runs = world.runs[number]
        outcome = world.outcomes.get(number)
        if outcome is None:
            if runs or world.plan.ending == "calm":
                yield f"{named(asked)} never ended"
            continue
        for problem in of_call(world, asked, outcome, runs):
            told = f"{outcome.error!r}" if outcome.error else outcome.kind
            yield f"{named(asked)} ended with {told}, but {problem}; it ran: {runs}"[:1500]
    yield from of_unclaimed(world)
    yield from of_burials(world)
    took = world.closed_at - world.closing_at
    bound = closing_s(world.plan.stop)
    if took > bound + CLOSING_SLACK_S:
        yield f"closing took {took:.1f} s, and may take {bound:g} s"


def named(asked: Asked) -> str:
    return f"call {asked.number} ({asked.tool}, {asked.how})"


def of_call(world: World, asked: Asked, outcome: Outcome, runs: list[Run]) -> Iterator[str]:
    barrier = world.plan.options["crash_barrier"]
    may_run = 1 + barrier.max_retries * asked.may_again
    if len(runs) > may_run:
        yield f"it ran {len(runs)} times, and may {may_run} times"
    # Where a pool is only connected nobody ends what does not stop: its caller is told so.
    may_go_on = world.plan.transport == "connect" and outcome.kind in ("WorkerDiedError", "unread")
    for run in runs:
        if not may_go_on and max(run.began, run.ended or 0.0) > outcome.ended:
            yield "its tool ran on when it had been left"
    if outcome.living and not may_go_on:
        yield f"what it had started lives on: {outcome.living}"
    if (late := lateness(world, asked, outcome, runs)) is not None:
        yield late
    lie = untruth(world, asked, outcome, runs)
    if lie:
        yield lie


def lateness(world: World, asked: Asked, outcome: Outcome, runs: list[Run]) -> str | None:
    """Did it end too long after its time was over, or its caller wanted no more?"""
    stop = world.plan.stop
    due = [outcome.left_at] if outcome.left_at is not None else []
    if asked.timeout is not None:
        due.append(outcome.asked + asked.timeout)
    if not due:
        return None
    took = outcome.ended - min(due)
    may_take = stop.cancel_grace
    if not runs or any(run.ended is None for run in runs):  # else it stopped when it was asked
        may_take += stop.term_grace + LAST_WORDS_S
    slack = SLACK_S + LATE_FACTOR * world.pulse.late_s(min(due), outcome.ended)
    if took <= may_take + slack:
        return None
    return f"it took {took:.2f} s to end, and may take {may_take:g} s (and {slack:.2f} s here)"


def untruth(world: World, asked: Asked, outcome: Outcome, runs: list[Run]) -> str | None:
    """Why the outcome cannot be true, or None."""
    error: Any = outcome.error
    queue = world.plan.options["queue"]
    took = outcome.ended - outcome.asked
    match outcome.kind:
        case "value" | "items":
            if asked.tool != "map" and not any(run.how == "returned" for run in runs):
                return "no tool returned it"
        case "ToolError":
            return untruth_of_tool_error(asked, error, runs)
        case "CallTimeoutError":
            if asked.timeout is None or took < asked.timeout:
                return "its time was not over"
        case "QueueTimeoutError":
            limits = [limit for limit in (asked.timeout, queue.timeout) if limit is not None]
            if not limits or took < min(limits):
                return "its time was not over"
            return "it ran" if runs else None
        case "PoolSaturatedError":
            if queue.max_size is None:
                return "there was room"
            return "it ran" if runs else None
        case "cancelled":
            if outcome.left_at is None and world.plan.ending == "calm":
                return "nobody cancelled it"
        case "WorkerDiedError":
            pids = {run.pid for run in runs}
            return untruth_of_worker_death(world, error, pids, may_again=asked.may_again)
        case "SessionLostError":
            if runs:
                return "it ran"
            return untruth_of_loss(world, error, asked.session, outcome.ended)
        case "CallQuarantinedError":
            barrier = world.plan.options["crash_barrier"]
            # One that dies as it is sent the call never tells that it began.
            return untruth_of_quarantine(barrier, error, runs=deaths_by(world, outcome.ended))
        case "PoolClosedError":
            if outcome.ended < world.ending_at:
                return "the pool was not closing"
        case "left" | "unread":
            return None
        case kind:
            return f"{kind} is not how a call ends"
    return None


def untruth_of_tool_error(asked: Asked, error: Any, runs: list[Run]) -> str | None:
    if asked.how != "raise" or not any(run.how == "raised" for run in runs):
        return "its tool did not raise"
    name = f"{ChaosError.__module__}.{ChaosError.__qualname__}"
    wanted = (asked.tool, name, complaint(asked.number))
    found = (error.tool, error.type, error.message)
    told = wanted[2] in error.traceback and isinstance(error, ChaosError.__bases__)
    if found != wanted or not told:
        return f"its tool raised {wanted}"
    return None


def of_unclaimed(world: World) -> Iterator[str]:
    """Errors of a map in any order: which call each was of nobody says, but there has to be one."""
    for calls, outcome in world.unclaimed:
        lies = [untruth(world, asked, outcome, world.runs[asked.number]) for asked in calls]
        if None not in lies:
            yield f"a map gave {outcome.error!r}, but of its calls: {lies}"[:1500]
