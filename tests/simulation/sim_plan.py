"""A plan: everything about one run that can be decided beforehand. `sim_draw` draws it from a seed.

A caller makes its steps in its own task: calls, maps, and ends of sessions; perhaps in a session that
it holds.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

from snakepit import Stop

VENOMS = ("venom_a", "venom_b")  # tools whose calls are all the same
PROBE_S = 1.0  # each of the calls that show, at the end, that every worker is still of use


@dataclasses.dataclass(frozen=True)
class MealPlan:
    """An input of a call: so many items, of which its tool takes some `bites`, all if None."""

    count: int
    pause_s: float = 0.0
    fails_at: int | None = None
    bites: int | None = None


@dataclasses.dataclass(frozen=True)
class TalkPlan:
    """So many calls of the host's tool, one by one or all at once.

    `how`: "return", "raise", "nest", "slow_stop"; "plain": it is no async one.
    """

    count: int
    seconds: float
    how: str = "return"
    at_once: bool = False


@dataclasses.dataclass(frozen=True)
class CallPlan:
    """One call. `items` is None for one that does not stream; `read` how many are read, all if None.

    `hears`: how its caller listens to its progress, None if it does not. `ballast`: so many bytes go
    there and, with the answer, back.
    """

    number: int
    tool: str
    order: dict[str, Any]  # for the tool
    misfit: bool = False  # the tool gets something else in its place
    pause_s: float = 0.0  # before it
    timeout: float | None = None
    cancel_after_s: float | None = None
    idempotent: bool | None = None
    session: str | None = None
    hears: str | None = None
    ballast: int = 0
    meal: MealPlan | None = None
    talk: TalkPlan | None = None
    items: int | None = None
    read: int | None = None
    read_pause_s: float = 0.0
    window: int = 0

    def params(self) -> dict[str, Any]:
        if self.tool in VENOMS:
            return {}
        if self.misfit:
            return {"order": "no order"}
        return {"order": {**self.order, "ballast": bytes(self.ballast)}}


@dataclasses.dataclass(frozen=True)
class MapPlan:
    """One map. An `endless` input has more items in `calls` than may ever be taken from it."""

    calls: tuple[CallPlan, ...]
    tool: str
    endless: bool = False
    limit: int | None = None
    ordered: bool = True
    on_error: str = "cancel"
    timeout: float | None = None
    session: str | None = None
    read: int | None = None
    read_pause_s: float = 0.0
    pause_s: float = 0.0
    cancel_after_s: float | None = None
    waits: bool = False  # the input is an async one, which pauses before some items
    fails_at: int | None = None  # the input raises in place of this item


@dataclasses.dataclass(frozen=True)
class EndPlan:
    """`end_session` of this id."""

    session: str
    pause_s: float
    cancel_after_s: float | None


Step: TypeAlias = CallPlan | MapPlan | EndPlan


@dataclasses.dataclass(frozen=True)
class SessionPlan:
    """The block of a session. With `leave_after_s` it is left while calls in it go on."""

    id: str
    affinity: str
    ttl: float | None = None
    pause_s: float = 0.0
    leave_after_s: float | None = None
    cancel_after_s: float | None = None


@dataclasses.dataclass(frozen=True)
class CallerPlan:
    """A task with its steps. An outsider does not end with the pool's block, nor before it."""

    number: int
    steps: tuple[Step, ...]
    together: bool = False
    outsider: bool = False
    session: SessionPlan | None = None

    def calls(self) -> list[CallPlan]:
        calls: list[CallPlan] = []
        for step in self.steps:
            if isinstance(step, CallPlan):
                calls.append(step)
            elif isinstance(step, MapPlan):
                calls += step.calls
        return calls


@dataclasses.dataclass(frozen=True)
class Plan:
    seed: int
    options: dict[str, Any]
    faults: dict[str, Any]
    starts: tuple[str, ...]  # of the first workers; those after them just start
    callers: tuple[CallerPlan, ...]
    ending: str
    end_at_s: float
    watches_ready: bool

    @property
    def stop(self) -> Stop:
        return self.options["stop"]

    def calls(self) -> dict[int, CallPlan]:
        return {call.number: call for caller in self.callers for call in caller.calls()}
