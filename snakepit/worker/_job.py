"""One call inside the worker, shared by the I/O thread and the lane.

Who takes a job out of the table of waiting jobs (`dict.pop` is atomic) owns its fate: the lane
to run it, or the I/O thread to settle or give it back untouched. Only the lane writes the
outcome of a job that it took. A job that the I/O thread took has no number any more.
"""

from __future__ import annotations

import time
from _queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeAlias

from snakepit.protocol import Call

if TYPE_CHECKING:
    from snakepit.worker._inputs import Input

NO_CALL: Final = 0  # never among those that wait; calls are numbered from 1

Update: TypeAlias = tuple[float, float | None, str | None]  # done, total, message


class Job:
    """A call and what became of it so far."""

    # Most calls never change these: they cost nothing until they do.
    cancelled: bool = False
    host_asked: bool = False  # it was the host who cancelled: it waits for Settled
    interrupted: bool = False  # it was: it knows
    spared: bool = False  # it must not be
    answered: bool = False  # its loop has heard of the cancel, or of a question since
    interrupt_at: float = 0.0  # monotonic; when the I/O thread may interrupt it
    # When what it has started gets which signal, if it still runs then: it may be waiting for that.
    signals_at: tuple[tuple[float, int], ...] = ()
    over: bool = False  # its outcome is being written
    is_async: bool = False  # its tool is a task of the lane's loop
    asked_host: bool = False  # it has made a host call
    # Of `context().progress()`, see `_progress.py`: the latest, the last one sent, and when the
    # next one may be sent (monotonic).
    report: Update | None = None
    reported: Update | None = None
    report_at: float = 0.0
    deadline: float | None = None
    begun: float = 0.0  # by the clock of `_offspring.py`
    # Grants of further items; a grant of 0 only wakes the lane to look at `cancelled`.
    credits: SimpleQueue[int] | None = None
    inputs: dict[int, Input] | None = None  # by number, from when its arguments are read

    def __init__(self, message: Call) -> None:
        self.message: Call = message
        self.id: int = message.id
        if message.timeout_s is not None:
            self.deadline = time.monotonic() + message.timeout_s
        if message.window:
            self.credits = SimpleQueue()

    def wake_inputs(self) -> None:
        """Let who waits for an item look at what became of the call."""
        for one in (self.inputs or {}).values():
            one.wake()

    def skipped(self) -> None:
        """Its turn has come and it is not run: somebody else has answered it."""

    @property
    def tool(self) -> str:
        """The name of the tool."""
        return self.message.tool
