"""The tools of the chaos. They tell a journal, one file for all workers, when they begin and how they end.

A line is written by one system call, and its time is the machine's: whatever happens to the worker,
what is there is true, and comparable with what callers saw.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from snakepit import Adapter, ToolCancelled, context, tool
from snakepit.procfs import read_process

MIB = 2**20
GIL_ITEMS = 30_000_000  # a third of a second in C, deaf and dumb
EXIT_CODE = 3
JOURNAL = "CHAOS_JOURNAL"  # where workers that no pool has started find its path
journal = -1


def answer(call: int) -> str:
    return f"answer to {call}"


def item(call: int, number: int, size: int) -> tuple[str, bytes]:
    return f"item {number} of {call}", bytes([number % 256]) * size


def help_for(call: int) -> str:
    return f"help for {call}"


def complaint(call: int) -> str:
    """What the tool of a call raises that was told to raise."""
    return f"by {call}"


def tell(what: str, call: int, how: str = "-") -> None:
    os.write(journal, f"{what} {call} {os.getpid()} {time.monotonic():.6f} {how}\n".encode())


def tell_of_child(call: int, pid: int) -> None:
    process = read_process(pid)
    if process is not None:
        tell("starts", call, f"{pid}:{process.start}")


class ChaosError(ValueError):
    pass


class Chaos(Adapter):
    """Tools that do as they are told, `how`, for some seconds."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path or os.environ[JOURNAL]

    def initialize(self) -> None:
        global journal
        journal = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @tool
    def work(self, call: int, how: str, seconds: float, ballast: Any = None) -> Any:
        return behave(call, how, seconds, ballast)

    @tool(idempotent=True)
    def again(self, call: int, how: str, seconds: float, ballast: Any = None) -> Any:
        return behave(call, how, seconds, ballast)

    @tool
    def items(
        self, call: int, how: str, seconds: float, count: int, size: int
    ) -> Iterator[tuple[str, bytes]]:
        with told(call):
            for number in range(count):
                time.sleep(seconds)
                yield item(call, number, size)
            finish(call, how, None)

    @tool
    def eat(self, call: int, how: str, seconds: float, food: Iterator[bytes]) -> Any:
        with told(call):
            eaten = 0
            for bite in food:
                time.sleep(seconds)
                eaten += len(bite)
            finish(call, how, None)
            return answer(call), eaten

    @tool
    def confer(self, call: int, how: str, seconds: float) -> Any:
        with told(call):
            time.sleep(seconds)
            told_by_host = context().call_host("help", {"call": call, "seconds": seconds})
            finish(call, how, None)
            return answer(call), told_by_host

    @tool
    def count(self, call: int, how: str, seconds: float) -> Any:
        """How many calls have counted in this session, on this worker, this one included."""
        with told(call):
            counted = context().session["counted"] = context().session.get("counted", 0) + 1
            time.sleep(seconds)
            finish(call, how, None)
            return answer(call), counted, os.getpid()


class AsyncChaos(Chaos):
    """With an event loop on the main thread."""

    @tool
    async def aside(self, call: int, how: str, seconds: float) -> Any:
        with told(call):
            await asyncio.sleep(seconds)
            finish(call, how, None)
            return answer(call)


@contextmanager
def told(call: int) -> Generator[None]:
    tell("begins", call)
    how = "cut"
    try:
        yield
        how = "returned"
    except ChaosError:
        how = "raised"
        raise
    finally:
        tell("ends", call, how)


def behave(call: int, how: str, seconds: float, ballast: Any) -> Any:
    with told(call):
        spend(call, how, seconds)
        finish(call, how, ballast)
        return answer(call), ballast


def spend(call: int, how: str, seconds: float) -> None:
    if how == "compute":
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    elif how == "child":
        with subprocess.Popen(["sleep", f"{seconds}"]) as child:
            try:
                tell_of_child(call, child.pid)
                child.wait()
            except BaseException:  # as subprocess.run does
                child.kill()
                raise
    elif how == "leave a child":  # for the pool to end, with the call or with the worker
        stays = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        tell_of_child(call, stays.pid)
        time.sleep(seconds)
    elif how == "hold the GIL":
        collections.deque(itertools.repeat(None, GIL_ITEMS), maxlen=0)
    elif how == "swallow":
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                time.sleep(left)
            except ToolCancelled:
                pass
    else:
        time.sleep(seconds)


def finish(call: int, how: str, ballast: Any) -> None:
    if how == "raise":
        raise ChaosError(complaint(call))
    if how == "exit":
        os._exit(EXIT_CODE)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segv":
        ctypes.string_at(0)
