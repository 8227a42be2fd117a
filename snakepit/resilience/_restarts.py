"""When a slot's dead worker is replaced, and when the slot is given up."""

from __future__ import annotations

from collections import deque
from typing import Final

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0


class RestartBudget:
    """The restarts of one slot.

    A worker that finished a call is replaced at once and clears the backoff. Fruitless starts
    are waited for longer and longer, and more than `max_restarts` of them in `window_s` are the end.
    """

    def __init__(self, *, max_restarts: int, window_s: float) -> None:
        self._max_restarts, self._window_s = max_restarts, window_s
        self._fruitless: deque[float] = deque()
        self._delay_s = 0.0  # after the next fruitless start

    def ended(self, now: float, *, fruitful: bool) -> float | None:
        """A worker of the slot is gone: seconds to wait before the next start, None for never."""
        if fruitful:
            self._delay_s = 0.0
            return 0.0
        while self._fruitless and self._fruitless[0] <= now - self._window_s:
            self._fruitless.popleft()
        self._fruitless.append(now)
        if len(self._fruitless) > self._max_restarts:
            return None
        delay = self._delay_s
        self._delay_s = min(max(BACKOFF_FIRST_S, 2 * delay), BACKOFF_MAX_S)
        return delay
