"""Whether the other end of a connection is still there: it answers pings, or at least works.

The pings are HTTP/2's, so they pass every call and every large value. The thread of a worker that
serves gRPC answers them; while a tool keeps the GIL to itself it cannot, and that is no death: a
process of this machine that uses the CPU is busy. One that neither answers nor works is stopped,
or stuck for good.
"""

from __future__ import annotations

import asyncio
from typing import Final

from grpclib.protocol import Connection

from snakepit.procfs import cpu_ticks

PING_S: Final = 10.0
MISSED_MAX: Final = 3  # in a row; the timer of a host that was itself stopped runs out only once
PING_DATA: Final = bytes(8)


async def until_silent(connection: Connection, pid: int | None) -> None:
    """Ping; return when nothing has come back for too long. `pid`: None if it runs elsewhere."""
    missed = 0
    answered = False

    def answer() -> None:
        nonlocal answered
        answered = True

    connection.ping_ack_process = answer  # type: ignore[method-assign]
    while missed < MISSED_MAX:
        if connection.is_closing():
            await asyncio.Event().wait()  # others see that end
        answered, before = False, _work(pid)
        connection._connection.ping(PING_DATA)
        connection.flush()
        await _pause()
        missed = 0 if answered or _may_have_worked(pid, before) else missed + 1


def _work(pid: int | None) -> int | None:
    return None if pid is None else cpu_ticks(pid)


def _may_have_worked(pid: int | None, before: int | None) -> bool:
    """Of a process of this machine whose work is not told, as on macOS, nothing bad is assumed."""
    return pid is not None and (before is None or _work(pid) != before)


async def _pause() -> None:
    await asyncio.sleep(PING_S)


def silence(*, is_elsewhere: bool = False) -> str:
    """What is said of a worker that has ended this way."""
    told = f"it has answered no ping for {PING_S * MISSED_MAX:g} s"
    return told if is_elsewhere else f"{told}, nor used the CPU"
