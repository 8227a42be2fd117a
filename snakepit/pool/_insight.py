"""What a pool shows of its workers and of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.lowlevel

from snakepit.pool._seat import Phase
from snakepit.pool._slot import raise_start_error
from snakepit.pool._stats import PoolStats, stats_of
from snakepit.pool._tools import ToolSpec, specs_of

if TYPE_CHECKING:
    from snakepit.pool._core import PoolCore
    from snakepit.pool._slot import WorkerInfo


class Insight:
    """`ready`, `tools`, `stats`, `workers` and `dump` of a pool."""

    _core: PoolCore

    def _check_caller(self) -> None:
        raise NotImplementedError

    def tools(self) -> dict[str, ToolSpec]:
        """The tools of the workers, by name; empty before any worker was ready."""
        return specs_of(self._core.tools or {})

    def stats(self) -> PoolStats:
        """Counters since the pool was opened, and its state now."""
        return stats_of(self._core)

    async def ready(self) -> None:
        """Wait until all `size` workers are ready. Always a checkpoint.

        Raises:
            WorkerStartError: what keeps one of them from starting.
            WorkerDiedError: how one died that is not replaced: too many starts of its slot were
                fruitless (`CrashBarrier`). The others serve on.
            PoolBrokenError: none is left.
            PoolClosedError: it is closed.
        """
        self._check_caller()
        await anyio.lowlevel.checkpoint()
        core = self._core
        while True:
            core.refuse_if_shut()
            if all(slot.is_ready for slot in core.slots):
                return
            raise_start_error(core)
            await core.progress.wait()

    def workers(self) -> list[WorkerInfo]:
        """The workers as they are now, one for each slot."""
        return [slot.info() for slot in self._core.slots]

    async def dump(self, worker_id: str) -> str:
        """The stacks of all threads of a worker, as text, while it goes on with what it does.

        Also of one that is stuck in C code and holds the GIL. They come by its stderr, so this takes
        until nothing more has come there for 0.1 s, at most 2 s; cancelling it disturbs nobody. Always
        a checkpoint.

        Returns:
            All that came on its stderr meanwhile, at most 4 MiB, also what its tools print. Of
            more than 100 threads the main one comes first, where tools run, and then the 100 youngest;
            on macOS those alone. "" if nothing came in 2 s: of a worker that is stopped (SIGSTOP),
            or one whose file descriptor 2 its own code has closed or sent elsewhere.

        Raises:
            LookupError: there is no such worker, or it has ended, before or meanwhile.
            RuntimeError: it cannot show its stacks: it has not come far enough in its start, its
                own code has changed what it does at a SIGQUIT, or it was started by `command` or somebody else.
        """
        self._check_caller()
        await anyio.lowlevel.checkpoint()
        for slot in self._core.slots:
            worker = slot.worker
            if worker.id == worker_id and worker.seat.phase is not Phase.GONE:
                break
        else:
            raise LookupError(f"there is no worker {worker_id!r}")
        running = worker.running
        if running is None or not self._core.settings.spawns_python:
            why = (
                "it has not begun to start"
                if running is None
                else "it is behind a command, or somewhere else"
            )
            raise RuntimeError(f"{worker_id} cannot show its stacks: {why}")
        return await running.dump()
