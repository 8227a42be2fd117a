"""An adapter that imports nothing but what every adapter does."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from importlib import import_module

import snakepit
from snakepit import Adapter, context, tool


class Bare(Adapter):
    """Calls and streams."""

    @tool
    def modules(self) -> list[str]:
        return sorted(sys.modules)

    @tool
    def import_one(self, name: str) -> str:
        return import_module(name).__name__

    @tool
    def collector(self) -> tuple[bool, int]:
        return gc.isenabled(), gc.get_freeze_count()

    @tool
    def prefix(self) -> list[str]:
        return [sys.prefix, snakepit.__file__]

    @tool
    def add(self, a: int, b: int) -> int:
        assert context().tool == "add"
        return a + b

    @tool
    def echo(self, value: object) -> object:
        return value

    @tool
    def numbers(self, stop: int) -> Iterator[int]:
        yield from range(stop)


class BareAsync(Adapter):
    """An async tool that awaits nothing."""

    @tool
    async def modules(self) -> list[str]:
        return sorted(sys.modules)
