"""The worker's I/O thread: it reads what the host says, always, whatever the tools do.

It never runs user code and never waits for any. Cancels and recalls of calls that have not
begun it answers itself; everything else it hands to the lane. While a cancelled call goes on
it repeats the interrupt. When the host is gone it gives the worker a bounded time to clean up
and then ends the process, so that no worker outlives its host.
"""

from __future__ import annotations

import os
import select
import time

from snakepit.errors import ProtocolError
from snakepit.protocol import (
    Call,
    Cancel,
    Credit,
    Recall,
    Returned,
    Settled,
    Shutdown,
    ToWorker,
)
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import Job
from snakepit.worker._lane import Lane
from snakepit.worker._toolbox import Tool
from snakepit.worker._wire import Wire, complain

NAG_INTERVAL_S = 0.01
ORPHAN_GRACE_S = 6.0
ORPHAN_EXIT_CODE = 70


class Service:
    """Serves one host until it says Shutdown or is gone."""

    def __init__(
        self,
        wire: Wire,
        lane: Lane,
        interrupt: Interrupt,
        tools: dict[str, Tool],
        *,
        cancel_grace_s: float,
    ) -> None:
        self._wire, self._lane, self._interrupt, self._tools = wire, lane, interrupt, tools
        self._cancel_grace_s = cancel_grace_s
        self._nagged: Job | None = None  # the cancelled call that may still be running

    def serve(self, early: list[ToWorker]) -> None:
        """Read and act until the host is gone. Runs in the I/O thread; never raises."""
        try:
            poll = select.poll()
            poll.register(self._wire.fileno(), select.POLLIN)
            self._handle_all(early)
            early.clear()
            while True:
                while self._nag() and not poll.poll(NAG_INTERVAL_S * 1000):
                    pass
                if not self._receive():
                    break
        except ConnectionError:
            pass
        except ProtocolError as error:
            complain(str(error))
        except BaseException as error:  # whatever it is: nobody hears the host any more
            complain(f"the I/O thread ends: {' '.join(repr(error).split())}")
        finally:
            self._host_is_gone()

    def terminate(self) -> None:
        """Stop soon: cancel what runs, begin nothing of what waits.

        Called by the SIGTERM handler and on host death.
        """
        self._lane.waiting.clear()
        job = self._lane.running
        self._lane.stop()
        if job is not None:
            self._cancel(job)

    def _receive(self) -> bool:
        # In a frame of its own: what has been handled is not kept while nothing comes.
        messages = self._wire.receive()
        if messages is None:
            return False
        self._handle_all(messages)
        return True

    def _handle_all(self, messages: list[ToWorker]) -> None:
        for message in messages:
            self._handle(message)

    def _handle(self, message: ToWorker) -> None:
        lane = self._lane
        if isinstance(message, Call):
            job = lane.waiting[message.id] = Job(message)
            lane.submit(job)
        elif isinstance(message, Cancel):
            if lane.waiting.pop(message.id, None) is not None:
                self._wire.send(Settled(message.id, ran=False))
            elif (running := lane.running) is not None and running.id == message.id:
                running.host_asked = True
                self._cancel(running)
        elif isinstance(message, Credit):
            target = lane.running
            if target is None or target.id != message.id:
                target = lane.waiting.get(message.id)
            if target is not None:
                lane.grant(target, message.count)
        elif isinstance(message, Recall):
            self._wire.send(
                Returned(tuple(i for i in message.ids if lane.waiting.pop(i, None) is not None))
            )
        elif isinstance(message, Shutdown):
            lane.stop()
        else:
            raise ProtocolError(f"{type(message).__name__} is out of place here")

    def _cancel(self, job: Job) -> None:
        tool = self._tools.get(job.tool)
        cooperative = tool is not None and tool.options.on_cancel == "cooperative"
        if cooperative:
            job.spared = True
        elif tool is not None and tool.is_async:
            job.interrupt_at = time.monotonic() + self._cancel_grace_s / 2
        job.cancelled = True
        self._nagged = job
        self._lane.cancel(job)

    def _nag(self) -> bool:
        """Repeat the interrupt where it is due; False when there is nothing to wait for."""
        job = self._nagged
        if job is None:
            return False
        if self._lane.running is not job:
            self._nagged = None
            return False
        if job.interrupted or job.spared:
            return True
        if job.answered:  # its loop runs: only a tool that blocks it is interrupted
            job.answered = False
            job.interrupt_at = time.monotonic() + self._cancel_grace_s / 2
            self._lane.ask(job)
        elif time.monotonic() >= job.interrupt_at:
            self._interrupt.send()
        return True

    def _host_is_gone(self) -> None:
        """Let the lane clean up, within bounds; the process ends in any case."""
        try:
            if self._lane.started:
                self.terminate()
                deadline = time.monotonic() + ORPHAN_GRACE_S
                while time.monotonic() < deadline:
                    self._nag()
                    time.sleep(NAG_INTERVAL_S)
        finally:
            os._exit(ORPHAN_EXIT_CODE)
