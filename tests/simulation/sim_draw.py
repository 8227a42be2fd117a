"""Plans are drawn from seeds here.

Times are drawn from a few values on purpose: things that happen at the very same moment are where
the surprises are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random
from typing import Any

from _chance import weighted
from sim_plan import (
    CallerPlan,
    CallPlan,
    EndPlan,
    MapPlan,
    MealPlan,
    Plan,
    SessionPlan,
    Step,
    TalkPlan,
)

from snakepit import CrashBarrier, Queue, Sessions, Startup, Stop

MOMENTS = (0.0, 0.0, 0.0005, 0.002, 0.01, 0.1, 0.5, 0.5, 1.0, 1.0, 2.0, 3.0)

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
AFFINITIES = {"strict_queue": 45, "hint": 40, "strict_fail_fast": 15}
CALLERS = {"plain": 60, "map": 18, "session": 22}
# Around what may be sent ahead, and what travels in one frame.
BALLAST = {0: 500, 2**16 - 200: 6, 2**16: 6, 2**20: 1, 2**20 + 1: 1}
ON_DEMAND = ("s1", "s2")


def draw_plan(seed: int) -> Plan:
    random = Random(f"plan {seed}")
    troubled = random.random() < 0.7
    restless = random.random() < 0.15
    ending = weighted(random, ENDINGS)
    options = _options(random)
    if restless:  # a session has to move, or to wait, while others have its worker
        sessions = Sessions(affinity=random.choice(("hint", "hint", "strict_queue")))
        size = random.choice((2, 3))
        options |= {"size": size, "min_ready": 1, "sessions": sessions, "queue": Queue()}
    return Plan(
        seed,
        options,
        _faults(random) if troubled else {},
        tuple(weighted(random, STARTS) for _ in range(6)) if troubled else (),
        tuple(_callers(random, restless=restless)),
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
        "sessions": Sessions(
            affinity=weighted(random, AFFINITIES),
            ttl=random.choice((0.5, 2.0, 3600.0)),
            max=random.choice((1, 2, *[10_000] * 6)),
        ),
    }


def _faults(random: Random) -> dict[str, Any]:
    rates: dict[str, Any] = {
        name: random.choice((0.0, 0.0, rate))
        for name, rate in (("death", 0.05), ("delay", 0.1), ("silence", 0.02), ("garbage", 0.02))
    }
    return {**rates, "delay_max_s": random.choice((0.001, 0.5, 3.0))}


def _callers(random: Random, *, restless: bool) -> Iterator[CallerPlan]:
    numbers = itertools.count(1)
    if restless:
        yield CallerPlan(0, tuple(_restless(random, numbers)))
    for position in range(restless, random.randint(1, 6)):
        kind = weighted(random, CALLERS)
        together = random.random() < 0.4
        session = _session(random, position) if kind == "session" else None
        if kind == "map":
            steps: list[Step] = [_map(random, numbers, _on_demand(random))]
        else:
            steps = list(_steps(random, numbers, session))
        yield CallerPlan(position, tuple(steps), together, random.random() < 0.3, session)


def _restless(random: Random, numbers: Iterator[int]) -> Iterator[CallPlan]:
    """Short calls in one session, one by one."""
    for number in itertools.islice(numbers, 5):
        how = weighted(random, {"return": 12, "crash": 1})
        order = {"call": number, "seconds": 0.002, "how": how, "extra": 0.0}
        tool, pause = random.choice(("work", "again")), random.choice((0.0, 0.1, 0.5))
        yield CallPlan(number, tool, order, pause_s=pause, session=ON_DEMAND[0])


def _on_demand(random: Random) -> str | None:
    return random.choice(ON_DEMAND) if random.random() < 0.4 else None


def _session(random: Random, position: int) -> SessionPlan:
    return SessionPlan(
        random.choice((f"b{position}", ON_DEMAND[0])),
        weighted(random, AFFINITIES),
        random.choice((None, None, 0.5, 2.0)),
        random.choice(MOMENTS) if random.random() < 0.3 else 0.0,
        random.choice(MOMENTS) if random.random() < 0.3 else None,
        random.choice(MOMENTS) if random.random() < 0.15 else None,
    )


def _steps(random: Random, numbers: Iterator[int], session: SessionPlan | None) -> Iterator[Step]:
    hasty = random.random() < 0.3  # short calls in a row: some are sent ahead
    own = random.choice((None, *ON_DEMAND))  # the session that most of its calls are in
    for _ in range(random.choice((1, 2, 3, 6)) if hasty else random.randint(1, 4)):
        where = own if random.random() < 0.6 else None
        if session is not None:
            where = session.id
        lot = random.random()
        if lot < 0.05 and session is not None:
            yield _map(random, numbers, where)
        elif lot < 0.03:
            yield EndPlan(
                random.choice(ON_DEMAND),
                random.choice(MOMENTS),
                random.choice(MOMENTS) if random.random() < 0.2 else None,
            )
        elif lot < 0.1:
            yield _meal(random, next(numbers), where)
        elif lot < 0.18:
            yield _talk(random, next(numbers), where)
        elif lot < 0.3:
            yield _stream(random, next(numbers), where)
        else:
            yield _call(random, next(numbers), where, hasty=hasty)


def _common(random: Random, *, hasty: bool = False) -> dict[str, Any]:
    timeouts = (0.0005, 0.001, 0.002) if hasty else (0.1, 0.5, 1.0, 3.0)
    return {
        "pause_s": random.choice(MOMENTS) if random.random() < 0.3 else 0.0,
        "timeout": random.choice(timeouts) if random.random() < 0.3 else None,
        "cancel_after_s": random.choice(MOMENTS) if random.random() < 0.25 else None,
    }


def _order(random: Random, number: int, *, hasty: bool = False) -> dict[str, Any]:
    return {
        "call": number,
        "seconds": 0.0 if hasty and random.random() < 0.8 else random.choice(MOMENTS),
        "how": weighted(random, BEHAVIOURS),
        "extra": random.choice((0.1, 0.4, 1.5)),
    }


def _call(random: Random, number: int, session: str | None, *, hasty: bool) -> CallPlan:
    order = _order(random, number, hasty=hasty)
    if random.random() < 0.1:
        order["updates"] = random.choice((1, 2, 5))
    return CallPlan(
        number,
        weighted(random, TOOLS),
        order,
        misfit=random.random() < 0.02,
        **_common(random, hasty=hasty),
        idempotent=random.random() < 0.5 if random.random() < 0.1 else None,
        session=session,
        hears=random.choice(("at once", "at once", "slowly", "enough"))
        if random.random() < (0.8 if "updates" in order else 0.05)
        else None,
        ballast=weighted(random, BALLAST),
    )


def _meal(random: Random, number: int, session: str | None) -> CallPlan:
    count = random.choice((0, 3, 40, 40))
    order = {
        "call": number,
        "seconds": random.choice((0.0, 0.0, 0.1)),
        "how": weighted(random, {**BEHAVIOURS, "unencodable": 0}),
        "extra": random.choice((0.1, 0.4)),
    }
    meal = MealPlan(
        count,
        random.choice((0.0, 0.0, 0.1)),
        random.randint(0, count) if random.random() < 0.15 else None,
        random.randint(0, count) if random.random() < 0.3 else None,
    )
    return CallPlan(
        number,
        "eat",
        order,
        **_common(random),
        idempotent=random.choice((None, True)),
        session=session,
        meal=meal,
    )


def _talk(random: Random, number: int, session: str | None) -> CallPlan:
    order = {
        "call": number,
        "seconds": random.choice((0.0, 0.1)),
        "how": weighted(random, {**BEHAVIOURS, "unencodable": 0}),
        "extra": random.choice((0.1, 0.4)),
    }
    talk = TalkPlan(
        random.choice((1, 1, 3)),
        random.choice((0.0, 0.1, 0.5)),
        random.choice(("return", "slow_stop", "raise", "nest", "nest", "plain", "plain")),
        random.random() < 0.3,
    )
    return CallPlan(number, "confer", order, **_common(random), session=session, talk=talk)


def _stream(random: Random, number: int, session: str | None) -> CallPlan:
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
        **_common(random),
        session=session,
        items=items,
        read=random.randint(0, items) if random.random() < 0.4 else None,
        read_pause_s=random.choice((0.0, 0.0, 0.3)),
        window=random.choice((1, 2, 3, 16)),
    )


def _map(random: Random, numbers: Iterator[int], session: str | None) -> MapPlan:
    tool = weighted(random, {**TOOLS, "nonsense": 1})
    common = _common(random)
    endless = random.random() < 0.25
    limit: int | None = random.choice((1, 1, 2, 3, 5))
    read: int | None = random.choice((0, 1, 2))
    if endless:
        assert limit is not None
        assert read is not None
        count = read + limit + 1
    else:
        limit = random.choice((None, None, 1, 2, 3))
        read = read if random.random() < 0.25 else None
        count = random.choice((0, 1, 2, 4, 7))
    hasty = random.random() < 0.5
    calls = [
        CallPlan(
            number,
            tool,
            _order(random, number, hasty=hasty),
            timeout=common["timeout"],
            session=session,
        )
        for number in itertools.islice(numbers, count)
    ]
    return MapPlan(
        tuple(calls),
        tool,
        endless,
        limit,
        random.random() < 0.5,
        random.choice(("cancel", "return")),
        session=session,
        read=read,
        read_pause_s=random.choice((0.0, 0.0, 0.3)),
        waits=random.random() < 0.5,
        fails_at=random.randint(0, count) if not endless and random.random() < 0.1 else None,
        **common,
    )
