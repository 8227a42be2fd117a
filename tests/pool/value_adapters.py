"""Workers that hold on to values: with NumPy alone, so that they start quickly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from snakepit import Adapter, tool

MIB = 2**20


class Keeper(Adapter):
    """Holds on to what it got and gave."""

    @tool
    def keep(self, value: Any) -> None:
        self.value = value

    @tool
    def kept(self) -> Any:
        self.given = [self.value[0], list(self.value[1]), bytearray(self.value[2])]
        return self.given

    @tool
    def change_what_was_returned(self) -> Any:
        self.given[1].append(3)
        self.given[2][:] = b"---"
        return self.value[1:]

    @tool
    def one_array_again_and_again(self) -> Any:
        array = np.zeros(2 * MIB, "u1")
        for number in range(4):
            array[:] = number
            yield array


class Holder(Adapter):
    """Keeps what it gives away."""

    @tool
    def make(self, size: int) -> Any:
        self.made = [np.zeros(size, "u1"), memoryview(bytes(size)), {"deep": (np.zeros(3),)}]
        return self.made

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def made_is_zero(self) -> bool:
        made: list[Any] = self.made
        array, view, deep = made
        return not (array.any() or np.frombuffer(view, "u1").any() or deep["deep"][0].any())

    @tool
    def count(self, parts: int) -> Iterator[Any]:
        for number in range(parts):
            yield np.full(6 * MIB, number, "u1")
