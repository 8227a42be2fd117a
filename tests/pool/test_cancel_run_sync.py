"""`run_sync`, cancelled at every checkpoint: the function has stopped by then, and the pool serves.

In memory it runs in a thread, and when that is done no seed decides; so there, and with real processes,
it is the checkpoints of the caller's own task that are counted, and each of them is come to. In
virtual time it is also cancelled after each turn of whatever task of the program, seed by seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import functions
import pytest
import trio
from _shares import in_turns
from _transports import TRANSPORTS
from pool_kit import PATIENT, lines, pids, until

from snakepit import Pool, open_pool
from snakepit.testing import CancelPoint, cancel_at_every_checkpoint

CHECKPOINTS_MAX = 20


def fail_after_a_note(path: str) -> None:
    functions.note(path)
    raise LookupError(path)


def note_and_nap(path: str, seconds: float) -> str:
    functions.note(path)
    functions.nap(seconds)
    return functions.note(path, "ended")


USES: dict[str, Callable[[Pool, str], Any]] = {
    "a value": lambda pool, path: pool.run_sync(functions.note, path),
    "an error": lambda pool, path: pool.run_sync(fail_after_a_note, path),
    "a while": lambda pool, path: pool.run_sync(note_and_nap, path, 0.05),
    "a large value": lambda pool, path: pool.run_sync(functions.same, bytes(3 * 2**20)),
}


def cancelled_ever_later() -> Generator[CancelPoint]:
    """As `cancel_at_every_checkpoint`, in real time."""
    for number in range(CHECKPOINTS_MAX):
        point = CancelPoint(number, "task")
        yield point
        if not point.cancelled:
            return
    pytest.fail(f"it has more than {CHECKPOINTS_MAX} checkpoints")


# Each use on two of the four: its loop and its worker's lane are the same on all of them.
IN_TURNS = [
    (use, transport) for number, use in enumerate(USES) for transport in TRANSPORTS[number % 2 :: 2]
]


@pytest.mark.parametrize(("name", "transport"), IN_TURNS)
def test_run_sync(name: str, transport: str, tmp_path: Path) -> None:
    """One pool for all of it: a worker that was cancelled goes on with the next function."""
    times = 0

    async def main() -> None:
        nonlocal times
        with trio.fail_after(40):
            async with open_pool(size=1, transport=transport, stop=PATIENT) as pool:
                await pool.ready()
                before = [worker.id for worker in pool.workers()]
                for point in cancelled_ever_later():
                    log = tmp_path / f"log{point.number}"
                    with point, contextlib.suppress(LookupError):
                        await USES[name](pool, str(log))
                    seen = lines(log)
                    stats = pool.stats()
                    assert (stats.busy, stats.queued) == (0, 0)
                    # What it had not done by then it does not do any more.
                    assert await pool.run_sync(functions.double, 21) == 42
                    assert lines(log) == seen
                    times += 1
                assert [worker.id for worker in pool.workers()] == before
                assert pool.stats().restarts == 0

    trio.run(main)
    assert times >= 3


@pytest.mark.parametrize(("name", "seed"), in_turns([0, 1, 2], USES))
def test_run_sync_in_virtual_time(name: str, seed: int, tmp_path: Path) -> None:
    """The clock stands still while the function runs in its thread, and jumps no deadline."""

    async def main(point: CancelPoint) -> None:
        log = tmp_path / f"log{point.number}"
        async with open_pool(size=1, transport="memory", stop=PATIENT) as pool:
            await pool.ready()
            before = [worker.id for worker in pool.workers()]
            with point, contextlib.suppress(LookupError):
                await USES[name](pool, str(log))
            seen = lines(log)
            assert (pool.stats().busy, pool.stats().queued) == (0, 0)
            assert await pool.run_sync(functions.double, 21) == 42
            assert lines(log) == seen
            assert [worker.id for worker in pool.workers()] == before
            assert pool.stats().restarts == 0

    assert cancel_at_every_checkpoint(main, seed=seed) >= 3


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", USES)
def test_run_sync_while_the_only_worker_is_busy(name: str, number: int, tmp_path: Path) -> None:
    """The caller has one checkpoint there, its wait. Cut short then the function never runs."""
    started, release, log = (str(tmp_path / file) for file in ("started", "release", "log"))

    async def main() -> None:
        with trio.fail_after(40):
            async with open_pool(size=1, transport="stdio", stop=PATIENT) as pool:
                [pid] = pids(pool)
                async with trio.open_nursery() as others:
                    others.start_soon(pool.run_sync, functions.hold, started, release)
                    await until(Path(started).exists)
                    point = CancelPoint(number, "task")
                    with point:
                        await USES[name](pool, log)
                    assert point.cancelled
                    assert (pool.stats().busy, pool.stats().queued) == (1, 0)
                    Path(release).touch()
                assert await pool.run_sync(functions.pid) == pid
                assert lines(Path(log)) == []

    trio.run(main)
