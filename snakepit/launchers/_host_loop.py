"""The loop that host and in-process workers share: calls into it, and its clock.

A mock clock jumps when all tasks wait. A task that waits for Python in a thread looks like that,
so while any tool or hook runs in one the clock is held; counted over all workers of the loop.
"""

from __future__ import annotations

import asyncio
import math
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio.lowlevel
import trio


class StillClock:
    """Holds the clock of a loop still, while anybody asks for it."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock if hasattr(clock, "autojump_threshold") else None
        self._holds = 0
        self._threshold = math.inf
        self._rate = 0.0

    def hold(self) -> None:
        """From now on it neither jumps nor runs; `release` must follow."""
        self._holds += 1
        if self._holds == 1 and self._clock is not None:
            self._threshold, self._rate = self._clock.autojump_threshold, self._clock.rate
            self._clock.autojump_threshold, self._clock.rate = math.inf, 0.0

    def release(self) -> None:
        """As far as this holder is concerned it may go on."""
        self._holds -= 1
        if self._holds == 0 and self._clock is not None:
            self._clock.autojump_threshold, self._clock.rate = self._threshold, self._rate


_clock_of_loop: anyio.lowlevel.RunVar[StillClock] = anyio.lowlevel.RunVar("snakepit_still_clock")


class HostLoop:
    """The running loop. Made on it."""

    def __init__(self) -> None:
        native: Any = anyio.lowlevel.current_token().native_token
        self.is_trio: bool = isinstance(native, trio.lowlevel.TrioToken)
        self._soon: Callable[..., object] = (
            native.run_sync_soon if self.is_trio else native.call_soon_threadsafe
        )
        # Of the loop, also for other threads: virtual where that is.
        self.now: Callable[[], float] = (
            trio.lowlevel.current_clock().current_time
            if self.is_trio
            else asyncio.get_running_loop().time
        )
        self._thread_id = get_ident()
        try:
            self.clock: StillClock = _clock_of_loop.get()
        except LookupError:
            self.clock = StillClock(trio.lowlevel.current_clock() if self.is_trio else None)
            _clock_of_loop.set(self.clock)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call it on the loop: at once if we are there, else soon, in the order of these calls."""
        if get_ident() == self._thread_id:
            function(*arguments)
        else:
            # A loop that has ended has nobody who waits for anything.
            with suppress(RuntimeError, trio.RunFinishedError):
                self._soon(function, *arguments)
