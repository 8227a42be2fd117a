"""Why a worker may have died, and how: by what was done to it, by what its tools did, by its pool.

`ENDS_BY` says for each cause how a process ends of it. A death without a cause is wrong, and so is one
that is told otherwise than its cause has it; but where there are several, any of them may have come first.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from chaos_tools import EXIT_CODE
from chaos_world import Asked, Burial, World

from snakepit.pool._stopping import UNRESPONSIVE

# An exit code, or the negative number of a signal.
POLITE = {
    0,
    128 + signal.SIGTERM,
    -signal.SIGTERM,
}  # ends in order, or is hardly begun, or in its last act
ENDS_BY: dict[str, set[int]] = {
    "kill": {-signal.SIGKILL},
    "segv": {-signal.SIGSEGV},
    "exit": {EXIT_CODE},
    "term": POLITE,
    "its pool": {*POLITE, -signal.SIGKILL},
}
DEADLY = ENDS_BY.keys()  # what havoc and tools do that ends a worker
DIED = (
    "died",
    "ended in good order",
    "said goodbye",
    "lost its connection",
    "closed its connection",
)
BY_ITSELF = (*DIED, "could not start")
GIVEN_UP = {"cancelled", "left", "unread", "CallTimeoutError", "PoolClosedError"}


def of_burials(world: World) -> Iterator[str]:
    """What is wrong with what the pool says of its dead."""
    failed: dict[str, list[int]] = {}
    for number, outcome in world.outcomes.items():
        if outcome.kind == "WorkerDiedError":
            failed.setdefault(outcome.error.worker_id, []).append(number)  # type: ignore[union-attr]
    for worker, burial in world.burials.items():
        problem = untruth_of_death(world, burial)
        if problem is None and len(failed.get(worker, ())) > 1 and burial.death.pid is not None:
            problem = f"it fails the calls {failed[worker]}"
        if problem:
            yield f"the death of a worker, {burial.death!r}: {problem}"[:1500]


def untruth_of_death(world: World, burial: Burial) -> str | None:
    """Why a worker cannot have died so, or None."""
    death = burial.death
    causes = causes_of(world, burial)
    if not causes:
        return "nothing was done to it"
    if not (burial.at_close or "its pool" in causes or death.reason.startswith(BY_ITSELF)):
        return "this is no reason"
    if death.pid is None:  # of a worker that is not the pool's nothing more is known
        return None
    status = status_of(death)
    if status not in set().union(*(ENDS_BY[cause] for cause in causes)):
        return f"it ended with {status}, by {' or '.join(sorted(causes))}"
    if death.signal is not None and signal.Signals(death.signal).name not in death.certificate:
        return "its certificate does not name the signal"
    if death.exit_code is not None and f"code {death.exit_code}" not in death.certificate:
        return "its certificate does not name the exit code"
    return None


def status_of(death: Any) -> int | None:
    """One number, as subprocess has it."""
    return death.exit_code if death.signal is None else -int(death.signal)


def causes_of(world: World, burial: Burial) -> set[str]:
    """Why it may have died by then."""
    death, causes = burial.death, set()
    pids = processes_of(world, death)
    for pid in pids:
        causes |= {harm.what for harm in world.harms[pid] if harm.when <= burial.when}
    for asked in world.calls.values():
        runs = world.runs[asked.number]
        here = [run for run in runs if run.pid in pids and run.began <= burial.when]
        if any(run.ended is None for run in here):
            causes.add(asked.how)
        # One that was stopped when the call came never told that it began.
        if (here or not runs) and was_ended_for(world, asked, burial):
            causes.add("its pool")
    if burial.at_close:
        causes.add("its pool")
    return causes & DEADLY


def was_ended_for(world: World, asked: Asked, burial: Burial) -> bool:
    """Does the pool say that it had to stop this call so, and was that one to stop by then?"""
    reason, grace_s = burial.death.reason, world.plan.stop.cancel_grace
    outcome = world.outcomes.get(asked.number)
    told = f"was ended because {asked.tool!r} did not stop within {grace_s:g} s of being cancelled"
    if outcome is None or reason not in (told, UNRESPONSIVE):
        return False
    if asked.timeout is not None and outcome.asked + asked.timeout <= burial.when:
        return True
    return outcome.kind in GIVEN_UP or outcome.left_at is not None


def processes_of(world: World, death: Any) -> list[int]:
    """Which processes this worker was, or may have been where it is not the pool's."""
    if death.pid is not None:
        return [death.pid]
    slot = death.worker_id.rpartition("-")[2].partition(".")[0]
    return world.processes[int(slot)]


def deaths_by(world: World, when: float) -> int:
    """How many workers had died by then that could begin a call, and were not ended by their pool."""
    dead = [burial for burial in world.burials.values() if burial.when <= when]
    return sum(burial.death.reason.startswith(DIED) for burial in dead)


def untruth_of_worker_death(
    world: World, error: Any, pids: set[int], *, may_again: bool
) -> str | None:
    """Why a call that ran in these processes cannot have ended with this WorkerDiedError, or None."""
    burial = world.burials.get(error.worker_id)
    if burial is None:
        return "its worker lives"
    told = [error.args[:5], error.args[6:]]
    if told != [burial.death.args[:5], burial.death.args[6:]]:
        return f"its worker died otherwise: {burial.death!r}"
    if error.pid is None:
        return None
    if pids and error.pid not in pids and not may_again:
        return "it ran elsewhere"
    return "it had started" if not error.started and error.pid in pids else None


def untruth_of_loss(world: World, error: Any, session: str | None, when: float) -> str | None:
    """Why the call cannot have ended then with this SessionLostError, or None."""
    if session is None or error.session_id != session:
        return "it was not in that session"
    burial = world.burials.get(error.worker_id)
    if burial is None or burial.when > when:
        return "its worker lives"
    processes = processes_of(world, burial.death)
    before = [n for n, asked in world.calls.items() if asked.session == session]
    if any(run.pid not in processes for n in before for run in world.runs[n]):
        return "it lived elsewhere"
    return None
