"""Calls that are the same call, and kill: how many workers they may cost, counted once more here.

All other calls of a simulation differ in their arguments. Those of one of these tools do not: what a
call does is in its plan, where its tool looks it up.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import attrs
from _endings import untruth_of_quarantine
from sim_plan import VENOMS, CallerPlan, CallPlan, Plan

from snakepit import CallQuarantinedError, SessionLostError, WorkerDiedError
from snakepit.pool._core import PoolCore

NUMBERS = 1000  # of these calls, from here on
CALLER = 100  # likewise
BEHAVIOURS = {"crash": 60, "return": 20, "raise": 10, "slow_stop": 10}


def add_venom(plan: Plan) -> Plan:
    """The plan with such calls, if its seed wants them; drawn apart, so that all else stays as it is."""
    random = Random(f"venom {plan.seed}")
    if random.random() < 0.75:
        return plan
    barrier = attrs.evolve(
        plan.options["crash_barrier"],
        quarantine_after=random.choice((1, 2, 3, 3, None)),
        window=random.choice((1.0, 5.0, 60.0)),
        max_restarts=random.choice((5, 20)),
    )
    numbers = iter(range(NUMBERS, NUMBERS + 100))
    callers = [
        CallerPlan(CALLER + n, tuple(_calls(random, numbers)), together=random.random() < 0.4)
        for n in range(random.randint(1, 2))
    ]
    return dataclasses.replace(
        plan,
        options={**plan.options, "crash_barrier": barrier},
        callers=(*plan.callers, *callers),
    )


def _calls(random: Random, numbers: Iterator[int]) -> Iterator[CallPlan]:
    tools = random.choice((VENOMS[:1], VENOMS))
    for _ in range(random.randint(3, 8)):
        [how] = random.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))
        number = next(numbers)
        seconds = random.choice((0.0, 0.0, 0.1, 2.0))
        yield CallPlan(
            number,
            random.choice(tools),
            {"call": number, "seconds": seconds, "how": how, "extra": 0.1},
            pause_s=random.choice((0.0, 0.1, 1.0)),
            timeout=random.choice((None, None, None, 1.0)),
            cancel_after_s=0.05 if random.random() < 0.1 else None,
            idempotent=random.choice((None, True)),
            session=random.choice((None, None, None, "s1")),
        )


class Venom:
    """What the world knows of such calls.

    `deaths`: since the last answer, by tool. `sure`: those of them that can be nobody else's, and of
    which none is older than the window.
    """

    def __init__(self) -> None:
        self.deaths: Counter[str] = Counter()
        self.sure: Counter[str] = Counter()
        self._last_at: dict[str, float] = {}

    def sent(self, core: PoolCore, call: Any) -> str | None:
        """A call goes to a worker: what is wrong with that."""
        barrier = core.settings.crash_barrier
        after, count = barrier.quarantine_after, self.sure[call.tool]
        if after is None or count < after:
            return None
        if core.now() >= self._last_at[call.tool] + barrier.window:
            return None
        return f"a call of {call.tool!r} is sent after {count} deaths"

    def buried(self, core: PoolCore, worker: Any, death: WorkerDiedError) -> None:
        """A worker is gone: by itself, during such a call, which was not to stop?"""
        call: Any = next(iter(worker.seat.calls.values()), None)
        if call is None or call.tool not in VENOMS or not worker.died_by_itself:
            return
        if core.closing.is_set() or call.given_up or not call.reached_worker:
            return
        tool, now = call.tool, core.now()
        self.deaths[tool] += 1
        if death.signal is None and not worker.said_goodbye:
            if self._last_at.get(tool, now) <= now - core.settings.crash_barrier.window:
                self.sure[tool] = 0
            self.sure[tool] += 1
            self._last_at[tool] = now

    def settled(self, call: Any) -> None:
        """A call is over. Has its worker answered?"""
        died = isinstance(call.error, WorkerDiedError | SessionLostError)
        if call.tool in VENOMS and not (call.given_up or call.worker is None or died):
            self.deaths[call.tool] = self.sure[call.tool] = 0

    def refused(self, tool: str, error: CallQuarantinedError) -> str | None:
        """Such a call has just been refused: what is wrong with that."""
        deaths = self.deaths[tool]
        if tool not in VENOMS or error.kills <= deaths:
            return None
        return f"a call of {tool!r} is refused for {error.kills} deaths, and {deaths} were seen"

    def untruth(self, core: PoolCore, call: CallPlan, error: Any, *, runs: int) -> str | None:
        """Why the refusal cannot be true, or None."""
        barrier, others = core.settings.crash_barrier, call.tool in VENOMS
        return untruth_of_quarantine(barrier, error, runs=runs, may_be_others=others)
