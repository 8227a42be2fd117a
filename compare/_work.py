"""What the workers of all contenders are asked to do. Standard library alone: their workers import it."""

from __future__ import annotations

import collections
import itertools
import os
import subprocess
import time
from pathlib import Path
from typing import Any

FOREVER_S = 3600.0


class BadError(Exception):
    """Its constructor wants more than it keeps, as many do: pickle cannot rebuild it."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


def note(folder: str, name: str, pid: int | None = None) -> None:
    """Leave a file that tells which process does this."""
    (Path(folder) / f"{name}-{pid or os.getpid()}").touch()


def hold(folder: str, name: str) -> str:
    """Work on until released, as a neighbour of the call that something happens to."""
    note(folder, name)
    release = Path(folder) / "release"
    while not release.exists():
        time.sleep(0.02)
    return name


def nap(folder: str, name: str, seconds: float) -> None:
    """Sleep."""
    note(folder, name)
    time.sleep(seconds)


def burn(folder: str, name: str) -> None:
    """Compute for ever, in Python."""
    note(folder, name)
    while True:
        pass


def hold_gil(folder: str, name: str) -> None:
    """C code that neither returns, nor looks at signals, nor lets another thread run."""
    note(folder, name)
    collections.deque(itertools.repeat(None), maxlen=0)


def start_child(folder: str, name: str) -> None:
    """Start a program and wait for it."""
    with subprocess.Popen(["sleep", f"{FOREVER_S:.0f}"]) as child:
        note(folder, "child", child.pid)
        note(folder, name)
        child.wait()


def fail() -> None:
    """Raise what pickle cannot rebuild."""
    raise BadError("a fault", "the model")


def write_raw() -> int:
    """Write to descriptor 1, as a library in C does with printf."""
    return os.write(1, b"loading model... 100%\n")


def add(one: int, other: int) -> int:
    """Show that the pool serves."""
    return one + other


_loaded: Any = None


def load(what: str) -> None:
    """Keep something in the worker: a model that took a minute to load."""
    global _loaded
    _loaded = what


def loaded() -> Any:
    """What this worker has loaded."""
    return _loaded
