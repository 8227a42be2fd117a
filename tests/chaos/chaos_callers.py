"""The callers of the chaos: whatever they ask for, they note down what became of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import numpy as np
from _chance import weighted
from _endings import kind_of
from chaos_draw import BEHAVIOURS, CALLS, ENDLESS, ENDLESS_S, ENDLESS_SHARE, moment
from chaos_tools import answer, help_for, item
from chaos_world import Asked, Outcome, World, now, value_of

from snakepit import Pool, SnakepitError

HELD = 3  # large values that a caller keeps, and looks at again
FOOD_BYTES = 100_000
SATURATED_S = 0.3  # before a caller that was refused goes on


class Caller:
    """One task that makes calls of every kind until the round is over."""

    def __init__(
        self, world: World, pool: Pool, random: Random, numbers: itertools.count[int]
    ) -> None:
        self.world, self.pool, self.random = world, pool, random
        self.numbers = numbers
        self.held: list[tuple[int, Any]] = []
        self.left_at: dict[int, float] = {}

    async def run(self) -> None:
        while not self.world.is_over:
            await getattr(self, weighted(self.random, CALLS))()
            await anyio.sleep(moment(self.random))
            self.look_at_what_is_held()

    def order(
        self, tool: str, *, mild: bool = False, by_itself: bool = True, **more: Any
    ) -> tuple[Asked, dict[str, Any]]:
        """A call that is about to be made, and its arguments. `by_itself`: not one of a map."""
        random = self.random
        how = "return" if mild else weighted(random, BEHAVIOURS)
        asked = Asked(next(self.numbers), tool, how, tool == "again", **more)
        seconds = moment(random)
        if by_itself:
            asked.timeout = random.choice((0.05, 0.3, 1.0)) if random.random() < 0.25 else None
            asked.cancel_after = moment(random) if random.random() < 0.25 else None
            ends = asked.timeout is not None or asked.cancel_after is not None
            if ends and random.random() < ENDLESS_SHARE:
                seconds, asked.how = ENDLESS_S, weighted(random, ENDLESS)
                # Nobody ends what does not stop where workers are not the pool's.
                if asked.how == "swallow" and self.world.plan.transport == "connect":
                    asked.how = "return"
        self.world.calls[asked.number] = asked
        return asked, {"call": asked.number, "how": asked.how, "seconds": seconds}

    @asynccontextmanager
    async def noting(self, asked: Asked) -> AsyncGenerator[list[str]]:
        """What the block makes of the call; it says how it ended, or is left by an error."""
        began, kind = now(), ["cancelled"]
        error: BaseException | None = None
        ended = 0.0
        scope = anyio.CancelScope()
        if asked.cancel_after is not None:
            scope.deadline = anyio.current_time() + asked.cancel_after
        try:
            with scope:
                yield kind
        except SnakepitError as raised:
            ended = now()
            kind[0], error = kind_of(raised), bare(raised)
            if kind[0] == "PoolSaturatedError":
                await anyio.sleep(SATURATED_S)
        finally:
            left_at = self.left_at.pop(asked.number, None)
            if left_at is None and asked.cancel_after is not None and scope.cancel_called:
                left_at = began + asked.cancel_after
            outcome = Outcome(kind[0], began, ended or now(), left_at, error)
            if self.world.helping[asked.number]:
                self.world.is_wrong(f"call {asked.number} ended while it is helped")
            self.world.ended(asked, outcome)

    def expect(self, asked: Asked, found: Any, wanted: Any) -> None:
        if found != wanted:
            text = f"call {asked.number} ({asked.tool}, {asked.how}): {found!r} for {wanted!r}"
            self.world.is_wrong(text[:500])

    # -- kinds of calls ------------------------------------------------------------------------------

    async def call(self) -> None:
        tools = ("work", "work", "again", *(("aside",) if self.world.plan.has_async else ()))
        asked, params = self.order(self.random.choice(tools))
        wanted = answer(asked.number) if asked.tool == "aside" else (answer(asked.number), None)
        async with self.noting(asked) as kind:
            found = await self.pool.execute(asked.tool, params, timeout=asked.timeout)
            kind[0] = "value"
            self.expect(asked, found, wanted)

    async def large(self) -> None:
        """A value that fills pipes, or travels through shared memory, both ways."""
        asked, params = self.order(self.random.choice(("work", "again")))
        size = self.random.choice((2**16, 2**18, 2**20 + 8, 6 * 2**20))
        if self.random.random() < 0.3 and self.world.plan.transport == "shm":
            ballast = self.pool.empty(size // 8, "i8")
            ballast[:] = asked.number
        elif self.random.random() < 0.5:
            ballast = np.full(size // 8, asked.number, "i8")
        else:
            ballast = asked.number.to_bytes(8, "little") * (size // 8)
        async with self.noting(asked) as kind:
            found = await self.pool.execute(
                asked.tool, params | {"ballast": ballast}, timeout=asked.timeout
            )
            kind[0] = "value"
            text, back = found
            self.expect(asked, text, answer(asked.number))
            self.held.append((asked.number, back))
            del self.held[:-HELD]
            if len(value_of(back)) != size:
                self.world.is_wrong(f"call {asked.number}: {len(back)} bytes of {size}")

    def look_at_what_is_held(self) -> None:
        """Nobody else has written there."""
        for number, value in self.held:
            array = np.frombuffer(value, "i8")
            if not (array == number).all():
                self.world.is_wrong(f"the value of call {number} has changed: {array[:3]}")
                self.held = []

    async def stream(self) -> None:
        random = self.random
        count, size = random.choice((0, 3, 20)), random.choice((10, 10, 200_000))
        asked, params = self.order("items")
        params |= {"count": count, "size": size, "seconds": params["seconds"] / 10}
        read = random.randint(0, count) if random.random() < 0.4 else None
        pause = random.choice((0.0, 0.0, 0.02))
        window = random.choice((1, 4, 16))
        async with self.noting(asked) as kind:
            async with self.pool.stream(
                "items", params, timeout=asked.timeout, window=window
            ) as chunks:
                taken = 0
                while taken != read:
                    try:
                        chunk = await anext(chunks)
                    except StopAsyncIteration:
                        self.expect(asked, taken, count)
                        break
                    self.expect(asked, chunk[0], item(asked.number, taken, 0)[0])
                    self.expect(asked, chunk[1], item(asked.number, taken, size)[1])
                    taken += 1
                    await anyio.sleep(pause)
                self.left_at[asked.number] = now()
            kind[0] = "items" if read is None else "left"

    async def eat(self) -> None:
        """A call with a stream as its input, which fills the pipe if its tool is slow."""
        count, pause = self.random.choice((0, 2, 30)), self.random.choice((0.0, 0.0, 0.01))
        asked, params = self.order("eat")
        params["seconds"] /= 10

        async def food() -> AsyncIterator[bytes]:
            for _ in range(count):
                await anyio.sleep(pause)
                yield bytes(FOOD_BYTES)

        async with self.noting(asked) as kind:
            found = await self.pool.execute("eat", params | {"food": food()}, timeout=asked.timeout)
            kind[0] = "value"
            self.expect(asked, found, (answer(asked.number), count * FOOD_BYTES))

    async def confer(self) -> None:
        asked, params = self.order("confer")
        async with self.noting(asked) as kind:
            found = await self.pool.execute("confer", params, timeout=asked.timeout)
            kind[0] = "value"
            self.expect(asked, found, (answer(asked.number), help_for(asked.number)))

    async def session(self) -> None:
        """Calls that count in the state of a session: none is lost, none counts twice."""
        random, certain, made, worker = self.random, 0, 0, None
        try:
            async with self.pool.session() as session:
                for _ in range(random.randint(1, 5)):
                    asked, params = self.order(
                        "count", mild=random.random() < 0.7, session=session.id
                    )
                    made += 1
                    async with self.noting(asked) as kind:
                        found = await session.execute("count", params, timeout=asked.timeout)
                        kind[0] = "value"
                        text, counted, pid = found
                        self.expect(asked, text, answer(asked.number))
                        if not certain < counted <= made:
                            self.world.is_wrong(
                                f"call {asked.number} of a session counts {counted} in {worker}, "
                                f"and {certain} to {made} were before it"
                            )
                        if worker not in (None, pid):
                            self.world.is_wrong(f"a session moved from {worker} to {pid}")
                        certain, worker = counted, pid
                    if random.random() < 0.2:
                        await anyio.sleep(moment(random))
        except SnakepitError as error:
            if kind_of(error) not in ("PoolClosedError", "PoolSaturatedError"):
                self.world.is_wrong(f"a session was refused with {error!r}")

    async def map(self) -> None:
        """Each result is that of one of its calls, and none comes twice."""
        random = self.random
        count = random.randint(1, 8)
        orders = [
            self.order("again", mild=random.random() < 0.7, by_itself=False) for _ in range(count)
        ]
        whole = Asked(next(self.numbers), "map", "return")
        whole.cancel_after = moment(random) if random.random() < 0.25 else None
        self.world.calls[whole.number] = whole
        calls = [asked for asked, _ in orders]
        results: list[Any] = []
        ordered = random.random() < 0.5
        began = now()
        read = random.randint(0, count) if random.random() < 0.3 else None
        try:
            async with self.noting(whole) as kind:
                async with self.pool.map(
                    "again",
                    [params for _, params in orders],
                    limit=random.choice((None, 1, 3)),
                    ordered=ordered,
                    on_error="return",
                ) as mapped:
                    while len(results) != read:
                        try:
                            results.append(await anext(mapped))
                        except StopAsyncIteration:
                            self.expect(whole, len(results), count)
                            break
                    self.left_at[whole.number] = now()
                kind[0] = "items" if read is None else "left"
        finally:
            self.note_mapped(calls, results, began, ordered=ordered)

    def note_mapped(
        self, calls: list[Asked], results: list[Any], began: float, *, ordered: bool
    ) -> None:
        """The map has been left, in whatever way, and none of its calls may run any more."""
        world, ended = self.world, now()
        texts = [result[0] for result in results if isinstance(result, tuple)]
        if len(set(texts)) != len(texts) or not {answer(c.number) for c in calls} >= set(texts):
            world.is_wrong(f"a map of {calls} gives {texts}")
        values = [asked for asked in calls if answer(asked.number) in texts]
        for asked in values:
            world.ended(asked, Outcome("value", began, ended, ended))
        for place, result in enumerate(results):
            if ordered and isinstance(result, tuple):
                self.expect(calls[place], result[0], answer(calls[place].number))
            if isinstance(result, BaseException):
                outcome = Outcome(kind_of(result), began, ended, ended, bare(result))
                if ordered:
                    world.ended(calls[place], outcome)
                else:
                    world.unclaimed.append(([c for c in calls if c not in values], outcome))
        for asked in calls:
            if asked.number not in world.outcomes:
                world.ended(asked, Outcome("unread", began, ended, ended))


def bare(error: BaseException) -> BaseException:
    """Its frames, and those of what came before it, would keep what the call was given."""
    error.__context__ = None
    return error.with_traceback(None)


class Host:
    """Offers `help` to the tools of one pool, and knows whether the call is over."""

    def __init__(self, world: World, pool: Pool) -> None:
        self.world = world
        pool.add_host_tool(self.help)

    async def help(self, call: int, seconds: float) -> str:
        if call in self.world.outcomes:
            self.world.is_wrong(f"call {call} is helped when it has ended")
        self.world.helping[call] += 1
        try:
            await anyio.sleep(seconds)
        finally:
            self.world.helping[call] -= 1
        return help_for(call)
