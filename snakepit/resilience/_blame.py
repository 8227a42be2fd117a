"""Whose fault a death was: the worker's own, its call's, or that of somebody outside.

SIGKILL is what a call's hunger for memory ends in, and what somebody sends who ends workers
from outside; nobody tells them apart for sure. What tells: the kernel counts those that it ended for
want of memory, where that count can be read; a call cannot have killed a worker that had none; calls
that were answered when they were made again had not killed, where there are several of them; and
workers that had been of use a moment ago could start, and could serve.

A worker and its call are judged apart. That the kernel did not do it clears the worker; its call
may have sent the signal itself, or have been too large for something that ends what is too large.
"""

from __future__ import annotations

import math
import signal
from typing import Final

from attrs import frozen

POLITE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # no call is known to raise these
TERMINATED: Final = 128 + signal.SIGTERM  # the exit code of one that was asked before it served


@frozen
class Death:
    """What is known of a worker that ended by itself, or was ended by others than its pool.

    `oom_kills`: how many processes the kernel ended for want of memory meanwhile, None where it does not
    tell. `said_goodbye`: as a worker does that cleans up first. `had_call`: there was a call that it
    had not answered. `was_ready`: it could serve.
    """

    exit_code: int | None = None
    signal: int | None = None
    oom_kills: int | None = None
    said_goodbye: bool = False
    had_call: bool = False
    was_ready: bool = False

    @property
    def is_polite(self) -> bool:
        """Was it asked to end?"""
        return self.said_goodbye or self.signal in POLITE or self.exit_code == TERMINATED

    @property
    def is_unclear(self) -> bool:
        """Was it ended, and not for want of memory, as far as is known?"""
        return self.is_polite or (self.signal == signal.SIGKILL and not self.oom_kills)

    @property
    def is_outsiders(self) -> bool:
        """Did somebody end a worker that could serve, and not the kernel?"""
        spared = self.is_polite or (self.signal == signal.SIGKILL and self.oom_kills == 0)
        return self.was_ready and spared


@frozen
class Verdict:
    """Whose fault it was.

    `outside`: not the worker's; its start was no fruitless one. `of_call`: its call's, `doubtful`: if
    it was not somebody's outside. `killer`: there is such a somebody.
    """

    outside: bool = False
    of_call: bool = False
    doubtful: bool = False
    killer: bool = False


class Blame:
    """The judge of one pool. What was seen counts for `window_s`."""

    def __init__(self, *, window_s: float) -> None:
        self._window_s = window_s
        self._ready_at = self._useful_at = self._killer_at = -math.inf
        self._cleared_at = -math.inf
        self._cleared = b""  # the call that was cleared then

    def judge(self, now: float, death: Death, *, ready: bool, useful: bool) -> Verdict:
        """`ready`: other workers are, or it was itself. `useful`: these have finished calls."""
        if ready:
            self._ready_at = now
        if useful:
            self._useful_at = now
        if not death.is_unclear:
            return Verdict(of_call=death.had_call)
        if (
            not death.had_call
        ):  # before any was ready, a start may ask for more memory than there is
            killer = self._is_recent(self._ready_at, now)
            if killer and not death.is_polite:
                self._killer_at = now
            return Verdict(outside=killer, killer=killer and not death.is_polite)
        killer_seen = self._is_recent(self._killer_at, now)
        of_call = not (death.is_polite or killer_seen)
        outside = killer_seen or death.is_outsiders or self._is_recent(self._useful_at, now)
        return Verdict(outside=outside, of_call=of_call, doubtful=of_call)

    def cleared(self, now: float, call: bytes) -> bool:
        """A call that SIGKILL had ended was answered. True: it is the second such call: somebody kills."""
        killer = call != self._cleared and self._is_recent(self._cleared_at, now)
        if killer:
            self._killer_at = now
        self._cleared_at, self._cleared = now, call
        return killer

    def _is_recent(self, when: float, now: float) -> bool:
        return when > now - self._window_s
