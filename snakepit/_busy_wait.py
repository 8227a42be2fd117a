"""Looking again and again for a moment, rather than sleeping, where an answer is about to come.

A process that sleeps is woken up by the kernel when something has come, which takes longer than
many a tool runs: up to half of a round trip. So whoever waits for the other end of a link looks for a tenth
of a millisecond whether it has answered, and sleeps only then. The CPU goes to whoever else
wants it after each look.

Where that is in vain it stops: after the first time it is left out once, then twice, four times, up to a
thousand. So tools that take longer pay for next to nothing, and a machine that is busy gets its CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

from snakepit.procfs import usable_cpus

T = TypeVar("T")

LIMIT_S = 0.0001
SKIPS_MAX = 1024


class BusyWait:
    """One end of one link: whether to look, and how long."""

    __slots__ = ("_skips", "_skips_next")

    def __init__(self) -> None:
        # With one CPU the other end cannot get on while this one looks.
        self._skips: float = 0 if usable_cpus() > 1 else float("inf")
        self._skips_next = 1

    def is_due(self) -> bool:
        """Is it worth while this time? Counts as asked."""
        if self._skips:
            self._skips -= 1
            return False
        return True

    def look(self, found: Callable[[], T]) -> T:
        """Look until what is found is true, or the time is up; return what was found last. Blocks."""
        until = perf_counter() + LIMIT_S
        while not (result := found()) and perf_counter() < until:
            os.sched_yield()
        self._note(result)
        return result

    def _note(self, result: object) -> None:
        if result:
            self._skips_next = max(1, self._skips_next // 2)
        else:
            self._skips = self._skips_next
            self._skips_next = min(SKIPS_MAX, 2 * self._skips_next)
