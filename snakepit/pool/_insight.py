"""What a pool shows of its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.lowlevel

from snakepit.pool._seat import Phase

if TYPE_CHECKING:
    from snakepit.pool._core import PoolCore
    from snakepit.pool._slot import WorkerInfo


class Insight:
    """`workers` and `dump` of a pool."""

    _core: PoolCore

    def _check_caller(self) -> None:
        raise NotImplementedError

    def workers(self) -> list[WorkerInfo]:
        """The workers as they are now, one for each slot."""
        return [slot.info() for slot in self._core.slots]

    async def dump(self, worker_id: str) -> str:
        """The stacks of all threads of a worker, as text, while it goes on with what it does.

        Also of one that is stuck in C code and holds the GIL. Takes as long as nothing more has come
        for 0.1 s, at most 2 s; cancelling it disturbs nobody. Always a checkpoint.

        Raises:
            LookupError: there is no such worker, or it has ended.
            RuntimeError: it cannot show its stacks: it has not come far enough in its start, or is
                no worker of this library.
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
            raise RuntimeError(f"{worker_id} cannot show its stacks")
        return await running.dump()
