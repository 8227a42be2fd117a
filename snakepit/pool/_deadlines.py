"""All the pool's deadlines in one heap, watched by one task: no cancel scope per call."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final

import anyio
from trio.lowlevel import enable_ki_protection

DEAD_ENTRIES_MIN: Final = 64


class Alarm:
    """One deadline. `cancel` it when it no longer matters."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None] | None) -> None:
        self.at: float = at
        self.action: Callable[[], None] | None = action


class Deadlines:
    """Calls functions when their time has come, in the task that runs `watch`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._dead = 0
        self._wake_at = float("inf")
        self._poked = anyio.Event()

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def at(self, when: float, action: Callable[[], None]) -> Alarm:
        """Call `action` at that time on the loop's clock. It must not raise."""
        alarm = Alarm(when, action)
        heapq.heappush(self._heap, (when, next(self._order), alarm))
        if when < self._wake_at:
            self._poked.set()
        return alarm

    def cancel(self, alarm: Alarm | None) -> None:
        """Forget the alarm; harmless if it has gone off or is None."""
        if alarm is None or alarm.action is None:
            return
        alarm.action = None
        self._dead += 1
        if self._dead > DEAD_ENTRIES_MIN and self._dead > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    @enable_ki_protection
    async def watch(self) -> None:
        """Run until cancelled."""
        while True:
            self._ring(anyio.current_time())
            self._poked = anyio.Event()
            self._wake_at = self._heap[0][0] if self._heap else float("inf")
            with anyio.CancelScope(deadline=self._wake_at):
                await self._poked.wait()
            self._wake_at = float("-inf")

    def _ring(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            alarm = heapq.heappop(self._heap)[2]
            if alarm.action is None:
                self._dead -= 1
                continue
            action, alarm.action = alarm.action, None
            action()
