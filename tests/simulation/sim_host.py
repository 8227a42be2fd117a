"""The host tool of a simulation: it knows for which call it runs, and that this call is not over."""

from __future__ import annotations

import trio
from _endings import kind_of
from sim_spies import making
from sim_world import World

from snakepit import Pool, SnakepitError

SLOW_STOP_S = 0.05
NESTED = 50_000  # the numbers of the calls that host tools make begin here


class HelpError(Exception):
    """Raised by the host tool."""


def help_for(call: int, number: int) -> str:
    return f"help {number} for {call}"


class Host:
    """Offers `help` to the tools of one pool."""

    def __init__(self, world: World, pool: Pool) -> None:
        self.world, self.pool = world, pool
        self.nested = NESTED
        pool.add_host_tool(self.help)
        pool.add_host_tool(self.help_plainly)

    def help_plainly(self, call: int, number: int) -> str:
        self.begin(call, number)
        return help_for(call, number)

    def begin(self, call: int, number: int) -> None:
        world = self.world
        if not world.runs[call] or call in world.outcomes:
            world.is_wrong(f"call {call} is helped when it does not run")
        world.note("helps", call, number)

    async def help(self, call: int, number: int) -> str:
        world = self.world
        talk = world.calls[call].talk
        assert talk is not None
        self.begin(call, number)
        world.helping[call] += 1
        try:
            await trio.sleep(talk.seconds)
            if talk.how == "raise":
                raise HelpError
            if talk.how == "nest":
                await self.nest()
        except trio.Cancelled:
            if talk.how == "slow_stop":
                with trio.CancelScope(shield=True):
                    await trio.sleep(SLOW_STOP_S)
            raise
        finally:
            world.helping[call] -= 1
            if call in world.outcomes:
                world.is_wrong(f"call {call} is helped when it has ended")
        return help_for(call, number)

    async def nest(self) -> None:
        """A call on behalf of the one that is helped, perhaps one that could only wait for it."""
        self.nested += 1
        making.set(self.nested)
        order = {"call": self.nested, "seconds": 0.01, "how": "return", "extra": 0.0}
        asked = trio.current_time()
        kind = "cancelled"
        try:
            await self.pool.execute("work", {"order": order})
            kind = "value"
        except SnakepitError as error:
            kind = kind_of(error)
            raise
        finally:
            self.world.nested_endings[kind] += 1
            waited = trio.current_time() - asked
            alone = self.world.plan.options["size"] == 1 and not self.world.culprits
            if alone and waited:  # the only worker has the call that it was made for
                self.world.is_wrong(f"call {self.nested} waited {waited:g} s for itself")
