"""Tools that take inputs, sync and async ones of the same names; each says in a log what it does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from adapters import log_line, touch, wait_for

from snakepit import Adapter, ToolCancelled, context, tool


class SyncInputs(Adapter):
    """Iterators that block."""

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def hold(self, started: str, release: str) -> None:
        touch(started)
        wait_for(release)

    @tool
    def total(self, numbers: Iterator[int]) -> int:
        return sum(numbers)

    @tool(name="summed")
    def total_of_any(self, numbers: Iterable[int]) -> int:
        return sum(numbers)

    @tool
    def collect(self, items: Iterator[Any]) -> list[Any]:
        return list(items)

    @tool(idempotent=True)
    def first(self, items: Iterator[Any], count: int, log: str) -> list[Any]:
        """Take so many, each logged; say how it ended."""
        taken = []
        try:
            for _ in range(count):
                taken.append(next(items))
                log_line(log, f"took {taken[-1]!r}"[:40])
        except BaseException as error:
            log_line(log, type(error).__name__)
            raise
        log_line(log, "returned")
        return taken

    @tool
    def never_asks(self, items: Iterator[Any]) -> str:
        return "uninterested"

    @tool
    def fail_after(self, items: Iterator[Any], count: int) -> None:
        for _ in range(count):
            next(items)
        raise LookupError("enough")

    @tool
    def one_at_a_time(self, items: Iterator[Any], log: str, gate: str) -> None:
        """Take an item for each file `gate` + number, and log it."""
        for number, item in enumerate(items):
            log_line(log, f"took {item!r}")
            wait_for(f"{gate}{number}")

    @tool
    def streamed_one_at_a_time(self, items: Iterator[Any], log: str, gate: str) -> Iterator[None]:
        self.one_at_a_time(items, log, gate)
        yield

    @tool
    def zipped(self, left: Iterator[Any], right: Iterator[Any]) -> list[tuple[Any, Any]]:
        return list(zip(left, right, strict=True))

    @tool
    def doubled(self, numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            yield 2 * number

    @tool
    def sizes(self, items: Iterator[bytes]) -> Iterator[bytes]:
        yield from items

    @tool
    def told(self, items: Iterator[Any]) -> int:
        count = 0
        for count, _ in enumerate(items, 1):
            context().progress(count)
        return count

    @tool
    def asked_for_each(self, items: Iterator[int]) -> list[int]:
        return [context().call_host("successor", {"number": item}) for item in items]

    @tool
    def remember(self, items: Iterator[Any]) -> list[Any]:
        held: list[Any] = context().session.setdefault("held", [])
        held.extend(items)
        return held

    @tool(idempotent=True)
    def die(self, items: Iterator[Any], after: int, marks: str, times: int = 99) -> str:
        """Leave after so many items, for so many times; each run is logged."""
        log_line(marks, "runs")
        with open(marks, encoding="utf-8") as file:
            runs = len(file.readlines())
        for _ in range(after):
            next(items)
        if runs <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"run {runs}: {list(items)}"

    @tool
    def deaf(self, items: Iterator[Any]) -> None:
        """Go on after every cancellation."""
        while True:
            try:
                next(items)
            except ToolCancelled:
                time.sleep(0.01)


class AsyncInputs(Adapter):
    """Async iterators."""

    @tool
    async def pid(self) -> int:
        return os.getpid()

    @tool
    async def hold(self, started: str, release: str) -> None:
        import anyio

        touch(started)
        while not os.path.exists(release):
            await anyio.sleep(0.005)

    @tool
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @tool
    async def collect(self, items: AsyncIterator[Any]) -> list[Any]:
        return [item async for item in items]

    @tool(idempotent=True)
    async def first(self, items: AsyncIterator[Any], count: int, log: str) -> list[Any]:
        taken = []
        try:
            for _ in range(count):
                taken.append(await anext(items))
                log_line(log, f"took {taken[-1]!r}"[:40])
        except BaseException as error:
            log_line(log, type(error).__name__)
            raise
        log_line(log, "returned")
        return taken

    @tool
    async def never_asks(self, items: AsyncIterator[Any]) -> str:
        return "uninterested"

    @tool
    async def fail_after(self, items: AsyncIterator[Any], count: int) -> None:
        for _ in range(count):
            await anext(items)
        raise LookupError("enough")

    @tool
    async def one_at_a_time(self, items: AsyncIterator[Any], log: str, gate: str) -> None:
        import anyio

        number = 0
        async for item in items:
            log_line(log, f"took {item!r}")
            while not os.path.exists(f"{gate}{number}"):
                await anyio.sleep(0.005)
            number += 1

    @tool
    async def streamed_one_at_a_time(
        self, items: AsyncIterator[Any], log: str, gate: str
    ) -> AsyncIterator[None]:
        await self.one_at_a_time(items, log, gate)
        yield

    @tool
    async def zipped(
        self, left: AsyncIterator[Any], right: AsyncIterator[Any]
    ) -> list[tuple[Any, Any]]:
        import anyio

        columns: dict[str, list[Any]] = {"left": [], "right": []}

        async def read(name: str, items: AsyncIterator[Any]) -> None:
            async for item in items:
                columns[name].append(item)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, "left", left)
            tasks.start_soon(read, "right", right)
        return list(zip(columns["left"], columns["right"], strict=True))

    @tool
    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number

    @tool
    async def sizes(self, items: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for item in items:
            yield item

    @tool
    async def told(self, items: AsyncIterator[Any]) -> int:
        count = 0
        async for _ in items:
            count += 1
            context().progress(count)
        return count

    @tool
    async def asked_for_each(self, items: AsyncIterator[int]) -> list[int]:
        ask = context().acall_host
        return [await ask("successor", {"number": item}) async for item in items]

    @tool
    async def remember(self, items: AsyncIterator[Any]) -> list[Any]:
        held: list[Any] = context().session.setdefault("held", [])
        held.extend([item async for item in items])
        return held
