"""How far the end of a program has come, and when the next step is due. Pure.

    RUNNING -> CLOSING -> KILLED -> OVER

The time of a step is up, or a signal comes: on to the next one. Nothing leads back.
"""

from __future__ import annotations

from enum import IntEnum

SIGNAL_CODES_FROM = 128  # as shells tell of a process that a signal has ended
TIMEOUT_CODE = 124  # as timeout(1) tells that the time was up


class Step(IntEnum):
    """What is being done to a program."""

    RUNNING = 0  # nothing
    CLOSING = 1  # main has been cancelled or has ended: its pools close
    KILLED = 2  # the workers have been killed: nothing is left to wait for but main itself
    OVER = 3  # nobody waits any longer


class Ending:
    """The state machine of one program's end; fed with facts and the time.

    A limit of None is none. `cause`: the exit code of whatever began the end, None for main itself.
    """

    def __init__(
        self,
        now: float,
        *,
        timeout: float | None,
        shutdown_timeout: float | None,
        cleanup_timeout: float | None,
    ) -> None:
        self.step: Step = Step.RUNNING
        self.cause: int | None = None
        self.main_code: int | None = None  # None: main has not ended
        self._limits = {
            Step.RUNNING: timeout,
            Step.CLOSING: shutdown_timeout,
            Step.KILLED: cleanup_timeout,
            Step.OVER: None,
        }
        self._due = _after(timeout, now)

    @property
    def code(self) -> int:
        """The exit code: main's own if it got as far as that."""
        if self.main_code is not None:
            return self.main_code
        assert self.cause is not None, "an end has a cause"
        return self.cause

    def seconds_left(self, now: float) -> float | None:
        """Until `on_time` is due; None: never."""
        return None if self._due is None else max(0.0, self._due - now)

    def on_signal(self, number: int, now: float) -> None:
        """Somebody wants an end, or wants it sooner."""
        self._go_on(SIGNAL_CODES_FROM + number, now)

    def on_time(self, now: float) -> None:
        """What `seconds_left` told of has come."""
        self._go_on(TIMEOUT_CODE, now)

    def on_main_ended(self, code: int, now: float) -> None:
        """Main is over; what it has left to the loop has as long to end as its pools had."""
        self.main_code = code
        if self.step is Step.RUNNING:
            self._enter(Step.CLOSING, now)

    def _go_on(self, cause: int, now: float) -> None:
        if self.step is Step.RUNNING:
            self.cause = cause
        if self.step is not Step.OVER:
            self._enter(Step(self.step + 1), now)

    def _enter(self, step: Step, now: float) -> None:
        self.step = step
        self._due = _after(self._limits[step], now)


def _after(limit: float | None, now: float) -> float | None:
    return None if limit is None else now + limit
