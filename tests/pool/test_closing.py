"""Promise 3: when the block is left, in whatever way, every worker is gone, and in bounded time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _leaks import is_alive
from adapters import BadStart, BadTools, Lifecycle, Tools
from pool_kit import BRISK, PATIENT, all_gone, lines, pids, tools_pool, until

from snakepit import (
    CallTimeoutError,
    Pool,
    PoolClosedError,
    Stop,
    ToolError,
    WorkerDiedError,
    open_pool,
)

BOUND_S = BRISK.cancel_grace + BRISK.term_grace + BRISK.drain_timeout + 1


@asynccontextmanager
async def leaving_takes_at_most(bound_s: float) -> AsyncGenerator[list[float]]:
    """Checks how long it takes from what the body appends (a time) to the end of the block."""
    left_at: list[float] = []
    yield left_at
    assert time.monotonic() - left_at[-1] <= bound_s


async def lifecycle_pool_left(how: str, log: Path) -> list[int]:
    """Open a pool, leave it in the given way, return the pids that it had."""
    found: list[int] = []
    try:
        with anyio.CancelScope() as scope:
            async with tools_pool(Lifecycle, size=2, adapter_args=(str(log),)) as pool:
                found += pids(pool)
                await pool.execute("pid")
                if how == "raise":
                    raise LookupError("out")
                if how == "cancel":
                    scope.cancel()
                    await anyio.sleep_forever()
    except LookupError:
        assert how == "raise"
    return found


@pytest.mark.parametrize("how", ["return", "raise", "cancel"])
async def test_leaving_the_block_cleans_up_and_ends_every_worker(how: str, tmp_path: Path) -> None:
    """`cleanup()` has run once in each worker, and no process is left, when the block is left."""
    log = tmp_path / "log"
    found = await lifecycle_pool_left(how, log)
    assert len(found) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)
    assert sorted(lines(log)) == sorted(
        [f"initialize {pid}" for pid in found] + [f"cleanup {pid}" for pid in found]
    )


async def test_calls_that_run_or_wait_in_other_tasks_raise_pool_closed_error(
    tmp_path: Path,
) -> None:
    """A running tool is stopped first; a waiting one never runs; a stream ends with it too."""
    log, ran = tmp_path / "log", tmp_path / "ran"
    outcomes: list[str] = []

    async def call(pool: Pool, tool: str, params: dict[str, Any]) -> None:
        with pytest.raises(PoolClosedError) as caught:
            await pool.execute(tool, params)
        outcomes.append(tool)
        assert "default" in str(caught.value)

    async def read(pool: Pool, log: Path) -> None:
        params = {"stop": 10, "log": str(log)}
        with pytest.raises(PoolClosedError):
            async with pool.stream("count", params, window=2) as items:
                assert await anext(items) == 0
                await until(lambda: "2" in lines(log))
                await until(pool._core.closing.is_set)
                async for _ in items:
                    pass
        outcomes.append("count")

    streamed = tmp_path / "streamed"
    async with anyio.create_task_group() as tasks:
        async with tools_pool(size=2) as pool:
            found = pids(pool)
            tasks.start_soon(read, pool, streamed)
            await until(lambda: "2" in lines(streamed))
            tasks.start_soon(call, pool, "slow_to_stop", {"log": str(log), "seconds": 0.1})
            await until(log.exists)
            for _ in range(3):
                tasks.start_soon(call, pool, "note", {"log": str(ran), "text": "ran"})
            await until(lambda: pool.stats().queued == 3)
        assert lines(log)[-1] == "stopped"
        assert all_gone(found)
    assert sorted(outcomes) == ["count", "note", "note", "note", "slow_to_stop"]
    assert lines(streamed)[-1] == "closed"
    assert lines(ran) == []


@pytest.mark.parametrize("how", ["stuck", "stubborn", "stopped", "cleanup hangs", "deaf start"])
async def test_a_worker_that_will_not_go_is_gone_within_the_bound(how: str, tmp_path: Path) -> None:
    """Tools that swallow everything, SIGSTOP, a cleanup or an initialize that hangs."""
    log, started = tmp_path / "log", tmp_path / "started"
    found: list[int] = []

    async def suffer(tool: str, params: dict[str, Any]) -> None:
        with pytest.raises(PoolClosedError):
            await pool.execute(tool, params)

    adapter: Any = Lifecycle
    arguments: tuple[str, ...] = (str(log), "hang" if how == "cleanup hangs" else "quick")
    options: dict[str, Any] = {}
    if how == "stubborn":
        adapter, arguments = Tools, ()
    if how == "deaf start":
        adapter, arguments, options = BadStart, ("ignore", str(started)), {"min_ready": 0}
    with anyio.fail_after(20):
        async with (
            leaving_takes_at_most(BOUND_S) as left_at,
            anyio.create_task_group() as tasks,
            open_pool(adapter, size=1, stop=BRISK, adapter_args=arguments, **options) as pool,
        ):
            if how == "stuck":
                tasks.start_soon(suffer, "stuck", {"started": str(started)})
                await until(started.exists)
            elif how == "stubborn":
                tasks.start_soon(suffer, "stubborn", {"log": str(started)})
                await until(started.exists)
            elif how == "stopped":
                os.kill(pids(pool)[0], signal.SIGSTOP)
            elif how == "deaf start":
                await until(started.exists)
            found += pids(pool)
            left_at.append(time.monotonic())
    assert len(found) == 1
    assert all_gone(found)


async def test_many_workers_that_will_not_go_take_no_longer_than_one(tmp_path: Path) -> None:
    """They are stopped side by side."""
    arguments = (str(tmp_path / "log"), "hang")
    async with (
        leaving_takes_at_most(BOUND_S) as left_at,
        tools_pool(Lifecycle, size=6, stop=BRISK, adapter_args=arguments) as pool,
    ):
        found = pids(pool)
        left_at.append(time.monotonic())
    assert all_gone(found)


async def test_a_cleanup_that_raises_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "snakepit.worker")
    async with tools_pool(Lifecycle, adapter_args=(str(tmp_path / "log"), "raise")) as pool:
        found = pids(pool)
    assert all_gone(found)
    assert any("cleanup went wrong" in record.getMessage() for record in caplog.records)


async def test_a_stopped_worker_with_a_running_call_is_gone_within_the_bound(
    tmp_path: Path,
) -> None:
    """The body is cancelled itself: its call is given up, and the worker cannot even hear of it."""
    started = tmp_path / "started"
    begun = 0.0
    async with anyio.create_task_group() as tasks:

        async def stop_and_cancel() -> None:
            nonlocal begun
            await until(started.exists)
            os.kill(found[0], signal.SIGSTOP)
            begun = time.monotonic()
            tasks.cancel_scope.cancel()

        async with tools_pool(stop=BRISK) as pool:
            found = pids(pool)
            tasks.start_soon(stop_and_cancel)
            await pool.execute("sleep", {"started": str(started)})
    assert time.monotonic() - begun <= BOUND_S
    assert all_gone(found)


async def test_a_pool_that_is_left_while_its_workers_start_leaves_none(tmp_path: Path) -> None:
    """One is ready, one is inside `initialize`: leaving does not wait for it."""
    mark = tmp_path / "mark"
    stop = Stop(cancel_grace=1, term_grace=20, drain_timeout=20)
    with anyio.fail_after(15):
        async with open_pool(
            BadStart, size=2, stop=stop, adapter_args=("slow second", str(mark))
        ) as pool:
            await until(lambda: None not in [worker.pid for worker in pool.workers()])
            found = pids(pool)
            states = sorted(worker.state for worker in pool.workers())
    assert states == ["ready", "starting"]
    assert all_gone(found)


async def test_a_pool_used_after_its_block_says_so() -> None:
    async with tools_pool(name="letters") as pool:
        pass
    for use in (
        lambda: pool.execute("pid"),
        lambda: pool.run_sync(os.getpid),
        pool.ready,
        lambda: pool.stream("count", {"stop": 1}).__aenter__(),
    ):
        with pytest.raises(PoolClosedError) as caught:
            await use()
        assert "'letters'" in str(caught.value)
    assert "closed" in repr(pool)
    stats = pool.stats()
    assert (stats.workers, stats.queued) == (0, 0)
    assert [worker.state for worker in pool.workers()] == ["gone"]
    assert list(pool.tools())


async def test_a_call_made_while_the_pool_closes_is_refused(tmp_path: Path) -> None:
    """The body's own clean-up may try; it gets the error at once."""
    started = tmp_path / "started"
    refused: list[str] = []
    async with anyio.create_task_group() as tasks:

        async def late() -> None:
            with pytest.raises(PoolClosedError):
                await pool.execute("sleep", {"started": str(started)})
            with pytest.raises(PoolClosedError):
                await pool.execute("pid")
            refused.append("yes")

        async with tools_pool() as pool:
            tasks.start_soon(late)
            await until(started.exists)
    assert refused == ["yes"]


async def test_workers_are_there_for_the_clean_up_of_a_cancelled_body() -> None:
    """A cancelled body may use the pool in a shielded `finally`: the pool closes after it."""
    answers: list[int] = []
    with anyio.CancelScope() as scope:
        async with tools_pool() as pool:
            [pid] = pids(pool)
            try:
                scope.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    answers.append(await pool.execute("pid"))
    assert answers == [pid]


async def test_a_lone_exception_of_the_body_arrives_bare() -> None:
    error = LookupError("mine")
    error.__cause__ = KeyError("cause")
    context = ValueError("context")
    error.__context__ = context
    with pytest.raises(LookupError) as caught:
        async with tools_pool():
            raise error
    assert caught.value is error
    assert type(error.__cause__) is KeyError
    assert error.__context__ is context


async def test_the_errors_of_calls_arrive_bare() -> None:
    """What a call raises, it raises through the block as it is: no group is made of it."""
    with pytest.raises(CallTimeoutError):
        async with tools_pool() as pool:
            await pool.execute("sleep", {"started": os.devnull}, timeout=0.4)
    with pytest.raises(WorkerDiedError):
        async with tools_pool() as pool:
            await pool.execute("die", {"how": "exit"})
    with pytest.raises(ToolError):
        async with tools_pool() as pool:
            await pool.execute("die", {"how": "no such way"})


async def test_an_exception_group_of_the_body_stays_a_group() -> None:
    """Also one of a single exception: it is the caller's, and nobody takes it apart."""
    several = ExceptionGroup("several", [LookupError("a"), KeyError("b")])
    single = ExceptionGroup("single", [LookupError("a")])
    for group in (several, single):
        with pytest.raises(ExceptionGroup) as caught:
            async with tools_pool():
                raise group
        assert caught.value.message == group.message
        assert caught.value.exceptions == group.exceptions
    with pytest.raises(ExceptionGroup) as raised:
        async with tools_pool(), anyio.create_task_group():
            raise LookupError("in a group of the body's own")
    assert [type(error) for error in raised.value.exceptions] == [LookupError]


async def test_keyboard_interrupt_and_system_exit_pass_through_bare() -> None:
    found: list[int] = []
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind):
            async with tools_pool() as pool:
                found += pids(pool)
                raise kind
    assert all_gone(found)


@pytest.mark.parametrize("how", ["leave", "die"])
async def test_a_daemon_that_a_tool_left_behind_holds_nobody_up(how: str) -> None:
    """It has the worker's stderr open; neither the worker's end nor the pool's waits for that."""
    daemon: int | None = None
    try:
        with anyio.fail_after(PATIENT.drain_timeout / 2):
            async with tools_pool(BadTools) as pool:
                found = pids(pool)
                daemon = await pool.execute("start_daemon")
                if how == "die":
                    os.kill(found[0], signal.SIGKILL)
                    await until(lambda: pool.stats().restarts)
                    await pool.ready()
                    assert await pool.execute("pid") != found[0]
    finally:
        if daemon is not None:
            os.kill(daemon, signal.SIGKILL)
    assert all_gone(found)


async def test_two_pools_in_one_block_close_both(tmp_path: Path) -> None:
    """One fails while it opens: the other one's workers are gone as well."""
    found: list[int] = []
    with pytest.raises(LookupError):
        async with tools_pool(name="a") as first, tools_pool(name="b") as second:
            found += pids(first) + pids(second)
            assert await first.execute("pid") != await second.execute("pid")
            assert {w.id.partition("-")[0] for w in first.workers() + second.workers()} == {
                "a",
                "b",
            }
            raise LookupError
    assert len(found) == 2
    assert all_gone(found)


async def test_a_worker_whose_orderly_exit_takes_a_while_is_not_cut_short(tmp_path: Path) -> None:
    """A patient pool leaves as soon as the workers have gone, not after its grace times."""
    log = tmp_path / "log"
    with anyio.fail_after(PATIENT.drain_timeout / 2):
        found = await lifecycle_pool_left("return", log)
    assert not any(map(is_alive, found))
