"""Tools for every kind of call, sync and async ones of the same names, and functions."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np

from snakepit import Adapter, ToolCancelled, context, tool

closed: list[str] = []  # what was closed in this process


def doubled(array: Any) -> Any:
    return array * 2


def refuse(array: Any) -> Any:
    raise LookupError(f"not {type(array).__name__}")


def trace() -> dict[str, str]:
    return context().trace_context


def endings() -> list[str]:
    """What was closed since it was last asked for. What an exception has tied into a knot goes, too."""
    gc.collect()
    found, closed[:] = closed[:], []
    return found


class SyncModel(Adapter):
    @tool
    def double(self, array: Any) -> Any:
        return array * 2

    @tool
    def remember(self, value: Any) -> int:
        context().session.setdefault("told", []).append(value)
        return len(context().session["told"])

    @tool
    def told(self) -> list[Any]:
        found: list[Any] = context().session.get("told", [])
        return found

    @tool
    def ask(self, name: str, array: Any) -> Any:
        return context().call_host(name, {"array": array})

    @tool
    def report(self, array: Any, steps: int) -> Any:
        for step in range(steps):
            context().progress(step + 1, steps, "at it")
        return array

    @tool
    def total(self, arrays: Iterator[Any]) -> float:
        return float(sum(array.sum() for array in arrays))

    @tool
    def first(self, arrays: Iterator[Any]) -> Any:
        return next(arrays)

    @tool
    def transform(self, arrays: Iterator[Any]) -> Iterator[Any]:
        for array in arrays:
            yield array * 2

    @tool
    def count(self, size: int) -> Iterator[Any]:
        number = 0
        try:
            while True:
                yield np.full(size, number, "u1")
                number += 1
        finally:
            closed.append("count")

    @tool
    def wait(self, array: Any) -> None:
        context().progress(1)
        try:
            while True:
                context().check_cancelled()
        except ToolCancelled:
            closed.append("wait")
            raise

    @tool
    def endings(self) -> list[str]:
        return endings()

    @tool
    def trace(self) -> dict[str, str]:
        return context().trace_context

    @tool
    def traces(self) -> Iterator[dict[str, str]]:
        yield context().trace_context


class AsyncModel(Adapter):
    @tool
    async def double(self, array: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return array * 2

    @tool
    async def remember(self, value: Any) -> int:
        context().session.setdefault("told", []).append(value)
        return len(context().session["told"])

    @tool
    async def told(self) -> list[Any]:
        found: list[Any] = context().session.get("told", [])
        return found

    @tool
    async def ask(self, name: str, array: Any) -> Any:
        return await context().acall_host(name, {"array": array})

    @tool
    async def report(self, array: Any, steps: int) -> Any:
        for step in range(steps):
            context().progress(step + 1, steps, "at it")
            await anyio.lowlevel.checkpoint()
        return array

    @tool
    async def total(self, arrays: AsyncIterator[Any]) -> float:
        return float(sum([array.sum() async for array in arrays]))

    @tool
    async def first(self, arrays: AsyncIterator[Any]) -> Any:
        return await anext(arrays)

    @tool
    async def transform(self, arrays: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for array in arrays:
            yield array * 2

    @tool
    async def count(self, size: int) -> AsyncIterator[Any]:
        number = 0
        try:
            while True:
                yield np.full(size, number, "u1")
                number += 1
        finally:
            closed.append("count")

    @tool
    async def wait(self, array: Any) -> None:
        context().progress(1)
        try:
            await anyio.sleep_forever()
        finally:
            closed.append("wait")

    @tool
    async def endings(self) -> list[str]:
        return endings()

    @tool
    async def trace(self) -> dict[str, str]:
        return context().trace_context

    @tool
    async def traces(self) -> AsyncIterator[dict[str, str]]:
        yield context().trace_context
