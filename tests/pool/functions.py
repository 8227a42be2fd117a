"""Functions that `run_sync` sends to workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def pid() -> int:
    return os.getpid()


def double(number: int) -> int:
    return 2 * number


def same(value: Any) -> Any:
    return value


def append(values: list[int]) -> list[int]:
    values.append(3)
    return values


def fail(error: BaseException) -> None:
    raise error


def fail_with_cause() -> None:
    try:
        {}["inner"]
    except KeyError as error:
        raise Custom("outer", 3) from error


def make_lambda() -> Callable[[], None]:
    return lambda: None


def sleep(started: str) -> None:
    Path(started).touch()
    time.sleep(3600)


def leave(code: int) -> None:
    os._exit(code)


def exit_by_exception() -> None:
    sys.exit(4)


class Custom(Exception):
    """Carries more than a message, and travels."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text, number)
        self.number = number


class Unpicklable(LookupError):
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class OneWay(ValueError):
    """Pickle alone cannot rebuild it: its constructor wants what its args do not have."""

    def __init__(self, *, only_by_name: int) -> None:
        super().__init__(f"given {only_by_name}")
        self.only_by_name = only_by_name


class Missing(LookupError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no {name}")


def fail_unpicklably() -> None:
    raise Unpicklable("no way back")


def fail_one_way() -> None:
    raise OneWay(only_by_name=3)


def fail_one_way_in_a_group() -> None:
    raise ExceptionGroup("of one", [OneWay(only_by_name=4)])


def miss() -> None:
    raise Missing("key")


class Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    def add(self, number: int) -> int:
        return self.start + number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counter) and other.start == self.start

    def __hash__(self) -> int:
        return self.start

    @staticmethod
    def triple(number: int) -> int:
        return 3 * number

    @classmethod
    def make(cls, start: int) -> Counter:
        return cls(start)


def capture(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def hold(started: str, release: str, value: Any = None) -> Any:
    """Keep a worker until somebody makes the file `release`."""
    Path(started).touch()
    while not os.path.exists(release):
        time.sleep(0.005)
    return value


def note(path: str, text: str = "ran") -> str:
    """Leave a line behind: this has run."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(text + "\n")
    return text


def nap(seconds: float) -> None:
    time.sleep(seconds)  # the host's own may be wrapped, and is no function that travels


class Something:
    """One may ask whether it is still there."""

    def touch(self) -> None:
        pass


def something(_: object) -> Something:
    return Something()


class Falsey(Exception):
    def __bool__(self) -> bool:
        return False


def fail_with_causes(depth: int) -> None:
    try:
        if depth:
            fail_with_causes(depth - 1)
        raise KeyError(0)
    except (KeyError, Custom) as error:
        raise Custom("level", depth) from error


def fail_with_an_unpicklable_cause() -> None:
    raise Custom("outer", 1) from Unpicklable("inner")


async def an_async_one() -> int:
    return 1


async def an_async_stream() -> Any:
    yield 1


class AsyncCallable:
    async def __call__(self) -> int:
        return 1


def count_to(number: int) -> Any:
    yield from range(number)
