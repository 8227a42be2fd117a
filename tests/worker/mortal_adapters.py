"""Adapters that say on stderr what becomes of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from misdeeds import MISDEEDS, ExitsWhenRead, Point
from worker_adapters import FOREVER_S, say

from snakepit import Adapter, tool
from snakepit.errors import ToolCancelled
from snakepit.protocol import FRAME_BYTES_MAX


class Mortal(Adapter):
    """Says on stderr what becomes of it."""

    def __init__(self) -> None:
        say("constructed")

    def initialize(self) -> None:
        say("initialized")

    def cleanup(self) -> None:
        say("cleaned up")

    @tool
    def echo(self, value: Any = None) -> Any:
        return value

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def sleep(self) -> None:
        try:
            say("running")
            time.sleep(FOREVER_S)
        except ToolCancelled:
            say("interrupted")
            raise

    @tool
    def upset_the_io_thread(self, then_sleep: bool) -> None:
        """Where it next runs Python code it runs out of memory."""
        (thread,) = (each for each in threading.enumerate() if each.name == "snakepit-io")
        assert thread.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(MemoryError)
        )
        if then_sleep:
            self.sleep()

    @tool
    def never_stop(self) -> None:
        while True:
            with contextlib.suppress(ToolCancelled):
                say("running")
                time.sleep(FOREVER_S)

    @tool
    def stream(self) -> Iterator[int]:
        try:
            yield 0
            say("running")
            yield 1
            yield 2
        finally:
            say("closed")

    @tool
    def large(self, nbytes: int) -> bytes:
        say("running")
        return bytes(nbytes)

    @tool
    def close_stderr(self) -> None:
        os.close(2)

    @tool
    def child_handlers(self) -> list[str]:
        """The dispositions of a forked child, as it sees them."""

        def work() -> str:
            numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGURG)
            handlers: list[Any] = [signal.getsignal(number) for number in numbers]
            return " ".join(getattr(h, "name", None) or h.__name__ for h in handlers)

        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(write_end, work().encode())
            os._exit(0)
        os.close(write_end)
        with open(read_end, encoding="ascii") as stream:
            text = stream.read()
        os.waitpid(pid, 0)
        return text.split()

    @tool
    def how_a_child_ends(self, number: int) -> int:
        """The wait status of a forked child that sleeps and is signalled."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.write(writing, b"x")
                time.sleep(FOREVER_S)
            except BaseException:
                os._exit(42)
        os.read(reading, 1)  # before that Python drops what comes for the child
        os.close(reading)
        os.close(writing)
        os.kill(pid, number)
        return os.waitpid(pid, 0)[1]

    @tool
    def ask_a_spawned_child(self, number: int) -> int:
        """The return code of an exec'd child that signals itself."""
        argv = [sys.executable, "-c", f"import os, time; os.kill(os.getpid(), {number}); print(1)"]
        return subprocess.run(argv, capture_output=True, check=False).returncode

    @tool
    def misbehave(self, how: str) -> Any:
        return MISDEEDS[how]()

    @tool
    def misbehaving_stream(self, how: str) -> Iterator[Any]:
        yield "first"
        MISDEEDS[how]()

    @tool
    def return_point_that_exits(self) -> Any:
        return ExitsWhenRead()

    @tool
    def stream_point_that_exits(self) -> Iterator[Any]:
        yield "first"
        yield ExitsWhenRead()

    @tool
    def fork_and_return(self) -> Any:
        """Both processes return; the parent waits for the child in a thread of its own."""
        pid = os.fork()
        if not pid:
            return "child"
        statuses: list[int] = []
        waiter = threading.Thread(target=lambda: statuses.append(os.waitpid(pid, 0)[1]))
        waiter.start()
        waiter.join(5)
        if not statuses:
            os.kill(pid, signal.SIGKILL)
            waiter.join()
        return (*statuses, "parent")

    @tool
    def take_point(self, point: Point) -> str:
        return repr(point)


class TooLong(Adapter):
    """What it tells of its tools fits into no frame."""

    def initialize(self) -> None:
        say("initialized")

    def cleanup(self) -> None:
        say("cleaned up")

    @tool(description="x" * FRAME_BYTES_MAX)
    def echo(self) -> None: ...


class AsyncMortal(Adapter):
    """With an async tool."""

    def cleanup(self) -> None:
        say("cleaned up")

    @tool
    async def echo(self) -> None: ...


class FailingHooks(Adapter):
    """A hook that fails, or says how long it takes."""

    def __init__(self, where: str, how: str) -> None:
        self.where, self.how = where, how
        self._maybe("__init__")

    def initialize(self) -> None:
        self._maybe("initialize")

    def cleanup(self) -> None:
        self._maybe("cleanup")

    def _maybe(self, here: str) -> None:
        say(f"in {here}")
        if here == self.where:
            if self.how == "hang":
                time.sleep(FOREVER_S)
            MISDEEDS[self.how]()

    @tool
    def echo(self, value: Any = None) -> Any:
        return value
