"""Promise 1: when a call is left, its tool is no longer running, and nobody else noticed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from _backends import asyncio_only, one_loop_each, trio_only
from _leaks import is_alive
from _transports import OF_PROCESSES, TRANSPORTS
from adapters import AsyncTools, Tools
from pool_kit import (
    BRISK,
    PATIENCE_S,
    PATIENT,
    lines,
    pids,
    take_all_calls_for_short,
    tools_pool,
    until,
)

from snakepit import Adapter, CallTimeoutError, Pool, QueueTimeoutError, Stop, open_pool, tool
from snakepit.pool._seat import PREFETCH_AVERAGE_MAX_S

SILENCE_S = 0.08  # eight beats of the tools that beat


async def assert_silent(log: Path) -> None:
    """The tool that wrote this log writes no more."""
    assert lines(log)
    before = log.stat().st_size
    await anyio.sleep(SILENCE_S)
    assert log.stat().st_size == before


async def cancel_once_running(pool: Pool, running: Path, tool: str, params: dict[str, Any]) -> None:
    """Call the tool and cancel the call as soon as `running` is there; returns with the call."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, tool, params)
        await until(running.exists)
        tasks.cancel_scope.cancel()


async def make_short_calls(pool: Pool) -> None:
    """Until the calls of the only worker are known to be short: then others are sent ahead."""
    [slot] = pool._core.slots
    for _ in range(2000):
        await pool.execute("echo")
        if slot.worker.seat.average_s < PREFETCH_AVERAGE_MAX_S / 2:
            return


@pytest.mark.parametrize("tool", ["sleep", "spin", "run_child"])
async def test_a_cancelled_tool_is_stopped_where_it_stands_and_its_worker_kept(
    tool: str, tmp_path: Path
) -> None:
    """A sleep, a loop and a wait for a child are interrupted; the next call finds the same pid."""
    started = tmp_path / "started"
    async with tools_pool() as pool:
        [pid] = pids(pool)
        await cancel_once_running(pool, started, tool, {"started": str(started)})
        assert await pool.execute("pid") == pid
        stats = pool.stats()
    assert (stats.requests, stats.errors, stats.restarts) == (2, 1, 0)


async def test_execute_returns_only_when_the_cancelled_tool_has_stopped(tmp_path: Path) -> None:
    """A tool that needs 0.2 s for its `finally` is waited for; then it is silent."""
    log = tmp_path / "log"
    async with tools_pool() as pool:
        [pid] = pids(pool)
        await cancel_once_running(pool, log, "slow_to_stop", {"log": str(log), "seconds": 0.2})
        assert lines(log)[-1] == "stopped"
        assert lines(log).count("stopping") > 1
        await assert_silent(log)
        assert pids(pool) == [pid]


@asyncio_only
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_task_cancelled_again_and_again_still_waits_for_its_tool(
    times: int, tmp_path: Path
) -> None:
    """Each native `Task.cancel()` interrupts the wait; none of them ends it early."""
    log = tmp_path / "log"
    async with tools_pool() as pool:
        [pid] = pids(pool)
        task = asyncio.ensure_future(
            pool.execute("slow_to_stop", {"log": str(log), "seconds": 0.25})
        )
        await until(log.exists)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.02)
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert lines(log)[-1] == "stopped"
        await assert_silent(log)
        assert await pool.execute("pid") == pid


@asyncio_only
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_task_cancelled_again_and_again_while_its_call_waits_gets_its_cancellation(
    times: int, tmp_path: Path
) -> None:
    """The queued call never runs, however often its task is cancelled in one go."""
    log, started, release = tmp_path / "log", tmp_path / "started", tmp_path / "release"
    async with tools_pool() as pool:
        holding = asyncio.ensure_future(
            pool.execute("hold", {"started": str(started), "release": str(release)})
        )
        await until(started.exists)
        task = asyncio.ensure_future(pool.execute("note", {"log": str(log), "text": "ran"}))
        await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.touch()
        assert await holding == await pool.execute("pid")
    assert lines(log) == []


@asyncio_only
async def test_asyncio_timeout_raises_its_own_error(tmp_path: Path) -> None:
    """`asyncio.timeout` cancels the task; it must see that cancellation come back."""
    started = tmp_path / "started"
    async with tools_pool() as pool:
        [pid] = pids(pool)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.15):
                await pool.execute("sleep", {"started": str(started)})
        assert type(caught.value) is TimeoutError
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert await pool.execute("pid") == pid


@asyncio_only
async def test_wait_for_and_a_failing_task_group_cancel_like_any_other(tmp_path: Path) -> None:
    started, log = tmp_path / "started", tmp_path / "log"
    async with tools_pool() as pool:
        [pid] = pids(pool)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.execute("sleep", {"started": str(started)}), 0.15)

        async def fail() -> None:
            await until(log.exists)
            raise LookupError("sibling")

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(pool.execute("beat", {"log": str(log)}))
                group.create_task(fail())
        assert [type(error) for error in caught.value.exceptions] == [LookupError]
        await assert_silent(log)
        assert await pool.execute("pid") == pid


@trio_only
async def test_trio_move_on_after_is_caught_by_its_own_scope(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with tools_pool() as pool:
        [pid] = pids(pool)
        with trio.move_on_after(0.15) as scope:
            await pool.execute("sleep", {"started": str(started)})
        assert scope.cancelled_caught
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.15):
                await pool.execute("sleep", {"started": str(started)})
        assert await pool.execute("pid") == pid


async def test_the_ambient_scope_ends_as_itself_and_the_timeout_as_call_timeout_error(
    tmp_path: Path,
) -> None:
    """Whoever's time is up first is who says so; a `timeout=` does not hide an outer scope."""
    params = {"started": str(tmp_path / "started")}
    async with tools_pool() as pool:
        [pid] = pids(pool)
        with anyio.move_on_after(0.1) as scope:
            await pool.execute("sleep", params, timeout=60)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError) as ambient:
            with anyio.fail_after(0.1):
                await pool.execute("sleep", params, timeout=60)
        assert type(ambient.value) is TimeoutError
        with anyio.fail_after(15):
            with pytest.raises(CallTimeoutError) as own:
                await pool.execute("sleep", params, timeout=0.4)
        assert (own.value.tool, own.value.timeout) == ("sleep", 0.4)
        assert isinstance(own.value, TimeoutError)
        assert await pool.execute("pid") == pid


async def test_a_timed_out_call_has_stopped_when_its_error_is_raised(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with tools_pool() as pool:
        with pytest.raises(CallTimeoutError):
            await pool.execute("slow_to_stop", {"log": str(log), "seconds": 0.1}, timeout=0.2)
        assert lines(log)[-1] == "stopped"
        await assert_silent(log)


async def test_a_cancellation_during_a_timed_out_call_s_end_is_the_callers(tmp_path: Path) -> None:
    """The caller is cancelled while its timed-out tool still stops: it ends as cancelled."""
    log = tmp_path / "log"
    async with tools_pool() as pool:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await until(lambda: "stopping" in lines(log))
                    scope.cancel()

                tasks.start_soon(cancel)
                await pool.execute("slow_to_stop", {"log": str(log), "seconds": 0.3}, timeout=0.1)
        assert scope.cancelled_caught
        assert lines(log)[-1] == "stopped"


async def test_a_tool_that_swallows_its_cancellation_loses_its_worker_and_only_that(
    tmp_path: Path,
) -> None:
    """After `cancel_grace` the worker is ended and replaced; the neighbour's call goes on."""
    log, started, release = tmp_path / "log", tmp_path / "started", tmp_path / "release"
    answers: list[int] = []
    async with tools_pool(size=2, stop=BRISK) as pool:
        before = pids(pool)

        async def hold() -> None:
            params = {"started": str(started), "release": str(release)}
            answers.append(await pool.execute("hold", params))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await until(started.exists)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(pool.execute, "stubborn", {"log": str(log)})
                    await until(log.exists)
                    scope.cancel()
            assert scope.cancel_called
            assert "swallowed" in lines(log)
            await assert_silent(log)
            assert answers == []
            release.touch()
        await pool.ready()
        after = pids(pool)
        kept = set(before) & set(after)
        assert answers == list(kept)
        [ended] = set(before) - kept
        assert not is_alive(ended)
        assert len(set(after)) == 2
        assert pool.stats().restarts == 1


async def test_the_caller_of_a_swallowing_tool_gets_its_own_outcome(tmp_path: Path) -> None:
    """The worker's end is no WorkerDiedError: the scope is caught, the timeout is CallTimeout."""
    log = tmp_path / "log"
    async with tools_pool(stop=BRISK) as pool:
        with anyio.move_on_after(0.2) as scope:
            await pool.execute("stubborn", {"log": str(log)})
        assert scope.cancelled_caught
        await pool.ready()
        with pytest.raises(CallTimeoutError):
            await pool.execute("stubborn", {"log": str(log)}, timeout=0.3)
        await assert_silent(log)


@one_loop_each
@pytest.mark.parametrize("transport", OF_PROCESSES)
async def test_a_tools_own_cancel_grace_replaces_that_of_the_pool(
    transport: str, tmp_path: Path
) -> None:
    """No grace at all ends the worker although the pool is patient; a long one keeps it."""
    log = tmp_path / "log"
    async with tools_pool(
        stop=Stop(cancel_grace=60, term_grace=0.1, drain_timeout=1), transport=transport
    ) as pool:
        [pid] = pids(pool)
        await cancel_once_running(pool, log, "stubborn_but_brief", {"log": str(log)})
        await assert_silent(log)
        assert not is_alive(pid)
        assert await pool.execute("pid") != pid
    other = tmp_path / "other"
    async with tools_pool(stop=BRISK, transport=transport) as pool:
        [pid] = pids(pool)
        await cancel_once_running(pool, other, "slow_with_grace", {"log": str(other), "seconds": 1})
        assert lines(other)[-1] == "stopped"
        assert await pool.execute("pid") == pid


@one_loop_each
@pytest.mark.parametrize("transport", OF_PROCESSES)
async def test_on_cancel_kill_ends_the_worker_at_once(transport: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with tools_pool(
        stop=Stop(cancel_grace=60, term_grace=0.2, drain_timeout=1), transport=transport
    ) as pool:
        [pid] = pids(pool)
        await cancel_once_running(pool, log, "kill_on_cancel", {"log": str(log)})
        await assert_silent(log)
        assert await pool.execute("pid") != pid
        await until(lambda: not is_alive(pid))


async def test_on_cancel_kill_counts_for_a_call_made_before_any_worker_was_ready(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    stop = Stop(cancel_grace=60, term_grace=0.2, drain_timeout=1)
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(Tools, size=1, min_ready=0, stop=stop) as pool:
            assert not pool.stats().workers
            await cancel_once_running(pool, log, "kill_on_cancel", {"log": str(log)})
            await assert_silent(log)
            assert pool.stats().restarts == 1


async def test_no_call_is_sent_behind_one_whose_cancel_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else a cancel that meets the return would end the worker under the call that has begun by then."""
    take_all_calls_for_short(monkeypatch)
    log = tmp_path / "log"
    async with tools_pool(stop=BRISK) as pool:
        await make_short_calls(pool)
        async with anyio.create_task_group() as tasks, anyio.create_task_group() as killed:
            killed.start_soon(pool.execute, "kill_on_cancel", {"log": str(log)})
            await until(log.exists)
            tasks.start_soon(pool.execute, "echo")
            await until(lambda: pool.stats().queued == 1)
            assert pool._core.scheduler.prefetched == 0
            killed.cancel_scope.cancel()


@one_loop_each
@pytest.mark.parametrize("transport", OF_PROCESSES)
async def test_a_cooperative_tool_is_not_interrupted(transport: str, tmp_path: Path) -> None:
    """It goes on to its next `check_cancelled()`, which raises."""
    started, log = tmp_path / "started", tmp_path / "log"
    async with tools_pool(transport=transport) as pool:
        [pid] = pids(pool)
        params = {"started": str(started), "log": str(log)}
        await cancel_once_running(pool, started, "cooperative", params)
        assert lines(log) == ["slept on"]
        assert await pool.execute("pid") == pid


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_an_async_tool_is_cancelled_by_its_loop(backend: str, tmp_path: Path) -> None:
    """Its `finally` has run when the caller goes on; a blocked loop is interrupted too."""
    log, started = tmp_path / "log", tmp_path / "started"
    stop = Stop(cancel_grace=6, term_grace=10, drain_timeout=10)
    async with tools_pool(AsyncTools, tool_backend=backend, stop=stop) as pool:
        [pid] = pids(pool)
        await cancel_once_running(pool, log, "beat", {"log": str(log), "backend": backend})
        assert lines(log)[-1] == "stopped"
        await assert_silent(log)
        assert await pool.execute("pid") == pid
    brisk = Stop(cancel_grace=1, term_grace=10, drain_timeout=10)
    async with tools_pool(AsyncTools, tool_backend=backend, stop=brisk) as pool:
        [pid] = pids(pool)
        await cancel_once_running(pool, started, "block", {"started": str(started)})
        assert await pool.execute("pid") == pid
        assert await pool.execute("echo", {"value": 1}) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_an_async_tool_that_swallows_its_cancellation_loses_its_worker(
    backend: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with tools_pool(AsyncTools, tool_backend=backend, stop=BRISK) as pool:
        [pid] = pids(pool)
        await cancel_once_running(pool, log, "stubborn", {"log": str(log), "backend": backend})
        assert not is_alive(pid)
        await assert_silent(log)
        assert await pool.execute("echo", {"value": "next"}) == "next"


async def test_a_cancelled_call_that_waited_never_runs(tmp_path: Path) -> None:
    """Ten calls behind a long one are cancelled: at once, and none of them leaves a trace."""
    log, started, release = tmp_path / "log", tmp_path / "started", tmp_path / "release"
    async with tools_pool() as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "hold", {"started": str(started), "release": str(release)})
        await until(started.exists)
        async with anyio.create_task_group() as waiting:
            for number in range(10):
                waiting.start_soon(pool.execute, "note", {"log": str(log), "text": f"{number}"})
            await until(lambda: pool.stats().queued == 10)
            waiting.cancel_scope.cancel()
        assert pool.stats().queued == 0
        assert not release.exists()
        release.touch()
        await pool.execute("note", {"log": str(log), "text": "last"})
    assert lines(log) == ["last"]


async def test_calls_sent_ahead_and_cancelled_never_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Calls wait in the worker behind a long one; cancelled at any moment, none of them runs."""
    take_all_calls_for_short(monkeypatch)
    log = tmp_path / "log"
    ahead = 0
    async with tools_pool() as pool:
        for attempt in range(12):
            await make_short_calls(pool)
            started, release = tmp_path / f"started{attempt}", tmp_path / f"release{attempt}"
            params = {"started": str(started), "release": str(release)}
            async with anyio.create_task_group() as tasks:
                async with anyio.create_task_group() as waiting:
                    tasks.start_soon(pool.execute, "hold", params)
                    while not pool.stats().busy:
                        await anyio.lowlevel.checkpoint()
                    for number in range(3):
                        text = f"{attempt}.{number}"
                        waiting.start_soon(pool.execute, "note", {"log": str(log), "text": text})
                    while pool.stats().queued < 3:
                        await anyio.lowlevel.checkpoint()
                    ahead += pool._core.scheduler.prefetched
                    for _ in range(attempt // 3):
                        await anyio.sleep(0.001)
                    waiting.cancel_scope.cancel()
                await until(started.exists)
                release.touch()
            assert lines(log) == []
        [worker] = pool.workers()
        assert worker.id.endswith("1.1")
    assert ahead > 0


async def test_a_call_cancelled_while_its_argument_is_on_its_way_costs_nothing(
    tmp_path: Path,
) -> None:
    """The worker stands still and reads nothing: the 30 MB are withdrawn at once, and it lives."""
    async with tools_pool(transport="stdio") as pool:
        [pid] = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        try:
            with anyio.fail_after(5), anyio.move_on_after(0.1) as scope:
                await pool.execute("echo", {"value": bytes(30_000_000)})
            assert scope.cancelled_caught
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await pool.execute("pid") == pid
        assert await pool.execute("echo", {"value": "small"}) == "small"


async def test_a_call_cancelled_while_its_result_is_on_its_way_leaves_the_link_whole() -> None:
    """At whatever moment the transfer is cut, the next values come back right."""
    async with tools_pool() as pool:
        [pid] = pids(pool)
        for milliseconds in range(0, 60, 6):
            with anyio.move_on_after(milliseconds / 1000):
                await pool.execute("make_bytes", {"size": 20_000_000})
            assert await pool.execute("echo", {"value": milliseconds}) == milliseconds
        assert await pool.execute("pid") == pid


async def test_execute_in_a_scope_that_is_cancelled_already_returns_soon(tmp_path: Path) -> None:
    """It is a checkpoint: nothing comes back but the cancellation, and the tool has stopped."""
    log = tmp_path / "log"
    async with tools_pool() as pool:
        [pid] = pids(pool)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await pool.execute("beat", {"log": str(log)})
        assert scope.cancelled_caught
        size = len(lines(log))
        await anyio.sleep(SILENCE_S)
        assert len(lines(log)) == size
        assert await pool.execute("pid") == pid


async def test_hundreds_of_cancelled_calls_leave_nothing_behind(tmp_path: Path) -> None:
    """Neither in the queue nor among the deadlines: what the pool remembers is bounded."""
    started, release = tmp_path / "started", tmp_path / "release"
    async with tools_pool() as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "hold", {"started": str(started), "release": str(release)})
        await until(started.exists)
        for _ in range(6):
            async with anyio.create_task_group() as waiting:
                for _ in range(200):
                    waiting.start_soon(lambda: pool.execute("echo", timeout=1000))
                await until(lambda: pool.stats().queued == 200)
                waiting.cancel_scope.cancel()
        stats = pool.stats()
        assert (stats.queued, stats.requests, stats.errors) == (0, 1201, 1200)
        assert pool._core.scheduler.queued() == []
        assert len(pool._core.deadlines._heap) <= 1024
        release.touch()


async def test_a_call_whose_time_is_up_behind_a_long_one_never_ran(tmp_path: Path) -> None:
    """Also when it had been sent ahead: the error says that it never ran, and it never did."""
    log, started, release = tmp_path / "log", tmp_path / "started", tmp_path / "release"
    async with tools_pool() as pool:
        await make_short_calls(pool)
        async with anyio.create_task_group() as tasks:
            params = {"started": str(started), "release": str(release)}
            tasks.start_soon(pool.execute, "hold", params)
            await until(lambda: pool.stats().busy)
            with pytest.raises(QueueTimeoutError):
                await pool.execute("note", {"log": str(log), "text": "ran"}, timeout=0.1)
            release.touch()
        assert await pool.execute("echo", {"value": 1}) == 1
        assert pool.stats().queue_timeouts == 1
    assert lines(log) == []


async def test_cancelling_one_of_many_calls_disturbs_no_other() -> None:
    """Streams of short calls go on while others are cancelled at random moments."""
    async with tools_pool(size=2, stop=PATIENT) as pool:
        before = sorted(pids(pool))
        answers: list[int] = []

        async def steady(base: int) -> None:
            for number in range(100):
                answer = await pool.execute("echo", {"value": base + number})
                answers.append(answer)

        async def hasty(delay: float) -> None:
            for _ in range(20):
                with anyio.move_on_after(delay):
                    await pool.execute("sleep", {"started": os.devnull, "seconds": 0.01})

        async with anyio.create_task_group() as tasks:
            for worker in range(3):
                tasks.start_soon(steady, worker * 1000)
                tasks.start_soon(hasty, 0.001 * worker)
        assert sorted(answers) == [w * 1000 + n for w in range(3) for n in range(100)]
        assert sorted(pids(pool)) == before


async def test_a_call_cancelled_at_each_of_its_checkpoints_leaves_the_pool_whole(
    tmp_path: Path,
) -> None:
    """The k-th time that the loop gives others their turn, for each small k: silence, same pid."""
    log = tmp_path / "log"
    async with tools_pool() as pool:
        before = pids(pool)
        for k in range(30):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def cancel(k: int = k, scope: anyio.CancelScope = scope) -> None:
                        for _ in range(k):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()

                    tasks.start_soon(cancel)
                    await pool.execute("beat", {"log": str(log)})
            assert scope.cancelled_caught
            assert not pool.stats().busy
        size = len(lines(log))
        await anyio.sleep(SILENCE_S)
        assert len(lines(log)) == size
        assert [await pool.execute("pid")] == before
        assert pool._core.scheduler.queued() == []


class Slowly(Adapter):
    @tool
    def size(self, data: bytes) -> int:
        return len(data)


@one_loop_each
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_lone_call_whose_time_is_up_while_it_is_written_returns(transport: str) -> None:
    """Nobody answers a call that was withdrawn: its caller must not wait for a word about it."""
    data = bytes(2**26)
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(Slowly, size=1, transport=transport, stop=PATIENT) as pool:
            assert await pool.execute("size", {"data": b"1"}) == 1  # from now on callers read
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(TimeoutError):
                await pool.execute("size", {"data": data}, timeout=0.002)
            assert await pool.execute("size", {"data": b"12"}) == 2
