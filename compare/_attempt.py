"""One call of a scenario, in a task of its own, and the patience that each is met with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import psutil
import trio

from compare._contender import Run

START_S_MAX: Final = 30.0  # until a worker has begun with a call: it may have to be started
END_S_MAX: Final = 10.0  # until a caller hears of the end of its call
POLL_S: Final = 0.01


class Attempt:
    """A call, from its start to its outcome."""

    def __init__(self, nursery: trio.Nursery, run: Run, *call: Any) -> None:
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.ended_at = 0.0
        self.value: Any = None
        self.error: BaseException | None = None
        self.was_cancelled = False
        nursery.start_soon(self._make, run, call)

    async def _make(self, run: Run, call: tuple[Any, ...]) -> None:
        try:
            with self._scope:
                self.value = await run(*call)
        except Exception as error:
            self.error = error
        self.was_cancelled = self._scope.cancelled_caught
        self.ended_at = time.monotonic()
        self._ended.set()

    def cancel(self) -> float:
        """Cancel it; the time of that."""
        self._scope.cancel()
        return time.monotonic()

    async def has_ended(self, within_s: float = END_S_MAX) -> bool:
        """Wait for its end, for so long."""
        with trio.move_on_after(within_s):
            await self._ended.wait()
        return self._ended.is_set()

    async def outcome(self, within_s: float = END_S_MAX) -> str:
        """What its caller gets: "a value", the name of an error, "cancelled", "nothing" in this time."""
        if not await self.has_ended(within_s):
            return "nothing"
        if self.error is not None:
            return type(self.error).__name__
        return "cancelled" if self.was_cancelled else "a value"


async def begun(folder: Path, name: str) -> int:
    """Wait until a worker does this; its pid. Raises TimeoutError."""
    with trio.move_on_after(START_S_MAX):
        while True:
            for path in folder.glob(f"{name}-*"):
                return pid_in(path)
            await trio.sleep(POLL_S)
    raise TimeoutError(f"no worker has begun with {name!r} within {START_S_MAX:g} s")


def pid_in(path: Path) -> int:
    """The process that a note names."""
    return int(path.name.rpartition("-")[2])


class Watched:
    """A process, told from a later one with the same number."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process = psutil.Process(pid)

    def lives(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def cpu_s(self) -> float:
        """CPU time that it has used; 0 once it is gone."""
        if not self.lives():
            return 0.0
        try:
            times = self._process.cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)

    async def is_computing(self, for_s: float) -> bool:
        """Does it use the CPU? On a busy machine it may get little of it; who rests uses none."""
        before = self.cpu_s()
        await trio.sleep(for_s)
        return self.lives() and self.cpu_s() - before > for_s / 30
