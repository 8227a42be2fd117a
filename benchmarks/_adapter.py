"""The same work as in `_work.py`, as tools: what snakepit's workers load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import snakepit
from snakepit import Adapter, context, tool


class Work(Adapter):
    """A bare adapter."""

    @tool
    def nothing(self) -> None:
        """Do nothing."""

    @tool
    def echo(self, value: Any) -> Any:
        """Send the value back."""
        return value

    @tool
    def look(self, value: Any) -> int:
        """Take an array."""
        return len(value)

    @tool
    def keep(self, size: int) -> None:
        """Make an array of so many bytes where the host sees it, to be given later."""
        self._kept = snakepit.empty(size, "u1")
        self._kept[:] = 7

    @tool
    def give(self) -> Any:
        """Return what is kept."""
        return self._kept

    @tool
    def rows(self, value: Any) -> int:
        """Look at a table."""
        count: int = value.num_rows
        return count

    @tool
    def pause(self, seconds: float) -> None:
        """Keep the worker busy for a while."""
        time.sleep(seconds)

    @tool
    def numbers(self, count: int) -> Iterator[int]:
        """Stream so many small chunks."""
        yield from range(count)

    @tool
    def ask(self) -> Any:
        """Have the host do nothing."""
        return context().call_host("nothing")
