"""What the workers of the peers are asked to do. Imports nothing: their workers import it."""

from __future__ import annotations

import time
from typing import Any


def nothing() -> None:
    """Do nothing."""


def echo(value: Any) -> Any:
    """Send the value back."""
    return value


def attach(name: str) -> str:
    """Open a block of shared memory, as the documentation of Python does it, and send its name back."""
    from multiprocessing.shared_memory import SharedMemory

    block = SharedMemory(name)
    assert block.size
    block.close()
    return name


def pause(seconds: float) -> None:
    """Keep the worker busy for a while."""
    time.sleep(seconds)
