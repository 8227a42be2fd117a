"""Tools that are hard to stop, and tools that die."""

import itertools
import os
import time
from collections import deque
from pathlib import Path

from snakepit import tool


@tool
def echo(value: int = 0) -> int:
    return value


@tool
def hog(started: str) -> str:
    """Hold the GIL in C code that never looks at signals, for a second or more."""
    Path(started).touch()
    begin = time.monotonic()
    while time.monotonic() - begin < 1:
        deque(itertools.repeat(None, 3 * 10**7), maxlen=0)
    return "hogged"


@tool(on_cancel="kill")
def doomed() -> None:
    time.sleep(600)


@tool(idempotent=True)
def die_later(log: str, delay: float) -> None:
    with open(log, "a") as file:
        file.write("begun\n")
    time.sleep(delay)
    os._exit(3)
