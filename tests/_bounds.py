"""Bounds in time that hold on a machine with much else to do, and still tell a breach of them.

A promise is one of graces. What the machine adds is measured while the promise is tried: a thread
sleeps for a moment, again and again, and notes how late it is woken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

SLACK_S = 3.0  # for processes to start, to be looked up and to end, on a machine that is not idle
NAP_S = 0.01
LATE_FACTOR = 5.0  # an end takes that many turns of processes that all come late


class Machine:
    """How late a plain sleep was at worst, up to now."""

    late_s = 0.0

    def allows(self, bound_s: float) -> float:
        """The bound, and what this machine needs beside it."""
        return bound_s + SLACK_S + LATE_FACTOR * self.late_s


@contextmanager
def watched_machine() -> Generator[Machine]:
    """Watch it as long as the block lasts."""
    machine, over = Machine(), threading.Event()

    def nap() -> None:
        while not over.is_set():
            begun = time.monotonic()
            time.sleep(NAP_S)
            machine.late_s = max(machine.late_s, time.monotonic() - begun - NAP_S)

    thread = threading.Thread(target=nap, name="watch of the machine", daemon=True)
    thread.start()
    try:
        yield machine
    finally:
        over.set()
        thread.join()


@contextmanager
def takes_at_most(bound_s: float) -> Generator[None]:
    """The block does, but for what this machine adds."""
    with watched_machine() as machine:
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
    allowed_s = machine.allows(bound_s)
    assert seconds <= allowed_s, f"took {seconds:.2f} s; {bound_s:g} s is promised"
