"""`context().progress(...)`: how far a call is, told by any thread of its tool at any time.

The tool's thread writes an update itself, so that it is out before a long step begins, also one
that holds the GIL. But at most one in `INTERVAL_S`: an update that comes sooner waits for the end
of that time, when a thread kept for it sends the latest one, or for the end of the call, whose
outcome comes behind it. So the first and the last update of a call always arrive.

`report` never waits for a lock: it may be called from a `__del__` or a signal handler that has
come in between while this thread writes something else. What finds the wire busy waits as
above. No interrupt lands in a write (see `Interrupt.masked`).
"""

from __future__ import annotations

import operator
import sys
import time
from _queue import SimpleQueue
from _thread import allocate_lock
from collections.abc import Callable
from threading import Thread
from typing import Any

from snakepit.protocol import Progress
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import Job
from snakepit.worker._service import Sender

INTERVAL_S = 0.02
MESSAGE_CHARS_MAX = 1000  # a whole update is then less than a pipe takes in one piece
LARGEST_EXACT = 2**53  # from here on integers are not the same number in every language
SOON = float("inf")  # in `Job.report_at`: the thread will send what there is


class Reporter:
    """Sends the updates of a worker's calls.

    `job.report` is the latest one, `job.reported` the last one that was sent. Who has put one
    there looks at `report_at` after it, to see whether it may send; who sends sets `report_at`
    before it takes the latest. So none is left behind, whoever comes when.
    """

    def __init__(
        self, wire: Sender, interrupt: Interrupt, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._wire, self._interrupt, self._now = wire, interrupt, now
        self._late: SimpleQueue[tuple[Job, float]] = SimpleQueue()
        self._starting = allocate_lock()  # never let go: one thread is enough

    def report(self, job: Job, done: Any, total: Any, message: Any) -> None:
        """Tell the host, now or soon. Raises TypeError, ValueError."""
        update = (
            _number("done", done),
            None if total is None else _number("total", total),
            None if message is None else _text(message),
        )
        if job.cancelled or self._wire.is_closed:
            return  # nobody waits for it; or this is a forked child
        job.report = update
        at = job.report_at
        if at == SOON:
            return
        if self._now() < at:
            self._interrupt.masked(self._send_late, job, at)
        else:
            self._interrupt.masked(self._send_now, job)

    def masked(self, function: Callable[[], object]) -> None:
        """Call code of this library for a tool, where no interrupt hits it."""
        self._interrupt.masked(function)

    def send_last(self, job: Job) -> None:
        """Send what has not been sent of a call that is over: its outcome comes next."""
        assert job.over
        self._send(job, is_last=True)

    def _send_now(self, job: Job) -> None:
        if not self._send(job, wait=False):
            self._send_late(job, self._now() + INTERVAL_S)

    def _send_late(self, job: Job, at: float) -> None:
        """Have the thread send what there is then."""
        job.report_at = SOON
        self._late.put((job, at))
        if self._starting.acquire(blocking=False):
            try:
                Thread(target=self._serve, name="snakepit-progress", daemon=True).start()
            except RuntimeError:  # no more threads may be started: then only the last one is sent
                self._starting.release()

    def _serve(self) -> None:
        while True:
            self._serve_next()

    def _serve_next(self) -> None:
        # A frame of its own for each call: an idle worker keeps nothing of the last one.
        job, at = self._late.get()
        time.sleep(max(0.0, at - self._now()))
        self._send(job)

    def _send(self, job: Job, *, wait: bool = True, is_last: bool = False) -> bool:
        """Send the latest update, if it has not been sent; False if the wire was busy."""

        def take() -> Progress | None:
            if job.over is not is_last:
                return None  # behind its outcome there is nothing
            job.report_at = self._now() + INTERVAL_S
            update = job.report
            if update is job.reported or update is None:
                return None
            job.reported = update
            return _message(job, *update)

        try:
            return self._wire.send_taken(take, wait=wait)
        except OSError:
            return True  # the host is gone, which is the I/O thread's business


def _message(job: Job, done: float, total: float | None, text: str | None) -> Progress:
    if text is not None and not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()[:MESSAGE_CHARS_MAX]
    return Progress(job.id, done, total, text)


def _number(name: str, value: Any) -> float:
    kind = type(value)
    if kind is not int and kind is not float:
        if kind is bool or not hasattr(kind, "__float__"):
            raise TypeError(f"progress: {name} must be a number, not {_shown(value)}")
        value = _plain(value)
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"progress: {name} must be finite and not below 0, not {value!r}")
    return value if value <= LARGEST_EXACT else float(value)


def _plain(value: Any) -> float:
    """A number of NumPy's, a Fraction, …, as int where it is one."""
    try:
        return operator.index(value)
    except TypeError:
        return float(value)


def _text(message: Any) -> str:
    if not isinstance(message, str):
        raise TypeError(f"progress: message must be a string or None, not {_shown(message)}")
    return str.__getitem__(message, slice(MESSAGE_CHARS_MAX))


def _shown(value: object) -> str:
    return type(value).__name__
