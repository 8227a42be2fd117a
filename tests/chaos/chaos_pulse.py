"""How late this process itself is: on a machine that has others to serve, no bound is kept to the second."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right

import anyio

BEAT_S = 0.05
LATE_S = 0.05  # less is not worth a note


class Pulse:
    """A task that sleeps, and notes when it was woken late."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._lates: list[float] = []

    async def beat(self) -> None:
        """Until cancelled."""
        while True:
            due = time.monotonic() + BEAT_S
            await anyio.sleep(BEAT_S)
            self.note(due, time.monotonic())

    def note(self, due: float, woken: float) -> None:
        if woken - due > LATE_S:
            self._ends.append(woken)
            self._lates.append(woken - due)

    def late_s(self, since: float, until: float) -> float:
        """For so long in all nothing was done here in this time that was due."""
        first = bisect_left(self._ends, since)
        last = bisect_right(self._ends, until)
        return sum(self._lates[first : last + 1])  # with the one that was late at the end
