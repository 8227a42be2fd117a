"""How long a call takes: the clock of all measurements, and the median of a turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

clock = time.perf_counter


async def p50(call: Callable[[], Awaitable[Any]], seconds: float) -> float:
    """The median of the calls of this time, one after the other; of one call at least."""
    times: list[float] = []
    start = clock()
    end = start + seconds
    while start < end or not times:
        await call()
        now = clock()
        times.append(now - start)
        start = clock()
    return statistics.median(times)
