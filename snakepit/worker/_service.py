"""What the worker does with each message of its host, whatever its tools are doing meanwhile.

Nothing here runs user code or waits for any. Cancels and recalls of calls that have not begun
are answered at once; everything else is the lane's. While a cancelled call goes on, `nag`
repeats the interrupt. Who reads the messages is the business of `_reader.py`.
"""

from __future__ import annotations

import signal
import time
from _weakref import ref
from collections.abc import Callable
from typing import Protocol

from snakepit.errors import ProtocolError
from snakepit.protocol import (
    Call,
    Cancel,
    Credit,
    EndSession,
    HostFailure,
    HostReply,
    InputEnd,
    InputItem,
    Places,
    Recall,
    Returned,
    Settled,
    Shutdown,
    ToHost,
    ToWorker,
)
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import NO_CALL, Job
from snakepit.worker._lane import Lane
from snakepit.worker._toolbox import Tool

# After these shares of its grace a cancelled call that still runs loses what it has started: it may
# wait for just that, as the end of a `with Popen(...)` does, and needs the rest to come to its end.
SIGNALS = ((0.5, signal.SIGTERM), (0.75, signal.SIGKILL))


class Sender(Protocol):
    """The way to the host. `places`: the memory that it shares with us, None where it shares none."""

    places: Places | None

    def send(self, message: ToHost, /) -> None:
        """Send the whole message. Raises OSError when the host is gone."""

    def send_taken(self, take: Callable[[], ToHost | None], /, *, wait: bool) -> bool:
        """Send the small message that `take` gives when it is its turn; see `Wire.send_taken`."""

    @property
    def is_closed(self) -> bool:
        """True in a forked child."""


class Service:
    """Serves one host until it says Shutdown or is gone."""

    def __init__(
        self,
        wire: Sender,
        lane: Lane,
        interrupt: Interrupt,
        tools: dict[str, Tool],
        *,
        cancel_grace_s: float,
    ) -> None:
        self._wire, self._lane, self._interrupt, self._tools = wire, lane, interrupt, tools
        self._cancel_grace_s = cancel_grace_s
        # The cancelled call that may still be running. Once it has ended nobody may come to look, and
        # it must not be kept: with it its arguments, which may lie in the host's memory.
        self._nagged: ref[Job] | None = None
        # Of calls that have another grace than the rest, by their number.
        self.grace_of: Callable[[int], float | None] = lambda _number: None
        self.before_cancel: Callable[[], object] = lambda: None
        self.signal_started: Callable[[Job, int], object] = lambda _job, _number: None

    def terminate(self) -> None:
        """Stop soon: cancel what runs, begin nothing of what waits.

        Called by the SIGTERM handler and on host death.
        """
        self._lane.waiting.clear()
        job = self._lane.running
        self._lane.stop()
        if job is not None:
            self._cancel(job)

    def begin_end(self) -> bool:
        """The host is gone: `terminate`, unless there is nothing yet to clean up."""
        if self._lane.started:
            self.terminate()
        return self._lane.started

    def handle_all(self, messages: list[ToWorker]) -> None:
        """Act on the messages. Raises ProtocolError at one that has no place here."""
        for message in messages:
            self._handle(message)

    def _handle(self, message: ToWorker) -> None:
        lane = self._lane
        if isinstance(message, Call):
            job = lane.waiting[message.id] = Job(message)
            lane.submit(job)
        elif isinstance(message, Cancel):
            if self._take_back(message.id):
                self._wire.send(Settled(message.id, ran=False))
            elif (running := lane.running) is not None and running.id == message.id:
                running.host_asked = True
                self.before_cancel()
                self._cancel(running)
        elif isinstance(message, Credit):
            target = lane.running
            if target is None or target.id != message.id:
                target = lane.waiting.get(message.id)
            if target is not None:
                lane.grant(target, message.count)
        elif isinstance(message, InputItem | InputEnd):
            self._supply(message)
        elif isinstance(message, Recall):
            self._wire.send(Returned(tuple(i for i in message.ids if self._take_back(i))))
        elif isinstance(message, HostReply | HostFailure):
            lane.answer(message)
        elif isinstance(message, EndSession):
            lane.end_session(message.session)
        elif isinstance(message, Shutdown):
            lane.stop()
        else:
            raise ProtocolError(f"{type(message).__name__} is out of place here")

    def _take_back(self, call_id: int) -> bool:
        """Take a call out of those that wait; False if it does not wait here."""
        job = self._lane.waiting.pop(call_id, None)
        if job is None:
            return False
        # The lane still comes to this job. By then the host may have sent the call again, which has
        # a later turn: without its number the old job cannot be mistaken for the new one.
        job.id = NO_CALL
        return True

    def _supply(self, message: InputItem | InputEnd) -> None:
        job = self._lane.running
        if job is not None and job.id == message.id:
            target = (job.inputs or {}).get(message.input)
            if target is not None:
                self._lane.supply(target, message)

    def _cancel(self, job: Job) -> None:
        tool, now = self._tools.get(job.tool), time.monotonic()
        cooperative = tool is not None and tool.options.on_cancel == "cooperative"
        if cooperative:
            job.spared = True
        elif tool is not None and tool.is_async:
            job.interrupt_at = now + self.cancel_grace_s(job) / 2
        if not (cooperative or job.cancelled):
            grace_s = self.cancel_grace_s(job)
            job.signals_at = tuple((now + share * grace_s, number) for share, number in SIGNALS)
        job.cancelled = True
        self._nagged = ref(job)
        self._lane.cancel(job)

    def cancel_grace_s(self, job: Job) -> float:
        """How long its host waits for it to end once it is cancelled."""
        tool = self._tools.get(job.tool)
        if tool is not None and tool.options.cancel_grace is not None:
            return tool.options.cancel_grace
        grace_s = self.grace_of(job.id)
        return self._cancel_grace_s if grace_s is None else grace_s

    def nag(self) -> bool:
        """Repeat the interrupt where it is due; False when there is nothing to wait for."""
        if self._nagged is None:
            return False
        job = self._nagged()
        if job is None or self._lane.running is not job:
            self._nagged = None
            return False
        if job.signals_at and time.monotonic() >= job.signals_at[0][0]:
            (_, number), *rest = job.signals_at
            job.signals_at = tuple(rest)
            self.signal_started(job, number)
        if job.interrupted or job.spared:
            return True
        if job.answered:  # its loop runs: only a tool that blocks it is interrupted
            job.answered = False
            job.interrupt_at = time.monotonic() + self.cancel_grace_s(job) / 2
            self._lane.ask(job)
        elif time.monotonic() >= job.interrupt_at:
            self._interrupt.send()
        return True
