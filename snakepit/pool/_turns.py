"""Turns of sessions: who calls while an earlier call of the session is still being encoded waits for it.

Calls of a session run in the order in which they were made, and one whose arguments are encoded in a
thread is handed in only after that. There is a line only while there is such a call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from snakepit.pool._block import guarded

if TYPE_CHECKING:
    from snakepit.pool._sessions import SessionRecord


class Turns:
    """The lines of one pool, by session."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[anyio.Event]] = {}  # the first has its turn

    def is_taken(self, session: str | SessionRecord) -> bool:
        """Must its next call wait?"""
        return bool(self._lines) and _id_of(session) in self._lines

    @guarded
    @asynccontextmanager
    async def of(self, session: str | SessionRecord | None) -> AsyncGenerator[None]:
        """Wait for one's turn, and have it while in the block. Without a session there is no line."""
        if session is None:
            yield
            return
        session_id = _id_of(session)
        line = self._lines.setdefault(session_id, deque())
        turn = anyio.Event()
        line.append(turn)
        try:
            self._call_next(line)
            await turn.wait()
            yield
        finally:
            line.remove(turn)
            if line:
                self._call_next(line)
            else:
                del self._lines[session_id]

    def _call_next(self, line: deque[anyio.Event]) -> None:
        line[0].set()


def _id_of(session: str | SessionRecord) -> str:
    return session if isinstance(session, str) else session.id
