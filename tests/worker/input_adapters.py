"""Tools that take inputs: sync ones, and async ones of the same names, written for both loops."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
from worker_adapters import say, watch_for_jobs

from snakepit import Adapter, context, tool
from snakepit.errors import ToolCancelled


@dataclass
class Point:
    x: int
    y: int = 0


class SyncInputs(Adapter):
    """On the plain main thread."""

    def __init__(self) -> None:
        self.kept: Any = None

    @tool
    def echo(self, value: Any = None) -> Any:
        return value

    @tool
    def total(self, numbers: Iterator[int]) -> int:
        return sum(numbers)

    @tool
    def collect(self, items: Iterable[Any]) -> list[Any]:
        return list(items)

    @tool
    def unannotated(self, items):
        return [type(items).__name__, *items]

    @tool
    def a_list(self, items: list[int]) -> list[int]:
        return items

    @tool
    def points(self, items: Iterator[Point] | None = None) -> list[int]:
        return [point.x + point.y for point in items or ()]

    @tool
    def never_asks(self, items: Iterator[Any]) -> str:
        return "uninterested"

    @tool
    def first(self, items: Iterator[Any], count: int) -> list[Any]:
        """Take so many, one at a time, each told of before the next is asked for."""
        taken = []
        for _ in range(count):
            taken.append(next(items))
            say(f"took {taken[-1]}")
        return taken

    @tool
    def close_early(self, items: Any, rest: Iterator[Any]) -> list[Any]:
        """Close one input after its first item, then go on with the other."""
        found = [next(items)]
        items.close()
        found += list(items)
        return found + list(rest)

    @tool
    def zipped(self, left: Iterator[Any], right: Iterator[Any]) -> list[Any]:
        return [list(pair) for pair in zip(left, right, strict=True)]

    @tool
    def doubled(self, numbers: Iterator[int]) -> Iterator[int]:
        try:
            for number in numbers:
                yield 2 * number
        finally:
            say("closed")

    @tool
    def wait(self, items: Iterator[Any]) -> None:
        """Wait for an item; whatever comes out of that is said, and goes on."""
        say("running")
        try:
            next(items)
        except BaseException as error:
            say(f"raised {type(error).__name__}")
            raise

    @tool(on_cancel="cooperative")
    def wait_cooperatively(self, items: Iterator[Any]) -> None:
        self.wait(items)

    @tool
    def insist(self, items: Iterator[Any]) -> None:
        """Ask again when cancelled."""
        say("running")
        try:
            next(items)
        except ToolCancelled:
            try:
                next(items)
            except ToolCancelled:
                say("cancelled twice")
                raise

    @tool
    def keep(self, items: Iterator[Any]) -> Any:
        self.kept = items
        return next(items)

    @tool
    def use_kept(self) -> Any:
        return next(self.kept)

    @tool
    def leave_a_thread(self, items: Iterator[Any]) -> None:
        """A thread of its own still waits for an item when the tool returns."""
        entered = threading.Event()

        def read() -> None:
            entered.set()
            try:
                next(items)
            except BaseException as error:
                say(f"the thread: {type(error).__name__}")

        threading.Thread(target=read, daemon=True).start()
        entered.wait()
        time.sleep(0.05)

    @tool
    def two_threads(self, items: Iterator[Any]) -> str:
        """While a thread waits another one may not."""
        held: list[Any] = []
        thread = threading.Thread(target=lambda: held.append(next(items)))
        thread.start()
        try:
            while True:
                try:
                    next(items)
                except ValueError as error:
                    return type(error).__name__
        finally:
            say("refused")
            thread.join()

    @tool
    def in_a_thread(self, items: Iterator[Any]) -> list[Any]:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.extend(items))
        thread.start()
        thread.join()
        return found

    @tool
    def watch_for_jobs(self) -> None:
        watch_for_jobs()


class SyncInputsOnLoop(SyncInputs):
    """The same, inline on a loop."""

    async def initialize(self) -> None:
        await anyio.lowlevel.checkpoint()


class AsyncInputs(Adapter):
    """Async tools with the same names."""

    def __init__(self) -> None:
        self.kept: Any = None

    @tool
    async def echo(self, value: Any = None) -> Any:
        return value

    @tool
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @tool
    async def collect(self, items: AsyncIterable[Any]) -> list[Any]:
        return [item async for item in items]

    @tool
    async def unannotated(self, items):
        return [type(items).__name__, *[item async for item in items]]

    @tool
    async def a_list(self, items: list[int]) -> list[int]:
        return items

    @tool
    async def points(self, items: AsyncIterator[Point]) -> list[int]:
        return [point.x + point.y async for point in items]

    @tool
    async def never_asks(self, items: AsyncIterator[Any]) -> str:
        return "uninterested"

    @tool
    async def first(self, items: AsyncIterator[Any], count: int) -> list[Any]:
        taken = []
        for _ in range(count):
            taken.append(await anext(items))
            say(f"took {taken[-1]}")
        return taken

    @tool
    async def close_early(self, items: Any, rest: AsyncIterator[Any]) -> list[Any]:
        found = [await anext(items)]
        await items.aclose()
        found += [item async for item in items]
        return found + [item async for item in rest]

    @tool
    async def zipped(self, left: AsyncIterator[Any], right: AsyncIterator[Any]) -> list[Any]:
        """The two are read by two tasks at once."""
        columns: dict[str, list[Any]] = {"left": [], "right": []}

        async def read(name: str, items: AsyncIterator[Any]) -> None:
            async for item in items:
                columns[name].append(item)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, "left", left)
            tasks.start_soon(read, "right", right)
        return [list(pair) for pair in zip(columns["left"], columns["right"], strict=True)]

    @tool
    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        try:
            async for number in numbers:
                yield 2 * number
        finally:
            say("closed")

    @tool
    async def wait(self, items: AsyncIterator[Any]) -> None:
        say("running")
        try:
            await anext(items)
        except BaseException as error:
            say(f"raised {type(error).__name__}")
            raise

    @tool
    async def insist(self, items: AsyncIterator[Any]) -> None:
        """Ask again when cancelled, shielded from the loop's own cancellation."""
        say("running")
        try:
            await anext(items)
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await anext(items)
                except ToolCancelled:
                    say("cancelled twice")

    @tool
    async def keep(self, items: AsyncIterator[Any]) -> Any:
        self.kept = items
        return await anext(items)

    @tool
    async def use_kept(self) -> Any:
        return await anext(self.kept)

    @tool
    async def busy(self, items: AsyncIterator[Any]) -> str:
        """While a task waits another one may not."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, items)
            await anyio.wait_all_tasks_blocked()
            try:
                await anext(items)
            except RuntimeError as error:
                tasks.cancel_scope.cancel()
                return str(error)
        return "nothing was raised"

    @tool
    async def cancelled_wait(self, items: AsyncIterator[Any]) -> list[Any]:
        """A wait that is cancelled loses no item."""
        with anyio.move_on_after(0.01):
            await anext(items)
        say("gave up waiting")
        return [item async for item in items]

    @tool
    async def watch_for_jobs(self) -> None:
        watch_for_jobs()

    @tool
    async def call_id(self) -> int:
        return context().call_id
