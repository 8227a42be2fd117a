"""Ways in which a tool can end badly."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snakepit import Adapter, tool
from snakepit.errors import ToolCancelled


@dataclass
class Point:
    """Its constructor, which the check of arguments runs, may do anything."""

    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            sys.exit("a constructor that exits")


@dataclass
class ExitsWhenRead:
    """Reading its field, as the encoder does, ends the process, unless somebody takes care."""

    field: int = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "field":
            sys.exit("a field that exits")
        return super().__getattribute__(name)


class HostileError(Exception):
    """Nothing about it can be looked at without an exception."""

    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__


class MoreHostileError(Exception):
    """Looking at it ends the process, unless somebody takes care."""

    def __str__(self) -> str:
        raise SystemExit("from __str__")

    __repr__ = __str__

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise KeyboardInterrupt

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError


class UnpicklableError(Exception):
    """Holds a lock and a generator, and its constructor wants what is not in `args`."""

    def __init__(self, *, lock: Any) -> None:
        super().__init__("holds a lock", lock)
        self.lock = lock
        self.generator = (number for number in range(3))

    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def raise_(error: BaseException) -> Any:
    raise error


def recurse() -> Any:
    return recurse()


def raise_with_cause() -> Any:
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise OSError(2, "no such thing", "/a/path") from inner


MISDEEDS: dict[str, Callable[[], Any]] = {
    "ValueError": lambda: raise_(ValueError("wrong", 3)),
    "sys.exit": lambda: sys.exit(3),
    "sys.exit with text": lambda: sys.exit("bye"),
    "SystemExit": lambda: raise_(SystemExit()),
    "KeyboardInterrupt": lambda: raise_(KeyboardInterrupt()),
    "GeneratorExit": lambda: raise_(GeneratorExit()),
    "BaseException": lambda: raise_(BaseException("base")),
    "ToolCancelled": lambda: raise_(ToolCancelled("by itself")),
    "StopIteration": lambda: raise_(StopIteration(7)),
    "StopAsyncIteration": lambda: raise_(StopAsyncIteration(7)),
    "ExceptionGroup": lambda: raise_(ExceptionGroup("group", [ValueError(1), KeyError(2)])),
    "hostile": lambda: raise_(HostileError("a", 1)),
    "more hostile": lambda: raise_(MoreHostileError("a", 1)),
    "unpicklable": lambda: raise_(UnpicklableError(lock=threading.Lock())),
    "cause": raise_with_cause,
    "recursion": recurse,
    "memory": lambda: raise_(MemoryError()),
    "class that cannot be made": lambda: raise_(HostileError),  # type: ignore[arg-type]
}


class AsyncMisdeeds(Adapter):
    """The same misdeeds in async tools."""

    @tool
    async def echo(self, value: Any = None) -> Any:
        return value

    @tool
    async def misbehave(self, how: str) -> Any:
        return MISDEEDS[how]()

    @tool
    async def misbehaving_stream(self, how: str) -> Any:
        yield "first"
        MISDEEDS[how]()

    @tool
    def misbehave_inline(self, how: str) -> Any:
        return MISDEEDS[how]()
