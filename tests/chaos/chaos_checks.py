"""What has to hold after each round, whatever happened in it: the same as in the simulation, and no leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chaos_draw import DEADLY
from chaos_round import CLOSING_SLACK_S
from chaos_world import Asked, Outcome, Run, World


def problems(world: World) -> Iterator[str]:
    """What is wrong with this round, if anything."""
    yield from world.wrong
    for number, asked in world.calls.items():
        runs = world.runs.get(number, [])
        what = f"call {number} ({asked.tool}, {asked.how})"
        outcome = world.outcomes.get(number)
        if outcome is None:
            if runs or world.plan.ending == "calm":
                yield f"{what} never ended"
            continue
        for problem in of_call(world, asked, outcome, runs):
            told = f"{outcome.error!r}" if outcome.error else outcome.kind
            yield f"{what} ended with {told}, but {problem}; it ran: {runs}"[:1500]
    took = world.closed_at - world.closing_at
    stop = world.plan.stop
    bound = stop.cancel_grace + stop.term_grace + stop.drain_timeout + 1
    if took > bound + CLOSING_SLACK_S:
        yield f"closing took {took:.1f} s, and may take {bound:g} s"


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
    lie = untruth(world, asked, outcome, runs)
    if lie:
        yield lie


def is_excused(world: World, asked: Asked, error: Any) -> bool:
    """May the call have ended with a worker's death?"""
    if world.plan.transport != "connect":
        return error.pid in world.harmed or asked.how in DEADLY
    # Which process it was nobody can say; those sent behind a call go with it.
    is_deadly = any(one.how in DEADLY for one in world.calls.values())
    return error.reason == "unresponsive" or bool(world.harmed) or is_deadly


def untruth(world: World, asked: Asked, outcome: Outcome, runs: list[Run]) -> str | None:
    """Why the outcome cannot be true, or None."""
    error: Any = outcome.error
    match outcome.kind:
        case "value" | "items":
            if asked.tool != "map" and not any(run.how == "returned" for run in runs):
                return "no tool returned it"
        case "ToolError":
            if asked.how != "raise" or not any(run.how == "raised" for run in runs):
                return "its tool did not raise"
        case "CallTimeoutError":
            if asked.timeout is None or outcome.ended - outcome.asked < asked.timeout:
                return "its time was not over"
        case "cancelled":
            if not outcome.cancelled and world.plan.ending == "calm":
                return "nobody cancelled it"
        case "left" | "unread":
            return None
        case "WorkerDiedError":
            if not is_excused(world, asked, error):
                return "nothing has happened to its worker"
            if not error.started and any(run.pid == error.pid for run in runs):
                return "it had started"
        case "SessionLostError":
            if not asked.session:
                return "it was in no session"
        case "CallQuarantinedError":
            if asked.how not in DEADLY and not world.harmed:
                return "no worker died"
        case "PoolClosedError":
            if outcome.ended < world.ending_at:
                return "the pool was not closing"
        case "PoolSaturatedError" | "QueueTimeoutError":
            if runs:
                return "it ran"
        case kind:
            return f"{kind} is not how a call ends"
    return None
