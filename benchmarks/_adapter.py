"""The same work as in `_work.py`, as tools: what snakepit's workers load."""

from __future__ import annotations

import time
from typing import Any

from snakepit import Adapter, tool


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
    def pause(self, seconds: float) -> None:
        """Keep the worker busy for a while."""
        time.sleep(seconds)
