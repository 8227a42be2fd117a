"""Lanes: where the tools of a worker run. A lane owns the main thread.

Calls are handed over with `submit`, and their end is asked for with `cancel` and `stop`; these, and
`end_session`, may be called from any thread and from signal handlers. `run` is the main thread's: it
initialises the adapter, says Ready, runs one call after the other, and cleans up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from snakepit.worker._offspring import now
from snakepit.worker._reader import HOOK
from snakepit.worker._sessions import EndOfSession

if TYPE_CHECKING:
    from snakepit.protocol import HostFailure, HostReply
    from snakepit.worker._execution import Execution
    from snakepit.worker._inputs import Arrival, Input
    from snakepit.worker._job import Job
    from snakepit.worker._reader import Reader


class Lane(ABC):
    """One call at a time, on the main thread.

    `waiting` holds the calls that came and have not begun; `running` is set before a job is
    taken out of it, so that the I/O thread always finds a job in one of the two.
    """

    def __init__(self, execution: Execution, initialize: Hook, cleanup: Hook) -> None:
        self.waiting: dict[int, Job] = {}
        self.running: Job | None = None
        self.started = False  # initialised: there is something to clean up
        self._execution = execution
        self._initialize, self._cleanup = initialize, cleanup

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Queue a job; if it is a call it is already in `waiting`."""

    def end_session(self, session: str) -> None:
        """Drop what is kept for the session, once it is its turn among the calls."""
        self.submit(EndOfSession(self._execution.sessions, session))

    def cancel(self, job: Job) -> None:
        """Begin the cooperative end of the running job; `job.cancelled` is already set."""
        self.grant(job, 0)  # wakes a generator's lane that waits for credit
        if job.asked_host:
            self._execution.host_calls.cancel(job)
        for one in (job.inputs or {}).values():
            if not one.is_async:  # its loop cancels what waits there
                self.supply(one, None)

    def grant(self, job: Job, count: int) -> None:
        """Let a stream send further items."""
        if job.credits is not None:
            job.credits.put(count)

    def answer(self, message: HostReply | HostFailure) -> None:
        """The host has answered a host call."""
        self._execution.host_calls.answer(message)

    def supply(self, target: Input, arrival: Arrival) -> None:
        """Something has come for an input of the running call."""
        target.arrived.put(arrival)

    def ask(self, job: Job) -> None:
        """Let the loop set `job.answered` when it next runs. Without a loop nobody answers."""
        assert not job.answered

    @abstractmethod
    def stop(self) -> None:
        """Take no further calls; clean up and return from `run` when the current one ends."""

    @abstractmethod
    def run(self, ready: Callable[[], None]) -> None:
        """Initialise, call `ready`, serve until stopped, clean up."""

    def _take(self, job: Job) -> bool:
        """Make the job the running one; False if somebody else has answered it."""
        self.running = job
        if self.waiting.pop(job.id, None) is None:
            self.running = None
            return False
        job.begun = now()
        return True


Hook = Callable[[], Any]


class MainLane(Lane):
    """Sync tools alone: no event loop is ever imported, and the main thread reads for itself."""

    def __init__(
        self, execution: Execution, reader: Reader, initialize: Hook, cleanup: Hook
    ) -> None:
        super().__init__(execution, initialize, cleanup)
        self._reader = reader

    def submit(self, job: Job) -> None:
        self._reader.calls.put(job)

    def stop(self) -> None:
        self._reader.calls.put(None)

    def run(self, ready: Callable[[], None]) -> None:
        self._initialize()
        self.started = True
        try:
            ready()
            self._reader.end()
            while self._serve_next():
                pass
        finally:
            self._execution.release()
            self._reader.begin(HOOK)
            self._cleanup()

    def _serve_next(self) -> bool:
        # A frame of its own for each call: an idle worker keeps nothing of the last one.
        reader = self._reader
        job = reader.wait(reader.calls)
        if job is None:
            return False
        if self._take(job):
            reader.begin(job.id)
            prepared = self._execution.prepare(job)
            if prepared is not None:
                self._execution.run(job, *prepared)
            self._execution.release()
            self.running = None
            reader.end()
        else:
            reader.begin(HOOK)
            job.skipped()
            reader.end()
        return True
