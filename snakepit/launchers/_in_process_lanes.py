"""Lanes on the host's own loop: async tools as tasks of it, sync tools in the worker's one thread.

A cancelled async tool gets its loop's own cancellation, as in a worker process: on trio that of a
scope, on asyncio one `Task.cancel()`. `kill` takes everything away: a lane that has been killed
begins nothing, and what it still runs is cancelled until it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import trio

from snakepit.launchers._tool_thread import ToolThread
from snakepit.process import shielded
from snakepit.worker._execution import Execution
from snakepit.worker._inputs import Arrival, AsyncInputIterator, Input
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import Job
from snakepit.worker._lane import Hook, Lane
from snakepit.worker._loop_lanes import AsyncioLane, LoopLane, TrioLane
from snakepit.worker._toolbox import Tool

KILL_INTERVAL_S = 0.05


class InProcessLane(LoopLane):
    """What is the same on both loops. All of it is called on the loop."""

    def __init__(
        self,
        execution: Execution,
        interrupt: Interrupt,
        hooks: list[Hook],
        thread: ToolThread,
        tools: Mapping[str, Tool],
        drained: Callable[[], Awaitable[None]],
    ) -> None:
        initialize, cleanup = hooks
        super().__init__(execution, interrupt, initialize, cleanup)
        self._killed = False
        self._thread, self._tools, self._drained = thread, tools, drained

    def grant(self, job: Job, count: int) -> None:
        if job.credits is not None:
            self._thread.feed(job.credits, count)
        self._poke()

    def supply(self, target: Input, arrival: Arrival) -> None:
        if isinstance(target, AsyncInputIterator):
            super().supply(target, arrival)
        else:
            self._thread.feed(target.arrived, arrival)

    def submit(self, job: Job) -> None:
        if not self._killed:
            super().submit(job)

    def kill(self) -> None:
        """Begin nothing more. A sync tool may look, an async one is cancelled by its task."""
        self._killed = True
        self.waiting.clear()
        if (job := self.running) is not None:
            job.cancelled = True
            Lane.cancel(self, job)  # a sync tool that waits

    def call_soon(self, function: Callable[[], object]) -> None:
        function()

    async def _execute(self, job: Job) -> None:
        tool = self._tools.get(job.tool)
        if tool is None or tool.is_async:
            await super()._execute(job)
        else:
            await self._thread.run(partial(self._run_sync, job))
        # No call begins before the answer of the one before has gone out, as where writing blocks:
        # the host counts on it when a worker dies.
        await self._drained()

    def _run_sync(self, job: Job) -> None:
        # As on the main thread of a worker process; an unfinished generator is closed here too.
        prepared = self._execution.prepare(job)
        if prepared is not None:
            self._execution.run(job, *prepared)
        self._execution.release()

    def _guarded(self, _job: Job, awaitable: Any, /) -> Any:
        return awaitable  # nothing is interrupted here


class InProcessTrioLane(InProcessLane, TrioLane):
    """On trio."""

    _closing_scope: trio.CancelScope | None = None

    def kill(self) -> None:
        super().kill()
        if self._closing_scope is not None:
            self._closing_scope.cancel()

    async def _shielded(self, closing: Any) -> None:
        with trio.CancelScope(shield=True) as self._closing_scope:
            await closing
        self._closing_scope = None


class InProcessAsyncioLane(InProcessLane, AsyncioLane):
    """On asyncio."""

    async def _until_done(self, task: asyncio.Task[Any]) -> None:
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:  # this worker is killed
            await shielded(partial(_end, task))  # noqa: ASYNC102 - a task that will not end is its user's
            raise


async def _end(task: asyncio.Task[Any]) -> None:  # noqa: ASYNC910 - at once if it has ended
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=KILL_INTERVAL_S)


def make_lane(
    is_trio: bool,  # noqa: FBT001 - the loop that runs
    execution: Execution,
    interrupt: Interrupt,
    hooks: list[Hook],
    thread: ToolThread,
    tools: Mapping[str, Tool],
    drained: Callable[[], Awaitable[None]],
) -> InProcessLane:
    """The lane for the running loop."""
    kind = InProcessTrioLane if is_trio else InProcessAsyncioLane
    return kind(execution, interrupt, hooks, thread, tools, drained)
