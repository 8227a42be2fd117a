"""Adapters for workers in memory: async tools, sync tools, and hooks of both kinds."""

from __future__ import annotations

import contextvars
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel

from snakepit import Adapter, ToolCancelled, context, tool
from snakepit.testing import crash

FOREVER_S = 10**9
secret: contextvars.ContextVar[str] = contextvars.ContextVar("secret", default="unset")


class AsyncWork(Adapter):
    """Async alone. `log` is the test's own list: we are in its process."""

    log: list[str] = []  # noqa: RUF012 - for the test to see

    async def initialize(self) -> None:
        self.log.append("initialize")

    async def cleanup(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.log.append("cleanup")

    @tool
    async def echo(self, value: Any = None) -> Any:
        return value

    @tool
    async def nap(self, seconds: float = FOREVER_S) -> str:
        try:
            await anyio.sleep(seconds)
        finally:
            self.log.append("woken")
        return "slept"

    @tool
    async def slow_to_stop(self, seconds: float) -> None:
        try:
            await anyio.sleep(FOREVER_S)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)
            self.log.append("stopped")

    @tool
    async def fail(self) -> None:
        raise FileNotFoundError(2, "gone", "some/file")

    @tool
    async def count(self, stop: int) -> AsyncIterator[int]:
        try:
            for number in range(stop):
                self.log.append(str(number))
                yield number
        finally:
            await anyio.lowlevel.checkpoint()
            self.log.append("closed")

    @tool
    async def report(self, steps: int, pause: float) -> None:
        for step in range(steps):
            context().progress(step, steps)
            await anyio.sleep(pause)
        context().progress(steps, steps)

    @tool
    async def never_closed(self) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await anyio.sleep(FOREVER_S)

    @tool
    async def swallow(self, times: int) -> str:
        for _ in range(times):
            try:
                await anyio.sleep(FOREVER_S)
            except BaseException:
                self.log.append("swallowed")
        return "well fed"

    @tool
    async def whereabouts(self) -> tuple[str, str, str, int]:
        return context().tool, secret.get(), threading.current_thread().name, context().call_id

    @tool
    async def die(self, exit_code: int) -> None:
        try:
            crash(exit_code)
        finally:
            self.log.append("unwound")

    @tool(idempotent=True)
    async def die_once(self) -> str:
        if "died" not in self.log:
            self.log.append("died")
            crash(3)
        return "second time"


class SyncWork(Adapter):
    """Sync alone, and tied to its thread."""

    log: list[str] = []  # noqa: RUF012 - for the test to see

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:")

    def initialize(self) -> None:
        self.db.execute("create table words (word text)")

    def cleanup(self) -> None:
        self.db.close()
        self.log.append("cleanup")

    @tool
    def add(self, word: str) -> int:
        self.db.execute("insert into words values (?)", (word,))
        return int(self.db.execute("select count(*) from words").fetchone()[0])

    @tool
    def words(self) -> Iterator[str]:
        for (word,) in self.db.execute("select word from words"):
            yield word

    @tool
    def report(self, steps: int, pause: float) -> None:
        for step in range(steps):
            context().progress(step, steps)
            time.sleep(pause)
        context().progress(steps, steps)

    @tool
    def block(self, seconds: float) -> str:
        time.sleep(seconds)
        return "blocked"

    @tool
    def meet(self, barrier: str) -> str:
        BARRIERS[barrier].wait(timeout=20)
        return threading.current_thread().name

    @tool
    def until_cancelled(self) -> None:
        self.log.append("running")
        try:
            while True:
                context().check_cancelled()
                time.sleep(0.002)
        except ToolCancelled:
            self.log.append("cancelled")
            raise

    @tool
    def count(self, stop: int) -> Iterator[int]:
        try:
            for number in range(stop):
                self.log.append(str(number))
                yield number
        finally:
            self.log.append("closed")

    @tool
    def whereabouts(self) -> tuple[str, str, str, int]:
        return context().tool, secret.get(), threading.current_thread().name, context().call_id

    @tool
    def die(self, exit_code: int) -> None:
        crash(exit_code)


class MixedWork(Adapter):
    """Of both kinds."""

    @tool
    def where_sync(self) -> str:
        return threading.current_thread().name

    @tool
    async def where_async(self) -> str:
        return threading.current_thread().name


class Pure(Adapter):
    """Neither hooks nor a constructor; async."""

    @tool
    async def echo(self, value: Any = None) -> Any:
        return value


class FailsToStart(Adapter):
    def __init__(self, how: str) -> None:
        self.how = how
        if how == "constructor":
            raise ZeroDivisionError("built wrongly")

    async def initialize(self) -> None:
        if self.how == "initialize":
            raise LookupError("no model here")
        if self.how == "crash":
            crash(6)
        if self.how == "hang":
            await anyio.sleep(FOREVER_S)

    @tool
    async def nothing(self) -> None: ...


BARRIERS: dict[str, threading.Barrier] = {}
