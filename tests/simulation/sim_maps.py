"""Running the maps of a plan, and what has to hold when the block of one is left."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import trio
from _endings import kind_of
from sim_inputs import InputError
from sim_plan import MapPlan
from sim_spies import making
from sim_tools import answer_of
from sim_world import Outcome, World

from snakepit import Pool, Session, SnakepitError

HELD_PER_WORKER = 10  # as the guide says


class Source:
    """The input of a map. It knows how far ahead of its reader it may be."""

    def __init__(self, world: World, plan: MapPlan) -> None:
        self.world, self.plan = world, plan
        self.limit = plan.limit or HELD_PER_WORKER * world.plan.options["size"]
        self.taken = self.read = 0
        self.raised = False
        self.iterator: Any = self.waiting() if plan.waits else self.plain()

    def plain(self) -> Iterator[dict[str, Any]]:
        while self.has_more():
            yield self.next()

    async def waiting(self) -> AsyncIterator[dict[str, Any]]:
        while self.has_more():
            await trio.sleep(0.1 * (self.taken % 3))
            yield self.next()

    def has_more(self) -> bool:
        """As many as there are; of an endless one more would be too many."""
        if self.taken == self.plan.fails_at:
            self.raised = True
            raise InputError
        if self.taken < len(self.plan.calls):
            return True
        if self.plan.endless:
            self.world.is_wrong(f"a map takes item {self.taken + 1}, with {self.read} read")
        return False

    def next(self) -> dict[str, Any]:
        call = self.plan.calls[self.taken]
        self.taken += 1
        if self.taken - self.read > self.limit:
            self.world.is_wrong(f"a map holds {self.taken - self.read} items, limit {self.limit}")
        making.set(call.number)  # the task that takes from here makes the call
        return call.params()

    @property
    def is_closed(self) -> bool:
        if self.plan.waits:
            return self.iterator.ag_frame is None
        return inspect.getgeneratorstate(self.iterator) == inspect.GEN_CLOSED


async def run_map(world: World, pool: Pool, plan: MapPlan, session: str | Session | None) -> None:
    """Make the map and note how it and each of its calls ended."""
    await trio.sleep(plan.pause_s)
    source = Source(world, plan)
    came: list[Any] = []
    kind, failure, entered = "cancelled", None, False
    scope = trio.CancelScope()
    if plan.cancel_after_s is not None:
        scope.deadline = trio.current_time() + plan.cancel_after_s
    world.note("maps", plan.tool, len(plan.calls))
    try:
        with scope:
            async with pool.map(
                plan.tool,
                source.iterator,
                limit=plan.limit,
                ordered=plan.ordered,
                on_error=plan.on_error,  # type: ignore[arg-type]
                timeout=plan.timeout,
                session=session,
            ) as results:
                entered = True
                while plan.read is None or len(came) < plan.read:
                    try:
                        value = await anext(results)
                    except StopAsyncIteration:
                        kind = "items"
                        break
                    came.append(value)
                    source.read += 1
                    await trio.sleep(plan.read_pause_s)
                else:
                    kind = "left"
    except (SnakepitError, InputError) as error:
        kind, failure = kind_of(error), error
    finally:
        world.note("map ended", kind)
        world.map_endings[kind] += 1
        if entered:
            Ending(world, plan, source, came, kind, failure).note()


class Ending:
    """What is known when the block of a map is left."""

    def __init__(
        self,
        world: World,
        plan: MapPlan,
        source: Source,
        came: list[Any],
        kind: str,
        failure: Exception | None,
    ) -> None:
        self.world, self.plan, self.source = world, plan, source
        self.came, self.kind, self.failure = came, kind, failure
        self.unread = [call.number for call in plan.calls[: source.taken]]
        self.now = trio.current_time()

    def note(self) -> None:
        self.whole()
        for place, result in enumerate(self.came):
            self.read(place, result)
        if isinstance(self.failure, SnakepitError):
            self.failed(self.failure)
        elif self.failure is not None and not self.source.raised:
            self.is_wrong("its input did not raise")
        if self.kind == "items" and self.unread:
            self.is_wrong(f"came to its end, and these were never read: {self.unread}")
        for number in list(self.unread):
            if number in self.world.accepted:
                self.ended(number, "unread")

    def is_wrong(self, text: str) -> None:
        self.world.is_wrong(f"the map of {[c.number for c in self.plan.calls]} {text}")

    def whole(self) -> None:
        if not self.source.is_closed:
            self.is_wrong("left its input open")
        running = self.world.running_of(self.unread)
        if running:
            self.is_wrong(f"was left while {running} run")
        accepted = [self.world.accepted.get(number) for number in self.unread]
        if not all(call is None or call.settled for call in accepted):
            self.is_wrong("was left with calls that are not over")

    def read(self, place: int, result: Any) -> None:
        """One of the results: whose is it?"""
        if isinstance(result, Exception):
            if self.plan.on_error != "return":
                self.is_wrong(f"gave {result!r} as a result")
            number = self.of_error(result)
            if number is not None:
                self.in_turn(place, number)
                self.ended(number, kind_of(result), error=result)
            return
        for number in self.unread:
            if result == answer_of(self.world.calls[number]):
                self.in_turn(place, number)
                self.ended(number, "value", value=result)
                return
        self.is_wrong(f"gave {result!r}, which is nobody's or has been given")

    def failed(self, error: SnakepitError) -> None:
        number = self.of_error(error)
        if number is not None:
            self.ended(number, kind_of(error), error=error)

    def of_error(self, error: Exception) -> int | None:
        """Whose error it is: the very one of a call, or of an item that never became one."""
        for number in self.unread:
            call = self.world.accepted.get(number)
            if call is not None and error in (call.fate, call.error):
                return number
        for number in self.unread:
            if number not in self.world.accepted:
                return number
        self.is_wrong(f"raised or gave {error!r}, which none of its calls did")
        return None

    def in_turn(self, place: int, number: int) -> None:
        if self.plan.ordered and self.plan.calls[place].number != number:
            self.is_wrong(f"is ordered, and gave {number} as its result {place}")

    def ended(
        self, number: int, kind: str, value: Any = None, error: BaseException | None = None
    ) -> None:
        world = self.world
        self.unread.remove(number)
        call = world.accepted.get(number)
        asked = world.asked.get(number, self.now)
        ended = self.now if call is None else world.settled_at.get(call.id, self.now)
        world.note("ended", number, kind)
        if number in world.outcomes:
            self.is_wrong(f"ended {number} twice")
        world.outcomes[number] = Outcome(number, kind, asked, ended, value, error)
