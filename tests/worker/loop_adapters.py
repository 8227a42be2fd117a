"""Async tools, written once for both loops with anyio, and what only one of the loops has."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
from worker_adapters import FOREVER_S, Kept, Trap, say, watch_for_jobs

from snakepit import Adapter, context, tool
from snakepit.errors import ToolCancelled


def on_trio() -> bool:
    return "trio" in sys.modules


def the_loop() -> object:
    """The running loop, as an object that is the same for as long as the loop lives."""
    if on_trio():
        import trio

        return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()


class SignalThenSuspend:
    """Awaiting it makes the interrupt's signal pending and suspends, with no bytecode between.

    For asyncio, whose tasks may yield None.
    """

    def __await__(self) -> Any:
        return map(_thread.interrupt_main, [signal.SIGURG])


class Async(Adapter):
    """Both kinds of tools, on a loop."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.ticks = 0
        self.tasks: list[Any] = []

    async def initialize(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.loop = the_loop()
        say(f"initialized on {'trio' if on_trio() else 'asyncio'}")

    async def cleanup(self) -> None:
        await anyio.lowlevel.checkpoint()
        say(f"cleaned up on {'the same loop' if the_loop() is self.loop else 'another loop'}")

    @tool
    async def echo(self, value: Any = None) -> Any:
        await anyio.lowlevel.checkpoint()
        return value

    @tool
    async def read_notes(self) -> list[Any]:
        notes, self.notes = self.notes, []
        return notes

    @tool
    async def loop_is_the_same(self) -> bool:
        return the_loop() is self.loop

    @tool
    async def sleep(self) -> None:
        try:
            say("running")
            await anyio.sleep(FOREVER_S)
        except BaseException as error:
            self.notes.append(f"{type(error).__module__}.{type(error).__qualname__}")
            raise

    @tool
    async def clean_up_slowly(self) -> None:
        try:
            say("running")
            await anyio.sleep(FOREVER_S)
        finally:
            with anyio.CancelScope(shield=True):
                for step in range(5):
                    await anyio.sleep(0.001)
                    self.notes.append(step)

    @tool
    async def clean_up_responsively(self, seconds: float) -> None:
        """Busy for most of the time, and never for long."""
        try:
            say("running")
            await anyio.sleep(FOREVER_S)
        finally:
            end = time.monotonic() + seconds
            with anyio.CancelScope(shield=True):
                while (now := time.monotonic()) < end:
                    while time.monotonic() < now + 0.03:
                        pass
                    await anyio.sleep(0.002)
            self.notes.append("cleaned up")

    @tool
    async def turn_into(self, what: str) -> str:
        try:
            say("running")
            await anyio.sleep(FOREVER_S)
        except BaseException:
            if what == "ValueError":
                raise ValueError("instead") from None
            if what == "SystemExit":
                sys.exit(3)
        return "a value"

    @tool
    async def in_child_tasks(self) -> None:
        async def child(name: str) -> None:
            try:
                await anyio.sleep(FOREVER_S)
            finally:
                self.notes.append(name)

        async with anyio.create_task_group() as tasks:
            for name in "ab":
                tasks.start_soon(child, name)
            await anyio.lowlevel.checkpoint()
            say("running")

    @tool
    async def block(self) -> None:
        try:
            say("running")
            time.sleep(FOREVER_S)
        except BaseException as error:
            self.notes.append(type(error).__name__)
            raise

    @tool
    async def block_in_del_then_here(self) -> None:
        Trap()
        self.notes.append("returned to ordinary code")
        await anyio.sleep(FOREVER_S)

    @tool
    async def block_after_awaiting(self) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        say("running")
        time.sleep(FOREVER_S)

    @tool
    async def suspend_as_the_interrupt_comes(self) -> None:
        try:
            say("running")
            while not context().cancelled:
                time.sleep(0.001)
            await SignalThenSuspend()
        except BaseException as error:
            self.notes.append(type(error).__name__)
            raise

    @tool
    async def swallow_then_block(self) -> None:
        say("running")
        with contextlib.suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep(FOREVER_S)
        say("blocking")
        time.sleep(FOREVER_S)

    @tool(on_cancel="cooperative")
    async def cooperative(self) -> None:
        """Hears of the cancel by its loop, and is not interrupted where it then blocks."""
        try:
            say("running")
            await anyio.sleep(FOREVER_S)
        finally:
            self.notes.append(context().cancelled)
            time.sleep(0.2)
            self.notes.append("went on")

    @tool
    async def never_awaits(self) -> str:
        return "at once"

    @tool
    async def start_ticking(self) -> None:
        """A background task that goes on when the call is over."""

        async def tick() -> None:
            try:
                while True:
                    await anyio.sleep(0.005)
                    self.ticks += 1
                    say(f"tick {self.ticks}")
            finally:
                say("ticker ended")

        if on_trio():
            import trio

            trio.lowlevel.spawn_system_task(tick)
        else:
            self.tasks.append(asyncio.create_task(tick()))

    @tool
    async def where(self) -> list[Any]:
        main = threading.current_thread() is threading.main_thread()
        return [main, the_loop() is self.loop]

    @tool
    def where_sync(self) -> list[Any]:
        main = threading.current_thread() is threading.main_thread()
        return [main, the_loop() is self.loop]

    @tool
    def sleep_sync(self) -> None:
        try:
            say("running")
            time.sleep(FOREVER_S)
        except ToolCancelled:
            self.notes.append("ToolCancelled")
            raise

    @tool
    def spin_sync(self, seconds: float) -> str:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return "spun"

    @tool
    async def spin(self, seconds: float) -> str:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            await anyio.lowlevel.checkpoint()
        return "spun"

    @tool
    def count_sync(self, stop: int) -> Iterator[int]:
        try:
            yield from range(stop)
        finally:
            self.notes.append("closed")

    @tool
    async def count(self, stop: int) -> AsyncIterator[int]:
        try:
            for number in range(stop):
                await anyio.lowlevel.checkpoint()
                yield number
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.notes.append("closed")

    @tool
    async def count_awaiting_close(self, stop: int) -> AsyncIterator[int]:
        try:
            for number in range(stop):
                yield number
        finally:
            await anyio.sleep(0.001)
            self.notes.append("closed")

    @tool
    async def compute_then_close(self) -> AsyncIterator[str]:
        """Sees its cancel before its loop does."""
        try:
            yield "first"
            say("running")
            while not context().cancelled:
                pass
            yield "second"
        finally:
            for _ in range(3):
                await anyio.sleep(0.01)
            self.notes.append("closed")

    @tool
    async def fail_then_close(self) -> AsyncIterator[Any]:
        """Its item cannot travel, so it is closed; the cancel comes meanwhile."""
        try:
            yield object()
        finally:
            say("running")
            while not context().cancelled:
                await anyio.sleep(0.001)
            for _ in range(3):
                await anyio.sleep(0.01)
            self.notes.append("closed")

    @tool
    async def take_and_give(self, kept: Kept) -> Kept:
        return Kept("value")

    @tool
    async def stream_kept(self, kept: Kept) -> AsyncIterator[Kept]:
        yield Kept("value")

    @tool
    async def watch_for_jobs(self) -> None:
        watch_for_jobs()

    @tool
    async def first_then_sleep(self) -> AsyncIterator[str]:
        try:
            yield "first"
            say("running")
            await anyio.sleep(FOREVER_S)
        finally:
            self.notes.append("closed")

    @tool
    async def first_then_block(self) -> AsyncIterator[str]:
        try:
            yield "first"
            say("running")
            time.sleep(FOREVER_S)
        finally:
            self.notes.append("closed")

    @tool
    async def fail_after(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        raise LookupError("no more")

    @tool
    async def item_that_cannot_travel(self) -> AsyncIterator[Any]:
        try:
            yield 1
            yield {"inner": [object()]}
        finally:
            self.notes.append("closed")

    @tool
    async def returns_an_async_generator(self) -> Any:
        return self.count(3)

    @tool
    async def context_in_tasks(self) -> list[Any]:
        """`context()` here, in a child task, in a thread, and in a sync function called from here."""
        found = []

        async def look() -> None:
            await anyio.lowlevel.checkpoint()
            found.append(context().call_id)

        def look_sync() -> int:
            return context().call_id

        found.append(context().call_id)
        found.append(look_sync())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
        found.append(await anyio.to_thread.run_sync(look_sync))
        return [context().tool, *found]

    @tool
    def context_sync(self) -> list[Any]:
        return [context().tool, context().call_id]

    @tool
    async def context_in_generator(self) -> AsyncIterator[Any]:
        for _ in range(2):
            await anyio.lowlevel.checkpoint()
            yield [context().tool, context().call_id]

    @tool
    async def time_left(self) -> float | None:
        deadline = context().deadline
        return None if deadline is None else deadline - time.monotonic()


class AsyncHooksOnly(Adapter):
    """Its tools are sync; the loop is there for its hooks."""

    async def initialize(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.loop = the_loop()
        say("initialized")

    async def cleanup(self) -> None:
        await anyio.lowlevel.checkpoint()
        say("cleaned up")

    @tool
    def loop_is_the_same(self) -> bool:
        return the_loop() is self.loop


class HooksThatFail(Adapter):
    """An async `initialize` that raises."""

    async def initialize(self) -> None:
        await anyio.lowlevel.checkpoint()
        raise LookupError("no model")

    @tool
    async def echo(self) -> None: ...


class ContextOutside(Adapter):
    """Asks for the context where there is none."""

    def initialize(self) -> None:
        self._ask("initialize")

    def cleanup(self) -> None:
        self._ask("cleanup")

    def _ask(self, where: str) -> None:
        try:
            say(f"{where}: {context().tool}")
        except RuntimeError as error:
            say(f"{where}: {str(error).partition(';')[0]}")

    @tool
    def ask(self) -> str:
        return context().tool

    @tool
    async def ask_async(self) -> str:
        return context().tool


class ContextOutsideSync(ContextOutside):
    """The same, on the lane without a loop."""

    ask_async: Callable[..., Awaitable[str]] | None = None  # type: ignore[assignment]
