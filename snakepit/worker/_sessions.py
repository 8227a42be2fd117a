"""What tools keep for the sessions of their worker: a dict for each, until the host ends it.

All of it happens on the main thread, in the order in which the host asked for it. So what a tool
has put there is let go of where tools run, between two calls: never under the hands of a call
that still runs, and never in the thread that listens to the host.
"""

from __future__ import annotations

from typing import Any

from snakepit.worker._job import NO_CALL, Job


class SessionStates:
    """The dicts, by the ids of their sessions."""

    def __init__(self) -> None:
        self._states: dict[str, dict[Any, Any]] = {}

    def of(self, session: str) -> dict[Any, Any]:
        """The dict of a session; made when its first call begins."""
        return self._states.setdefault(session, {})

    def drop(self, session: str) -> None:
        """Forget the session, if there is anything to forget."""
        self._states.pop(session, None)


class EndOfSession(Job):
    """Takes its turn among the calls; nobody waits for its answer."""

    def __init__(self, states: SessionStates, session: str) -> None:
        self.id: int = NO_CALL
        self._states, self._session = states, session

    def skipped(self) -> None:
        self._states.drop(self._session)
