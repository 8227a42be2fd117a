"""A pool whose block is left in some way while its workers are in some state: `… FOLDER JSON-CASE`.

As a program it is left by signals: it prints "set" when all workers are in their state.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel
from attrs import asdict, frozen
from family_adapters import SlowFamily, SyncFamily

import snakepit

STOP = snakepit.Stop(cancel_grace=0.2, term_grace=0.2, drain_timeout=0.5)
BOUND_S = STOP.cancel_grace + STOP.term_grace + STOP.drain_timeout + 1
MORE_THAN_A_PIPE = 3_000_000
TOOLS = {"busy": "sleep", "stuck": "hold_gil", "stopped": "take"}  # the calls that run


@frozen
class Case:
    """`way` the block is left, `state` and `count` of its workers, and where this happens."""

    way: str
    state: str
    count: int
    backend: str
    transport: str

    def __str__(self) -> str:
        return "-".join(map(str, asdict(self).values()))


class BodyError(Exception):
    """What the body of a block raises."""


class Leaving:
    """One case. `closed`: how many calls have been told that the pool was closed."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.closed = 0
        self.seconds = 0.0

    async def live(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Open the pool, bring the workers into their state, and leave the block."""
        case = self.case
        starts = case.state == "starting"
        async with anyio.create_task_group() as elsewhere:
            async with snakepit.open_pool(
                SlowFamily if starts else SyncFamily,
                size=case.count,
                min_ready=0 if starts else case.count,
                adapter_args=(str(self.folder), (), ("session",)),
                transport=case.transport,
                stop=STOP,
                sweep=False,
            ) as pool:
                await self._until(
                    lambda: self._count("worker") == self._count("session") == case.count
                )
                if case.state == "stopped":
                    for worker in pool.workers():
                        assert worker.pid is not None
                        os.kill(worker.pid, signal.SIGSTOP)
                for _ in range(case.count if case.state in TOOLS else 0):
                    elsewhere.start_soon(self._call, pool)
                if case.state == "stopped":
                    await self._until(lambda: full_pipes(pool) == case.count)
                elif case.state in TOOLS:
                    await self._until(lambda: self._count("busy") == case.count)
                await leave()
            elsewhere.cancel_scope.cancel()

    async def leave_by_itself(self) -> None:
        """In one of the ways that need no signal; takes the time from there to the end of the block."""
        begun = 0.0
        with anyio.CancelScope() as scope:

            async def leave() -> None:
                nonlocal begun
                begun = time.monotonic()
                if self.case.way == "exception":
                    raise BodyError
                if self.case.way == "cancel":
                    scope.cancel()
                elif self.case.way == "deadline":
                    scope.deadline = anyio.current_time()
                await anyio.lowlevel.checkpoint()

            try:
                await self.live(leave)
            except* BodyError:
                assert self.case.way == "exception"
        assert scope.cancelled_caught == (self.case.way in ("cancel", "deadline"))
        self.seconds = time.monotonic() - begun

    async def leave_by_signal(self) -> None:
        """Sent by somebody else."""

        async def leave() -> None:
            print("set", flush=True)
            await anyio.sleep_forever()

        await self.live(leave)

    async def _call(self, pool: snakepit.Pool) -> None:
        text = "x" * MORE_THAN_A_PIPE
        tool = TOOLS[self.case.state]
        try:
            await pool.execute(tool, {"text": text} if tool == "take" else {})
        except snakepit.PoolClosedError:
            self.closed += 1

    def _count(self, name: str) -> int:
        return len(list(self.folder.glob(f"{name}-*")))

    async def _until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(30):
            while not condition():
                await anyio.sleep(0.005)


def full_pipes(pool: snakepit.Pool) -> int:
    channels = [slot.worker._channel for slot in pool._core.slots]
    return sum(channel is not None and channel.is_sending for channel in channels)


def main(folder: str, case: Case) -> int | None:
    run = Leaving(case, Path(folder)).leave_by_signal
    if case.way == "SIGTERM":
        return snakepit.run(run, backend=case.backend)
    anyio.run(run, backend=case.backend)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Case(**json.loads(sys.argv[2]))))
