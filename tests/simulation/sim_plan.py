"""A plan: everything about one run that can be decided beforehand, drawn from its seed.

Times are drawn from a few values on purpose: things that happen at the very same moment are where
the surprises are.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Any

from snakepit import CrashBarrier, Queue, Startup, Stop

MOMENTS = (0.0, 0.0, 0.0005, 0.002, 0.01, 0.1, 0.5, 0.5, 1.0, 1.0, 2.0, 3.0)
PROBE_S = 1.0  # each of the calls that show, at the end, that every worker is still of use

# What a tool does, with its weight. See sim_tools.
BEHAVIOURS = {
    "return": 60,
    "raise": 10,
    "unencodable": 2,
    "crash": 4,
    "slow_stop": 5,
    "stubborn": 4,
    "convert": 3,
    "swallow": 3,
}
TOOLS = {"work": 60, "again": 20, "fragile": 4, "brief": 4, "limited": 4, "nonsense": 2}
STARTS = {"ready": 90, "slow": 4, "raise": 3, "crash": 2, "hang": 1}
ENDINGS = {"calm": 60, "leave": 15, "raise": 10, "cancel": 15}


def weighted(random: Random, choices: dict[str, int]) -> str:
    [choice] = random.choices(list(choices), list(choices.values()))
    return choice


@dataclasses.dataclass(frozen=True)
class CallPlan:
    """One call. `items` is None for one that does not stream; `read` how many are read, all if None."""

    number: int
    tool: str
    order: dict[str, Any]  # for the tool
    misfit: bool  # the tool gets something else in its place
    pause_s: float  # before it
    timeout: float | None
    cancel_after_s: float | None
    idempotent: bool | None
    items: int | None = None
    read: int | None = None
    read_pause_s: float = 0.0
    window: int = 0

    def params(self) -> dict[str, Any]:
        return {"order": "no order" if self.misfit else self.order}


@dataclasses.dataclass(frozen=True)
class CallerPlan:
    """A task with its calls. An outsider does not end with the pool's block, nor before it."""

    number: int
    calls: tuple[CallPlan, ...]
    together: bool
    outsider: bool


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
        return {call.number: call for caller in self.callers for call in caller.calls}


def draw_plan(seed: int) -> Plan:
    random = Random(f"plan {seed}")
    troubled = random.random() < 0.7
    ending = weighted(random, ENDINGS)
    return Plan(
        seed,
        _options(random),
        _faults(random) if troubled else {},
        tuple(weighted(random, STARTS) for _ in range(6)) if troubled else (),
        tuple(_callers(random)),
        ending,
        random.choice(MOMENTS) + random.choice((0.0, 0.5, 5.0)),
        random.random() < 0.2,
    )


def _options(random: Random) -> dict[str, Any]:
    size = random.choice((1, 1, 2, 2, 3, 4))
    return {
        "size": size,
        "min_ready": random.choice((0, 1, size)),
        "startup": Startup(
            timeout=2,
            init_timeout=random.choice((1, 3)),
            batch_size=random.choice((1, 8)),
            batch_delay=random.choice((0.0, 0.5)),
        ),
        "queue": Queue(
            max_size=random.choice((None, None, None, None, None, 0, 1, 4)),
            timeout=random.choice((None, None, 0.5, 1.0, 3.0)),
        ),
        "call_timeout": random.choice((None, None, 5.0)),
        "stop": Stop(
            cancel_grace=random.choice((0.0, 0.5, 1.0)),
            term_grace=random.choice((0.0, 0.5, 2.0)),
            drain_timeout=random.choice((0.0, 0.5, 6.0)),
        ),
        "crash_barrier": CrashBarrier(
            max_restarts=random.choice((1, 5, 5)),
            retry=random.choice(("idempotent", "idempotent", "never")),
            max_retries=random.choice((0, 1, 1, 3)),
            taint=random.choice((0.0, 0.5, 5.0)),
        ),
    }


def _faults(random: Random) -> dict[str, Any]:
    rates: dict[str, Any] = {
        name: random.choice((0.0, 0.0, rate))
        for name, rate in (("death", 0.05), ("delay", 0.1), ("silence", 0.02), ("garbage", 0.02))
    }
    return {**rates, "delay_max_s": random.choice((0.001, 0.5, 3.0))}


def _callers(random: Random) -> list[CallerPlan]:
    number = 0
    callers = []
    for position in range(random.randint(1, 5)):
        calls = []
        together = random.random() < 0.4
        hasty = random.random() < 0.3  # short calls in a row: some are sent ahead
        for _ in range(random.choice((1, 2, 3, 6)) if hasty else random.randint(1, 3)):
            number += 1
            calls.append(
                _stream(random, number) if random.random() < 0.2 else _call(random, number, hasty)
            )
        callers.append(CallerPlan(position, tuple(calls), together, random.random() < 0.3))
    return callers


def _common(random: Random, *, hasty: bool = False) -> dict[str, Any]:
    timeouts = (0.0005, 0.001, 0.002) if hasty else (0.1, 0.5, 1.0, 3.0)
    return {
        "pause_s": random.choice(MOMENTS) if random.random() < 0.3 else 0.0,
        "timeout": random.choice(timeouts) if random.random() < 0.3 else None,
        "cancel_after_s": random.choice(MOMENTS) if random.random() < 0.25 else None,
        "idempotent": None,
    }


def _call(random: Random, number: int, hasty: bool) -> CallPlan:
    tool = weighted(random, TOOLS)
    misfit = random.random() < 0.02
    common = _common(random, hasty=hasty)
    if random.random() < 0.1:
        common["idempotent"] = random.random() < 0.5
    order = {
        "call": number,
        "seconds": 0.0 if hasty and random.random() < 0.8 else random.choice(MOMENTS),
        "how": weighted(random, BEHAVIOURS),
        "extra": random.choice((0.1, 0.4, 1.5)),
    }
    return CallPlan(number, tool, order, misfit, **common)


def _stream(random: Random, number: int) -> CallPlan:
    items = random.choice((0, 1, 3, 8))
    order = {
        "call": number,
        "items": items,
        "seconds": random.choice((0.0, 0.0, 0.1, 0.5)),
        "how": weighted(random, {**BEHAVIOURS, "unencodable": 0}),
        "extra": random.choice((0.1, 0.4)),
    }
    return CallPlan(
        number,
        "items",
        order,
        False,
        **_common(random),
        items=items,
        read=random.randint(0, items) if random.random() < 0.4 else None,
        read_pause_s=random.choice((0.0, 0.0, 0.3)),
        window=random.choice((1, 2, 3, 16)),
    )
