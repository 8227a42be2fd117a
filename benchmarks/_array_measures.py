"""What is measured of arrays and tables inside a contender's process; as in `_measures.py`."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import anyio.to_thread

from benchmarks._contender import Calls
from benchmarks._machine import queued_s
from benchmarks._timing import clock, p50

COLUMNS: Final = 1_000  # of a table
TICK_S: Final = 0.0005
SENDS: Final = 2  # into memory that is new, and into memory that was written before
MIB: Final = 2**20


async def array(calls: Calls, *, size: int, born: str, seconds: float, warm: bool = True) -> float:
    """The median time that an array of so many bytes takes to a worker and back.

    `born`: "shared", where workers can see it; "heap", in ordinary memory. `warm`: it is sent once
    before.
    """
    import numpy

    sent: Any = numpy.empty(size, "u1")
    sent[:] = 7
    if born == "shared":
        assert calls.share is not None
        sent = calls.share(sent)

    async def send() -> None:
        came = await calls.echo(sent)
        assert len(came) == size

    if warm:
        await send()
    return await p50(send, seconds)


async def to_worker(calls: Calls, *, size: int, seconds: float) -> float:
    """The median time that an array in shared memory takes to a tool which returns a number."""
    sent = calls.pool.empty(size, "u1")
    sent[:] = 7

    async def send() -> None:
        assert await calls.pool.execute("look", {"value": sent}) == size

    await send()
    return await p50(send, seconds)


async def from_worker(calls: Calls, *, size: int, seconds: float) -> float:
    """The median call of a tool that returns an array which it has in shared memory."""
    await calls.pool.execute("keep", {"size": size})

    async def ask() -> None:
        assert len(await calls.pool.execute("give")) == size

    await ask()
    found = await p50(ask, seconds)
    await calls.pool.execute("keep", {"size": 1})
    return found


async def memcpy(calls: Calls, *, size: int, seconds: float) -> float:
    """The median time of one copy in this process, into memory that was written before."""
    import numpy

    del calls
    sent, copy = numpy.empty(size, "u1"), numpy.zeros(size, "u1")
    sent[:] = 7

    async def once() -> None:
        numpy.copyto(copy, sent)

    await once()
    return await p50(once, seconds)


async def table(calls: Calls, *, size: int, seconds: float) -> float:
    """The median time that a table of 1,000 columns in ordinary memory takes to a worker's tool."""
    import pyarrow

    columns = _columns(size)
    sent = pyarrow.table({f"c{number}": column for number, column in enumerate(columns)})

    async def send() -> None:
        await calls.pool.execute("rows", {"value": sent})

    await send()  # there is memory for it by now
    return await p50(send, seconds)


async def columns(calls: Calls, *, size: int, seconds: float) -> float:
    """The median time of one copy of such columns, one after the other, into one warm array."""
    import numpy

    del calls
    sent = [column.view("u1") for column in _columns(size)]
    copy = numpy.zeros(sum(map(len, sent)), "u1")

    async def once() -> None:
        start = 0
        for column in sent:
            copy[start : start + len(column)] = column
            start += len(column)

    await once()
    return await p50(once, seconds)


def _columns(size: int) -> list[Any]:
    import numpy

    column = numpy.arange(max(1, size // 8 // COLUMNS))
    return [column.copy() for _ in range(COLUMNS)]


async def stall(calls: Calls, *, size: int) -> dict[str, float]:
    """The longest that the event loop let a task wait: while an array is sent, and while none is.

    And while a thread alone copies as much, which nothing of the pool has a part in.
    """
    import numpy

    sent: Any = numpy.empty(size, "u1")
    sent[:] = 7
    gc.collect()

    async def send() -> None:
        for _ in range(SENDS):
            await calls.pool.execute("look", {"value": sent})

    start = clock()
    sending, queued = await _longest_wait(send)
    took = clock() - start
    copying, _ = await _longest_wait(lambda: anyio.to_thread.run_sync(_copy, sent))
    quiet, _ = await _longest_wait(lambda: anyio.sleep(took))
    return {
        "sending": sending,
        "queued": queued,
        "copying": copying,
        "quiet": quiet,
        "took": took / SENDS,
    }


def _copy(sent: Any) -> None:
    """Copy into memory that is new and can be shared, and into the same again."""
    import numpy

    copy = numpy.frombuffer(mmap.mmap(-1, len(sent)), "u1")
    for _ in range(SENDS):
        numpy.copyto(copy, sent)  # lets go of the GIL


async def _longest_wait(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """By how much a task that looks at the clock again and again was late while this was done.

    And for how much of it this thread could have run, and others had the CPUs.
    """
    longest, queued = 0.0, 0.0
    over = False

    async def watch() -> None:
        nonlocal longest, queued
        while not over:
            queued_before, start = queued_s(), clock()
            await anyio.sleep(TICK_S)
            late = clock() - start - TICK_S
            if late > longest:
                longest, queued = late, queued_s() - queued_before

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await work()
        over = True
    return longest, queued


ARRAY_MEASURES: Final[tuple[Callable[..., Awaitable[Any]], ...]] = (
    array,
    to_worker,
    from_worker,
    memcpy,
    table,
    columns,
    stall,
)
