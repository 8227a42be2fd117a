"""Tools that tell how far they are, in every way there is."""

from __future__ import annotations

import contextvars
import ctypes
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
from worker_adapters import FOREVER_S, say, watch_for_jobs

from snakepit import Adapter, context, tool

WIDE = "\N{SNAKE}" * 2000  # cut to 1000 characters it fills a page of a pipe


def tell_each_time() -> Iterator[int]:
    """Updates as large as they can be, each written by this thread, until the pipe is full and beyond."""
    number = 0
    while True:
        number += 1
        say(f"telling {number}")
        context().progress(number, None, WIDE)
        yield number
        time.sleep(0.025)


class Telling(Adapter):
    """Sync tools alone."""

    def __init__(self) -> None:
        self.stop_telling = threading.Event()

    @tool
    def echo(self, value: Any = None) -> Any:
        return value

    @tool
    def tell(self, count: int) -> float:
        """As often as asked, without a pause; returns how long it took."""
        started = time.monotonic()
        for number in range(1, count + 1):
            context().progress(number, count)
        return time.monotonic() - started

    @tool
    def tell_one(self, values: tuple[Any, ...]) -> str:
        context().progress(*values)
        return "told"

    @tool
    def tell_lone_surrogate(self) -> None:
        context().progress(1, None, "half \ud800")

    @tool
    def tell_and_stay(self, count: int) -> None:
        for number in range(1, count + 1):
            context().progress(number, count, f"step {number}")
        time.sleep(FOREVER_S)

    @tool
    def tell_and_hold_the_gil(self, fifo: str) -> None:
        """No other thread runs before somebody opens the other end."""
        context().progress(1, 2, "a long step in C")
        fd = ctypes.PyDLL(None).open(fifo.encode(), os.O_RDONLY)
        os.close(fd)

    @tool
    def tell_for_ever(self) -> None:
        say("running")
        number = 0
        while True:
            number += 1
            context().progress(number, None, "x" * (number % 1000))

    @tool
    def tell_after_the_cancel(self) -> None:
        try:
            say("running")
            time.sleep(FOREVER_S)
        finally:
            for number in range(100):
                context().progress(number)

    @tool
    def tell_into_a_full_pipe(self) -> None:
        for _ in tell_each_time():
            pass

    @tool
    def tell_from_a_signal_handler(self, count: int) -> str:
        """The handler may run while an update is being written."""

        def handle(*_: Any) -> None:
            context().progress(0)
            say("told in between")

        signal.signal(signal.SIGUSR1, handle)
        try:
            for number in tell_each_time():
                if number == count:
                    return "returned"
        finally:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        raise AssertionError

    @tool
    def tell_from_threads(self, count: int) -> None:
        threads = [
            threading.Thread(
                target=contextvars.copy_context().run, args=(context().progress, number, count)
            )
            for number in range(1, count + 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @tool
    def leave_a_telling_thread(self) -> str:
        """The thread goes on when the call is over, until `stop_telling`."""

        def tell() -> None:
            number = 0
            while not self.stop_telling.is_set():
                number += 1
                context().progress(number)
            say("stopped telling")

        thread = threading.Thread(target=contextvars.copy_context().run, args=(tell,), daemon=True)
        thread.start()
        return "left"

    @tool
    def stop(self) -> None:
        self.stop_telling.set()

    @tool
    def tell_in_a_forked_child(self) -> int:
        """Returns the child's exit code."""
        context().progress(1, None, "parent")
        pid = os.fork()
        if pid == 0:
            time.sleep(0.03)  # it would be time for the next one
            context().progress(2, None, "child")
            context().progress(3, None, "child")
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @tool
    def tell_between_items(self, count: int) -> Iterator[int]:
        for number in range(1, count + 1):
            context().progress(number, count)
            yield number
        context().progress(count, count, "done")

    @tool
    def tell_and_fail(self) -> None:
        context().progress(1, 3)
        context().progress(2, 3)
        raise LookupError("the third is missing")

    @tool
    def watch_for_calls(self) -> None:
        watch_for_jobs()


class AsyncTelling(Adapter):
    """On a loop."""

    @tool
    def tell(self, count: int) -> None:
        for number in range(1, count + 1):
            context().progress(number, count)

    @tool
    async def tell_async(self, count: int) -> None:
        for number in range(1, count + 1):
            context().progress(number, count)
            await anyio.lowlevel.checkpoint()

    @tool
    async def tell_in_a_task(self, count: int) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.tell_async, count)

    @tool
    async def tell_in_a_thread(self, count: int) -> None:
        await anyio.to_thread.run_sync(self.tell, count)

    @tool
    async def tell_between_items(self, count: int) -> AsyncIterator[int]:
        for number in range(1, count + 1):
            context().progress(number, count)
            yield number

    @tool
    async def tell_for_ever(self) -> None:
        say("running")
        number = 0
        while True:
            number += 1
            context().progress(number)

    @tool
    async def tell_and_sleep_for_ever(self) -> None:
        context().progress(1)
        context().progress(2)
        await anyio.sleep(FOREVER_S)
