"""One call inside the worker, shared by the I/O thread and the lane.

Who takes a job out of the table of waiting jobs (`dict.pop` is atomic) owns its fate: the lane
to run it, or the I/O thread to settle or give it back untouched. Only the lane writes the
outcome of a job that it took.
"""

from __future__ import annotations

import time
from _queue import SimpleQueue

from snakepit.protocol import Call


class Job:
    """A call and what became of it so far."""

    __slots__ = (
        "answered",
        "cancelled",
        "credits",
        "deadline",
        "host_asked",
        "id",
        "interrupt_at",
        "interrupted",
        "message",
        "spared",
    )

    def __init__(self, message: Call) -> None:
        self.message: Call = message
        self.id: int = message.id
        self.cancelled: bool = False
        self.host_asked: bool = False  # it was the host who cancelled: it waits for Settled
        self.interrupted: bool = False  # it was: it knows
        self.spared: bool = False  # it must not be
        self.answered: bool = False  # its loop has heard of the cancel, or of a question since
        self.interrupt_at: float = 0.0  # monotonic; when the I/O thread may interrupt it
        self.deadline: float | None = (
            None if message.timeout_s is None else time.monotonic() + message.timeout_s
        )
        # Grants of further items; a grant of 0 only wakes the lane to look at `cancelled`.
        self.credits: SimpleQueue[int] | None = SimpleQueue() if message.window else None

    @property
    def tool(self) -> str:
        """The name of the tool."""
        return self.message.tool
