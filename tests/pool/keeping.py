"""Tools that keep something for their session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from adapters import Tools, log_line, touch

from snakepit import context, tool


def remember(value: Any) -> list[Any]:
    told: list[Any] = context().session.setdefault("told", [])
    told.append(value)
    return told


class Keeping(Tools):
    """What `Tools` does, and it remembers."""

    @tool
    def remember(self, value: Any) -> list[Any]:
        return remember(value)

    @tool
    def remember_where(self, value: Any) -> tuple[list[Any], int]:
        return remember(value), os.getpid()

    @tool
    def whose(self) -> str | None:
        return context().session_id

    @tool
    def recite(self, count: int) -> Iterator[int]:
        """Go on where the last call of this session stopped."""
        session = context().session
        for _ in range(count):
            session["next"] = session.get("next", 0) + 1
            yield session["next"]

    @tool(idempotent=True)
    def die_wherever_it_runs(self, log: str, started: str = os.devnull) -> None:
        touch(started)
        log_line(log, os.getpid())
        os._exit(5)
