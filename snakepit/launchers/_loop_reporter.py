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
        super().__init__(wire, interrupt, loop.now)  # so one seed stays one run
        self._loop = loop
        self._waiting: list[tuple[Job, float]] = []
        self._posted = anyio.Event()

    async def serve(self) -> None:
        """Send what had to wait, until cancelled."""
        while True:
            while not self._waiting:  # those posted during the sleep below have been sent with it
                self._posted = anyio.Event()
                await self._posted.wait()
            await anyio.sleep_until(self._waiting[0][1])
            waiting, self._waiting = self._waiting, []
            for job, _ in waiting:
                if not self._send(job, wait=False):  # its own thread is at it
                    self._post(job, self._now() + INTERVAL_S)

    def _send_late(self, job: Job, at: float) -> None:
        job.report_at = SOON
        self._loop.call(self._post, job, at)

    def _post(self, job: Job, at: float) -> None:
        self._waiting.append((job, at))
        self._posted.set()
