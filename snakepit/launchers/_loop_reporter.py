"""Progress of tools in memory: a late update is sent by a task of the worker, not by a thread."""

from __future__ import annotations

import anyio

from snakepit.launchers._host_loop import HostLoop
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import Job
from snakepit.worker._progress import INTERVAL_S, SOON, Reporter
from snakepit.worker._service import Sender


class LoopReporter(Reporter):
    """As its base; `serve` has to run."""

    def __init__(self, wire: Sender, interrupt: Interrupt, loop: HostLoop) -> None:
        super().__init__(wire, interrupt)
        self._loop = loop
        self._waiting: list[Job] = []
        self._posted = anyio.Event()

    async def serve(self) -> None:
        """Send what had to wait, until cancelled."""
        while True:
            await self._posted.wait()
            self._posted = anyio.Event()
            await anyio.sleep(INTERVAL_S)
            waiting, self._waiting = self._waiting, []
            for job in waiting:
                if not self._send(job, wait=False):  # its own thread is at it
                    self._post(job)

    def _send_late(self, job: Job, at: float) -> None:  # noqa: ARG002 - here each waits as long
        job.report_at = SOON
        self._loop.call(self._post, job)

    def _post(self, job: Job) -> None:
        self._waiting.append(job)
        self._posted.set()
