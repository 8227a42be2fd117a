"""Tools that keep something for their session, in every way there is."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from worker_adapters import FOREVER_S, say

from snakepit import Adapter, CallContext, context, tool


class Keepsake:
    """Says in which thread it was let go of."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __del__(self) -> None:
        where = "main" if threading.current_thread() is threading.main_thread() else "another"
        say(f"{self.name} dropped in the {where} thread")


def remember_in(ctx: CallContext, value: Any) -> list[Any]:
    told: list[Any] = ctx.session.setdefault("told", [])
    told.append(value)
    return told


class Remembering(Adapter):
    """Sync tools alone."""

    @tool
    def remember(self, value: Any) -> list[Any]:
        return remember_in(context(), value)

    @tool
    def whose(self) -> str | None:
        return context().session_id

    @tool
    def keep(self, name: str) -> None:
        context().session[name] = Keepsake(name)

    @tool
    def count(self, stop: int) -> Iterator[int]:
        """Go on where the last call of this session stopped."""
        session = context().session
        for _ in range(stop):
            session["next"] = session.get("next", 0) + 1
            yield session["next"]

    @tool
    def remember_in_a_thread(self, value: Any) -> list[Any]:
        told: list[list[Any]] = []
        ctx = context()
        thread = threading.Thread(target=lambda: told.append(remember_in(ctx, value)))
        thread.start()
        thread.join()
        return told[0]

    @tool
    def sleep(self) -> None:
        say("asleep")
        time.sleep(FOREVER_S)

    @tool
    def fail(self, value: Any) -> None:
        raise ValueError(remember_in(context(), value))


class AsyncRemembering(Remembering):
    """The same, on a loop."""

    @tool
    async def remember_later(self, value: Any) -> list[Any]:
        return remember_in(context(), value)

    @tool
    async def count_later(self, stop: int) -> AsyncIterator[int]:
        for number in self.count(stop):
            yield number
