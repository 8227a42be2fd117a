"""The processes below this worker: which of them end with a call, and that all end with it.

The worker adopts what its descendants leave behind, so everything that was started here stays
below it, however often it was forked and whatever session it has. What a cancelled call has
started is told apart by its start time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from time import clock_gettime

from snakepit.procfs import (
    TICKS_PER_S,
    Process,
    adopt_orphans,
    children_of,
    descendants_of,
    kill_descendants,
    send_to,
    wait_dead,
    wanted_below,
)
from snakepit.worker._wire import complain

POLITE_S = 0.2  # from SIGTERM to SIGKILL
POLITE_SHARE = 0.25  # at most that of the grace of a cancelled call
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Offspring:
    """What lives below this process."""

    def __init__(self) -> None:
        self._kept: set[tuple[int, int]] = set()  # of `initialize`, whenever that was
        self._grandchildren: set[tuple[int, int]] = set()  # whoever is their parent by now
        self._pid = os.getpid()

    def adopt(self) -> None:
        """From now on orphans below this process become its children."""
        adopt_orphans()

    def keep(self) -> None:
        """What lives now stays until the worker ends."""
        self._kept = {(process.pid, process.start) for process in descendants_of(self._pid)}

    def look(self) -> None:
        """Note whose parent is another one, before a call is cancelled and that one may go.

        Once the worker has adopted them, nothing tells them from a tool's own children.
        """
        below = descendants_of(self._pid)
        if below or self._grandchildren:
            here = {(process.pid, process.start) for process in children_of(self._pid)}
            self._grandchildren &= here
            self._note(below)

    def end_since(self, begun: float, grace_s: float) -> None:
        """End what was started since then: SIGTERM, a moment of the grace, SIGKILL.

        `begun` is a reading of `now`. The kernel tells the starts in hundredths of a second: what
        was started in the same one counts as started later.
        """
        self.look()
        self._end(self._since(begun), min(POLITE_S, grace_s * POLITE_SHARE))
        if self._grandchildren:
            self.reap_adopted()

    def signal_since(self, begun: float, number: int, may: Callable[[], bool]) -> None:
        """Signal what was started since then, if `may` says so once all of it has been found.

        So nothing is hit that a later call starts meanwhile. From any thread; does not wait.
        """
        found = wanted_below(self._pid, self._since(begun))
        for process in found if found and may() else ():
            send_to(process, number)

    def end_all(self) -> None:
        """End everything. A forked child of the worker ends nothing."""
        if os.getpid() == self._pid:
            self._end(lambda _process: True, POLITE_S)

    def _since(self, begun: float) -> Callable[[Process], bool]:
        since = int(begun * TICKS_PER_S)
        return lambda process: (
            process.start >= since and (process.pid, process.start) not in self._kept
        )

    def _end(self, wanted: Callable[[Process], bool], polite_s: float) -> None:
        told = wanted_below(self._pid, wanted)
        if not told:
            return
        self._note(told)  # what has begun since the last look, and loses its parent now
        for process in told:
            send_to(process, signal.SIGTERM)
        wait_dead(told, polite_s)
        if left := kill_descendants(self._pid, wanted):
            complain(f"started here, these would not die: {', '.join(map(str, left))}")

    def _note(self, below: list[Process]) -> None:
        self._grandchildren |= {
            (process.pid, process.start) for process in below if process.parent != self._pid
        }

    def reap_adopted(self) -> None:
        """Reap the dead that were adopted, one by one.

        Never `waitpid(-1)`: that would take the exit codes of a tool's own children. A child of
        ours is in our session, or leads one of its own: what is in another one was adopted, and so
        was what had another parent once. What cannot be told apart so is left, as a zombie, until the
        worker ends.
        """
        session = os.getsid(0)
        for child in children_of(self._pid):
            was_adopted = child.session not in (session, child.pid)
            if child.is_dead and (was_adopted or (child.pid, child.start) in self._grandchildren):
                try:
                    os.waitpid(child.pid, os.WNOHANG)
                except ChildProcessError:
                    pass


def now() -> float:
    """The clock by which the kernel tells when processes started, in seconds."""
    return clock_gettime(_CLOCK)
