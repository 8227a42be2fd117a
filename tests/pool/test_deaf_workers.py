"""A worker that reads no more: it is found when a call is taken back, and costs nobody a call."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from _backends import one_loop_each
from _leaks import is_alive
from pool_kit import BRISK, pids, tools_pool

from snakepit import QueueTimeoutError, Stop
from snakepit.pool._seat import Seat
from snakepit.pool._stopping import READS_AGAIN_S, StopsCalls


@one_loop_each
@pytest.mark.parametrize("transport", ["stdio", "grpc"])
@pytest.mark.parametrize("how", ["cancelled", "time is up"])
async def test_one_that_does_not_take_a_cancelled_call_is_ended(transport: str, how: str) -> None:
    """A call behind it, of which the worker has not seen a byte, runs elsewhere, and once."""
    async with tools_pool(transport=transport, stop=BRISK) as pool:
        [pid] = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        argument = {"value": bytes(30_000_000)}
        if how == "cancelled":
            with anyio.move_on_after(0.1) as scope:
                await pool.execute("echo", argument)
            assert scope.cancelled_caught
        else:
            with pytest.raises(QueueTimeoutError):
                await pool.execute("echo", argument, timeout=0.1)
        assert is_alive(pid)
        assert await pool.execute("pid", idempotent=False) != pid
        assert not is_alive(pid)


class Reader(StopsCalls):
    """A worker as far as `_expect_reading` sees it; `taken` is what has been read of what waits."""

    def __init__(self) -> None:
        self.taken: int | None = 0
        self.now = 0.0
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.condemned: list[str] = []
        self._is_spawned = True
        self.seat = Seat(name="w1")
        self._channel: Any = self
        self._core: Any = SimpleNamespace(
            now=lambda: self.now,
            deadlines=SimpleNamespace(at=lambda when, do: self.alarms.append((when, do))),
            settings=SimpleNamespace(stop=Stop(cancel_grace=0)),
        )

    @property
    def stalled_at(self) -> int | None:
        return self.taken

    def withdraw(self, message: str) -> bool:
        return message != "written"

    def condemn(self, reason: str, **_: Any) -> None:
        self.condemned.append(reason)
        self.seat.stop()

    def ring(self) -> None:
        self.now, do = self.alarms.pop(0)
        do()


def test_one_that_reads_slowly_is_kept() -> None:
    worker = Reader()
    worker._expect_reading()
    for taken in range(1, 20):
        worker.taken = taken
        worker.ring()
        assert worker.now == pytest.approx(taken * READS_AGAIN_S)
    worker.taken = None  # nothing waits any more
    worker.ring()
    assert (worker.alarms, worker.condemned) == ([], [])


def test_one_that_stops_in_between_is_ended_once() -> None:
    worker = Reader()
    worker._expect_reading()
    worker._expect_reading()  # one more call is taken back: it is watched already
    worker.taken = 7
    worker.ring()
    worker.ring()
    assert len(worker.condemned) == 1
    assert "read nothing" in worker.condemned[0]
    assert worker.alarms == []


def test_one_that_runs_a_call_is_let_alone_until_that_has_ended() -> None:
    """It may hold the GIL, and nobody has asked it to stop."""
    worker = Reader()
    worker.seat.calls[1] = cast("Any", SimpleNamespace(sent="written"))
    worker._expect_reading()
    worker.ring()
    worker.ring()
    assert worker.condemned == []
    worker.seat.calls.clear()
    worker.ring()
    assert len(worker.condemned) == 1


def test_nobody_is_watched_where_nothing_waits() -> None:
    worker = Reader()
    worker.taken = None
    worker._expect_reading()
    assert worker.alarms == []
