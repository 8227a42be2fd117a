"""Sessions that clients name in their calls: nobody ends them, so they end when nobody has used them for long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

SESSIONS_MAX: Final = 10_000
SESSION_IDLE_S: Final = 3600.0


class ClientSessions:
    """Those that have calls, and since when the others have none. `forget` is called for one that is over.

    "" is no session.
    """

    def __init__(self, forget: Callable[[str], object]) -> None:
        self._forget = forget
        self._calls = Counter[str]()
        self._idle: dict[str, float] = {}  # since when, the longest first

    def __contains__(self, session: str) -> bool:
        return session in self._calls or session in self._idle

    def begin(self, session: str) -> None:
        """A call of this session begins, or of none: what is over is looked for at each call."""
        if session:
            self._idle.pop(session, None)
            self._calls[session] += 1
        self._forget_some()

    def end(self, session: str) -> None:
        """The call is over. Once for each `begin`."""
        if not session:
            return
        self._calls[session] -= 1
        if not self._calls[session]:
            del self._calls[session]
            self._idle[session] = monotonic()
            self._forget_some()

    def _forget_some(self) -> None:
        now = monotonic()
        while self._idle:
            longest, since = next(iter(self._idle.items()))
            if len(self._idle) <= SESSIONS_MAX and now - since <= SESSION_IDLE_S:
                return
            del self._idle[longest]
            self._forget(longest)
