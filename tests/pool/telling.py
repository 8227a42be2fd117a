"""The adapters of test_progress.py: tools that tell how far they are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from adapters import BEAT_S, log_line, touch, wait_for

from snakepit import Adapter, context, tool


class Telling(Adapter):
    """Each tells `done` of `total`."""

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def steps(self, count: int, pause: float = 0.0, base: int = 0) -> str:
        for number in range(1, count + 1):
            context().progress(base + number, count, f"step {number}")
            time.sleep(pause)
        return "all done"

    @tool
    def step_then_fail(self) -> None:
        context().progress(1, 2)
        context().progress(2, 2)
        raise LookupError("no third step")

    @tool
    def step_and_beat(self, log: str, seconds: float = 0.0) -> None:
        """Tell, and write a line every 10 ms, for as long as it runs; go on for a while when cancelled."""
        number = 0
        try:
            while True:
                number += 1
                context().progress(number)
                log_line(log, number)
                time.sleep(BEAT_S)
        finally:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                log_line(log, "stopping")
                time.sleep(BEAT_S)
            log_line(log, "stopped")

    @tool
    def step_then_hold(self, started: str, release: str) -> str:
        context().progress(1, 2)
        touch(started)
        wait_for(release)
        context().progress(2, 2)
        return "released"

    @tool(idempotent=True)
    def step_and_die_once(self, log: str) -> str:
        """Die in the first worker that runs this, answer in the second."""
        first = not os.path.exists(log)
        log_line(log, os.getpid())
        context().progress(1, 2, "first" if first else "second")
        if first:
            os._exit(5)
        context().progress(2, 2, "second")
        return "survived"

    @tool
    def count(self, stop: int) -> Iterator[int]:
        for number in range(stop):
            context().progress(number, stop)
            yield number


class AsyncTelling(Adapter):
    """On the worker's loop."""

    @tool
    async def steps(self, count: int) -> str:
        import anyio.lowlevel

        for number in range(1, count + 1):
            context().progress(number, count)
            await anyio.lowlevel.checkpoint()
        return "all done"
