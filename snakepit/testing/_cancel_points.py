"""`cancel_at_every_checkpoint`: the same scenario again and again, cancelled ever later."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from random import Random
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import trio

from snakepit.testing._seeded import run_seeded

Steps: TypeAlias = Literal["program", "task"]


class CancelPoint(trio.abc.Instrument):
    """A cancel scope that cancels itself at one checkpoint; put it around what is tested.

    `number`: at the how-manieth, 0 for on entering. `cancelled`: it has come to that.
    """

    def __init__(self, number: int, steps: Steps) -> None:
        self.number = number
        self._left, self._steps = number, steps
        self._scope = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None

    @property
    def cancelled(self) -> bool:
        """The block has been told to end."""
        return self._scope.cancel_called

    @property
    def entered(self) -> bool:
        """The block has begun."""
        return self._task is not None

    def __enter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a cancel point is for one block, once")
        self._task = trio.lowlevel.current_task()
        self._scope.__enter__()
        if self.number == 0:
            self._scope.cancel()
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        trio.lowlevel.remove_instrument(self)
        swallowed: bool | None = self._scope.__exit__(kind, error, traceback)
        return swallowed

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio's notice that a task has given up its turn."""
        if self._steps == "program" or task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


def cancel_at_every_checkpoint(
    main: Callable[[CancelPoint], Awaitable[Any]],
    *,
    seed: int = 0,
    steps: Steps = "program",
    first: int = 0,
) -> int:
    """Run `main(point)` in virtual time until its block `with point:` ends without being cancelled.

    In the first run the block is cancelled on entering, in the next at the first checkpoint in
    it, then at the second, and so on. `main` makes all that it needs anew, and checks what has to
    hold after the block, however it ended::

        async def main(point):
            async with snakepit.open_pool(Adapter, size=1, transport="memory") as pool:
                with point:
                    await pool.execute("work")
                assert pool.stats().busy == 0

    Args:
        main: the scenario.
        seed: the schedule, the same in each run; see `run_seeded`.
        steps: "program" counts the turns of all tasks: every moment at which a cancellation can come.
            "task" counts those of the task that entered the block.
        first: where to begin, to look at a failure again.

    Returns: how many checkpoints there are, which is how often it was cancelled after entering.

    Raises: what `main` raised, with a note that tells at which checkpoint it had been cancelled.
    """
    for number in itertools.count(first):
        point = CancelPoint(number, steps)

        async def cancelled_once(_random: Random, point: CancelPoint = point) -> None:
            await main(point)

        try:
            run_seeded(seed, cancelled_once)
        except BaseException as error:
            error.add_note(f"cancelled at checkpoint {number}; first={number} begins there")
            raise
        if not point.entered:
            raise RuntimeError("main has to enter the block `with point:`")
        if not point.cancelled:
            return number - 1
    raise AssertionError("unreachable")
