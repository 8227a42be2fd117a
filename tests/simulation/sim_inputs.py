"""The inputs of a simulation: async iterables that know when and how far they may be pulled."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import trio
from sim_plan import CallPlan
from sim_world import World

WINDOW = 16  # as the guide says


class InputError(Exception):
    """Raised by an input in the place of an item."""


class Food:
    """The input of one call."""

    def __init__(self, world: World, plan: CallPlan) -> None:
        assert plan.meal is not None
        self.world, self.number, self.meal = world, plan.number, plan.meal
        self.pulled = 0
        self.begun = self.raised = False
        self.items: Any = self.serve()

    async def serve(self) -> AsyncGenerator[int]:
        world, number = self.world, self.number
        self.begun = True
        if not world.runs[number]:
            world.is_wrong(f"the input of {number} is pulled before its tool runs")
        for item in range(self.meal.count):
            await trio.sleep(self.meal.pause_s)
            if item == self.meal.fails_at:
                self.raised = True
                raise InputError
            self.pulled += 1
            ahead = self.pulled - world.eaten[number]
            if ahead > WINDOW:
                world.is_wrong(f"the input of {number} is {ahead} items ahead")
            if number in world.outcomes:
                world.is_wrong(f"the input of {number} is pulled when it has ended")
            yield item

    def check_over(self) -> None:
        """The call has ended."""
        if self.items.ag_frame is not None:
            self.world.is_wrong(f"the input of {self.number} is left open")
        if self.world.eaten[self.number] > self.pulled:
            self.world.is_wrong(f"the tool of {self.number} got more than there was")
