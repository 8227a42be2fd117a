"""The adapter of the tests of map, bind and the typed calls."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from adapters import BEAT_S, FOREVER_S, log_line, touch, wait_for

from snakepit import Adapter, context, tool


class Mapped(Adapter):
    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def double(self, number: int) -> int:
        if number < 0:
            raise ValueError(f"{number} is below 0")
        return 2 * number

    @tool
    def nap(self, number: int, seconds: float = 0.05) -> int:
        time.sleep(seconds)
        return number

    @tool
    def wait(self, number: int, folder: str) -> int:
        """Say that it runs, wait for its release, and say when it stops."""
        try:
            touch(f"{folder}/started{number}")
            wait_for(f"{folder}/release{number}")
        finally:
            time.sleep(0.02)
            log_line(f"{folder}/stopped", number)
        return number

    @tool
    def beat(self, number: int, log: str) -> int:
        """Write three lines, 10 ms apart."""
        for _ in range(3):
            log_line(log, number)
            time.sleep(BEAT_S)
        return number

    @tool
    def fail_when(self, number: int, folder: str) -> int:
        """The call of 0 fails once all others run."""
        if number:
            return self.wait(number, folder)
        while len(list(Path(folder).glob("started*"))) < 2:
            time.sleep(0.005)
        raise FileNotFoundError(2, "gone", "some/file")

    @tool
    def unreadable(self) -> object:
        return (number for number in range(2))

    @tool(idempotent=False)
    def die_once(self, log: str) -> int:
        first = not os.path.exists(log)
        log_line(log, os.getpid())
        if first:
            os._exit(5)
        return os.getpid()

    @tool
    def count(self, stop: int) -> Iterator[int]:
        yield from range(stop)

    @tool
    def tell(self, steps: int) -> int:
        for step in range(steps):
            context().progress(step + 1, steps)
        return steps

    @tool
    def sleep(self) -> None:
        time.sleep(FOREVER_S)

    # What only the typed calls tell apart.

    @tool(name="say")
    def greet(self, name: str, /, greeting: str = "hello", *, loud: bool = False) -> str:
        text = f"{greeting} {name}"
        return text.upper() if loud else text

    @tool
    @staticmethod
    def static_below(number: int) -> int:
        return number + 1

    @staticmethod
    @tool(name="static_too")
    def static_above(number: int) -> int:
        return number + 2

    @tool
    @classmethod
    def of_class(cls, number: int) -> str:
        return f"{cls.__name__} {number}"

    @tool
    async def later(self, number: int) -> list[int]:
        return [number]

    @tool
    async def count_async(self, stop: int) -> AsyncIterator[str]:
        for number in range(stop):
            yield str(number)

    def no_tool(self) -> None: ...


class Heir(Mapped):
    def double(self, number: int) -> int:
        """An override without a mark of its own is still the tool."""
        return 3 * number


@tool
def reverse(word: str, times: int = 1) -> str:
    return word[::-1] * times


@tool
def letters(word: str) -> Iterator[str]:
    yield from word
