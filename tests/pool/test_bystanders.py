"""What one call, caller or worker does wrong is not paid for by another."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
import stubborn
from _backends import one_loop_each
from msgspec import Raw
from pool_kit import lines, until

from snakepit import (
    CallTimeoutError,
    CrashBarrier,
    Pool,
    Queue,
    Stop,
    Stream,
    WorkerDiedError,
    open_pool,
)
from snakepit.pool._call import PendingCall
from snakepit.pool._codec import Codec

pytestmark = one_loop_each

QUICK = Stop(cancel_grace=0.1, term_grace=1, drain_timeout=2)


def send_ahead(pool: Pool) -> None:
    """Make the workers look quick, so that the next call is sent ahead of its time."""
    for slot in pool._core.slots:
        slot.worker.seat.average_s = 0.0


async def test_a_call_sent_ahead_and_given_up_does_not_cost_the_one_before_it(
    tmp_path: Path,
) -> None:
    """The call that runs holds the GIL, so no cancel is heard: it is not the one to be ended."""
    outcome: list[Any] = []
    with anyio.fail_after(40):
        async with open_pool(stubborn, size=1, stop=QUICK) as pool:
            await pool.execute("echo")
            [worker] = pool.workers()

            async def hog() -> None:
                outcome.append(await pool.execute("hog", {"started": str(tmp_path / "started")}))

            async with anyio.create_task_group() as tasks:
                send_ahead(pool)
                tasks.start_soon(hog)
                while not pool.stats().busy:
                    await anyio.lowlevel.checkpoint()
                with pytest.raises(TimeoutError):
                    await pool.execute("echo", timeout=0.3)
            assert outcome == ["hogged"]
            assert await pool.execute("echo", {"value": 5}) == 5
            assert pool.workers()[0].pid == worker.pid


async def test_two_who_wait_for_one_call_are_both_woken() -> None:
    """Neither takes the other's wake-up away when it looks for the next one."""
    call = PendingCall(1, "tool", Raw(b"\x80"), (), anyio.Event, window=2)
    woken: list[str] = []

    async def wait(name: str) -> None:
        while not call.settled:
            await call.changed()
        woken.append(name)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "reader")
            tasks.start_soon(wait, "closer")
            await anyio.wait_all_tasks_blocked()
            call.wake()
            await anyio.wait_all_tasks_blocked()
            call.settled = True
            call.wake()
    assert sorted(woken) == ["closer", "reader"]


async def test_a_reader_whose_stream_is_closed_under_it_is_told(tmp_path: Path) -> None:
    """It must not take a stream that was cut for one that came to its end."""
    call = PendingCall(1, "tool", Raw(b"\x80"), (), anyio.Event, window=2)
    stream: Stream[Any] = Stream(call, Codec(own=False, uses_threads=False))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await anext(stream)

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            stream.close()
            call.settled = True
            call.wake()


async def test_tools_that_have_to_be_killed_do_not_wear_the_pool_out() -> None:
    """The host's own kills are no crashes: they do not count as fruitless starts."""
    barrier = CrashBarrier(max_restarts=1)
    with anyio.fail_after(40):
        async with open_pool(stubborn, size=1, stop=QUICK, crash_barrier=barrier) as pool:
            for _ in range(4):
                await pool.ready()
                with pytest.raises(CallTimeoutError):
                    await pool.execute("doomed", timeout=0.5)
            assert await pool.execute("echo", {"value": 7}) == 7


async def test_ready_tells_of_a_slot_that_was_given_up() -> None:
    """It raises how the slot's last worker died, instead of waiting for one that never comes."""
    barrier = CrashBarrier(max_restarts=0)
    with anyio.fail_after(40):
        async with open_pool(stubborn, size=2, min_ready=2, crash_barrier=barrier) as pool:
            victim = pool.workers()[0].pid
            assert victim is not None
            os.kill(victim, signal.SIGSEGV)
            with pytest.raises(WorkerDiedError) as caught:
                await until(lambda: pool.stats().workers == 1)
                await pool.ready()
            assert (caught.value.pid, caught.value.signal) == (victim, signal.SIGSEGV)


async def test_a_repeated_call_is_never_said_not_to_have_run(tmp_path: Path) -> None:
    """The queue's clock is for calls that have not begun; this one has, on a worker that died."""
    log = tmp_path / "log"
    with anyio.fail_after(40):
        async with open_pool(stubborn, size=1, stop=QUICK, queue=Queue(timeout=0.2)) as pool:
            with pytest.raises(WorkerDiedError):
                await pool.execute("die_later", {"log": str(log), "delay": 0.4})
    assert lines(log) == ["begun", "begun"]


async def test_a_call_whose_worker_is_ended_from_outside_hears_of_its_death(tmp_path: Path) -> None:
    """SIGTERM from somebody else: WorkerDiedError, not a breach of the protocol."""
    log = tmp_path / "log"
    with anyio.fail_after(40):
        async with open_pool(stubborn, size=1, stop=QUICK) as pool:

            async def terminate() -> None:
                await until(lambda: lines(log) == ["begun"])
                pid = pool.workers()[0].pid
                assert pid is not None
                os.kill(pid, signal.SIGTERM)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(terminate)
                with pytest.raises(WorkerDiedError) as caught:
                    await pool.execute(
                        "die_later", {"log": str(log), "delay": 600}, idempotent=False
                    )
            told = "ended in good order, as at a SIGTERM from outside"
            assert (caught.value.reason, caught.value.started) == (told, True)
            assert await pool.execute("echo", {"value": 3}) == 3
