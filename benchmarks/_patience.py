"""Turns during which the machine was taken away are taken again.

The host of a virtual machine gives its CPUs to other machines at times, for 10 ms and more at a stretch, and says so
afterwards (steal). A turn in which that was more than a little of the CPU time is taken again, a
few times at most; then the one that lost least counts, whatever its figure. Longer ones stay as they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

import psutil

T = TypeVar("T")

LOST_MAX: Final = 0.05  # of the CPU time of a turn
TRIES: Final = 5
LONG_S: Final = 5.0


def stolen_s() -> float:
    """CPU time that the machine's host has taken away so far; 0 where there is none, or nobody tells."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


class Patience:
    """Of one run: `turns` that counted, and how many were taken `again`."""

    def __init__(
        self,
        stolen_s: Callable[[], float] = stolen_s,
        clock: Callable[[], float] = time.monotonic,
        cpus: int = os.cpu_count() or 1,
    ) -> None:
        self.turns = self.again = 0
        self._stolen_s, self._clock, self._cpus = stolen_s, clock, cpus

    def take(self, turn: Callable[[], T]) -> T:
        """What the turn finds when it is let alone, or nearly. Raises what it raises."""
        self.turns += 1
        found: list[tuple[float, T]] = []
        while True:
            stolen, start = self._stolen_s(), self._clock()
            figure = turn()
            took = self._clock() - start
            lost = (self._stolen_s() - stolen) / (took * self._cpus)
            found.append((lost, figure))
            if lost <= LOST_MAX or took > LONG_S or len(found) == TRIES:
                return min(found, key=lambda one: one[0])[1]
            self.again += 1

    def __str__(self) -> str:
        return f"{self.again} disturbed turns were taken again, {self.turns} counted"
