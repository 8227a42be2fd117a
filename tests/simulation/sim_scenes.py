"""Scenes for `cancel_at_every_checkpoint`: a pool, and calls of which one thing is cancelled anywhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import _shares
import trio
from sim_callers import make_call
from sim_checks import problems
from sim_host import Host
from sim_plan import CallerPlan, CallPlan, MapPlan, Plan, Step
from sim_sessions import of_kept_states
from sim_spies import spying
from sim_tools import SimTools, set_world
from sim_world import World

from snakepit import CrashBarrier, Pool, Queue, Session, Sessions, Startup, Stop, open_pool
from snakepit.testing import CancelPoint, MemoryTransport, cancel_at_every_checkpoint
from snakepit.testing._cancel_points import Steps

SEEDS = (0, 1, 2)
BEFORE, TESTED, AFTER = 1, 2, 3  # the numbers of the calls; from OTHERS on those of others
OTHERS = 10

OPTIONS: dict[str, Any] = {
    "startup": Startup(),
    "queue": Queue(),
    "stop": Stop(cancel_grace=0.5, term_grace=0.5, drain_timeout=1),
    "crash_barrier": CrashBarrier(),
    "sessions": Sessions(),
}


def in_turns(*choices: Iterable[Any]) -> list[Any]:
    """Each combination on each of the schedules; in `make test` on one of them, in turns."""
    return _shares.in_turns(SEEDS, *choices)


def a_call(
    number: int, how: str = "return", tool: str = "work", seconds: float = 0.2, **more: Any
) -> CallPlan:
    updates = more.pop("updates", 0)
    order = {"call": number, "seconds": seconds, "how": how, "extra": 0.1, "updates": updates}
    return CallPlan(number, tool, order, **more)


def a_stream(
    items: int,
    read: int | None,
    window: int,
    how: str = "return",
    seconds: float = 0.1,
    **more: Any,
) -> CallPlan:
    order = {"call": TESTED, "items": items, "seconds": seconds, "how": how, "extra": 0.1}
    return CallPlan(TESTED, "items", order, items=items, read=read, window=window, **more)


class Scene:
    """One pool and its calls, of which some are made under a cancel point."""

    def __init__(
        self, *steps: Step, size: int = 1, starts: tuple[str, ...] = (), **options: Any
    ) -> None:
        options = {**OPTIONS, "size": size, "min_ready": size, **options}
        plan = Plan(0, options, {}, starts, (CallerPlan(0, steps),), "calm", 0.0, False)
        self.world = World(plan)
        set_world(self.world)
        transport = MemoryTransport(faults=self.world.meet)
        self.pool = open_pool(SimTools, transport=transport, name="p", **options)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Pool]:
        """The pool; everything is checked when it is closed."""
        with spying(self.world):
            async with self.pool as pool:
                Host(self.world, pool)
                yield pool
            self.check()

    async def call(self, pool: Pool, number: int, session: Session | None = None) -> None:
        await make_call(self.world, pool, self.world.calls[number], session)

    def kind(self, number: int) -> str:
        return self.world.outcomes[number].kind

    def check(self) -> None:
        self.world.closed_at = trio.current_time()
        found = list(problems(self.world))
        assert not found, "\n".join(found)

    def check_quiet(self, pool: Pool) -> None:
        """No session is left, and the workers keep nothing of those that are over."""
        assert len(pool._core.sessions) == 0
        found = list(of_kept_states(self.world.workers, pool._core))
        assert not found, "\n".join(found)


def cancel_anywhere(
    make: Callable[[], Scene],
    use: Callable[[Scene, Pool], Awaitable[None]],
    *,
    seed: int,
    steps: Steps = "program",
) -> int:
    """Cancel `use` at every checkpoint. After each time a call finds a pool that serves, and is whole."""

    async def main(point: CancelPoint) -> None:
        scene = make()
        async with scene.opened() as pool:
            with point:
                await use(scene, pool)
            assert pool.stats().busy == pool.stats().queued == 0
            await scene.call(pool, AFTER)
            scene.check_quiet(pool)
        assert scene.kind(AFTER) == "value"

    return cancel_at_every_checkpoint(main, seed=seed, steps=steps)


def a_map(count: int, how: str = "return", seconds: float = 0.1, **more: Any) -> MapPlan:
    """A map of so many calls, of which the second one does as it is told."""
    tool, session, timeout = more.pop("tool", "work"), more.get("session"), more.get("timeout")
    hows = ["return", how, *["return"] * count][:count]
    calls = [
        a_call(OTHERS + place, how, tool, seconds, session=session, timeout=timeout)
        for place, how in enumerate(hows)
    ]
    return MapPlan(tuple(calls), tool, **more)
