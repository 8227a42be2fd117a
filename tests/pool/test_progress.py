"""`on_progress`: what a running call tells, in its caller's task, before its outcome."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import asyncio_only, one_loop_each
from _leaks import is_alive
from pool_kit import PATIENCE_S, lines, pids, tools_pool, until
from telling import AsyncTelling, Telling
from test_cancel import SILENCE_S, assert_silent

from snakepit import CallTimeoutError, Pool, PoolClosedError, WorkerDiedError, open_pool

pytestmark = one_loop_each

FOREVER_S = 3600


class Shown(list[Any]):
    """An `on_progress` that keeps what it was shown."""

    def __call__(self, done: float, total: float | None, message: str | None) -> None:
        self.append((done, total, message))


# -- what is shown, where and when ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_updates_are_shown_in_order_before_the_value_is_returned(kind: str) -> None:
    """The first one and the last one in any case."""
    shown = Shown()

    async def slowly(*told: Any) -> None:
        await anyio.lowlevel.checkpoint()
        shown(*told)

    async with tools_pool(Telling) as pool:
        for count in (1, 2, 5):
            for pause in (0.0, 0.025):
                shown.clear()
                value = await pool.execute(
                    "steps",
                    {"count": count, "pause": pause},
                    on_progress=shown if kind == "sync" else slowly,
                )
                assert value == "all done"
                assert shown == sorted(shown)
                assert shown[-1] == (count, count, f"step {count}")
                if pause:
                    assert [done for done, *_ in shown] == list(range(1, count + 1))


async def test_it_runs_in_the_caller_s_task_and_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    tasks = []
    variable.set("the caller's")

    def show(*_: Any) -> None:
        tasks.append(anyio.get_current_task().id)
        assert variable.get() == "the caller's"
        variable.set("the caller's")

    async with tools_pool(Telling) as pool:
        await pool.execute("steps", {"count": 2}, on_progress=show)
    assert set(tasks) == {anyio.get_current_task().id}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_async_tools_are_heard_as_well(backend: str) -> None:
    shown = Shown()
    async with tools_pool(AsyncTelling, tool_backend=backend) as pool:
        assert await pool.execute("steps", {"count": 50}, on_progress=shown) == "all done"
    assert shown[-1] == (50, 50, None)


async def test_each_of_many_calls_hears_of_itself_alone() -> None:
    async with tools_pool(Telling, size=2) as pool, anyio.create_task_group() as tasks:

        async def call(base: int) -> None:
            shown = Shown()
            await pool.execute("steps", {"count": 3, "base": base}, on_progress=shown)
            assert {done - base for done, *_ in shown} <= {1, 2, 3}
            assert shown[-1][0] == base + 3

        for base in range(0, 3000, 100):
            tasks.start_soon(call, base)


async def test_a_slow_one_skips_updates_and_holds_up_nobody() -> None:
    """It is shown the latest, once it has time; meanwhile its worker has gone on to another call."""
    shown = Shown()
    entered, release = anyio.Event(), anyio.Event()

    async def slow(*told: Any) -> None:
        shown(*told)
        entered.set()
        await release.wait()

    async with tools_pool(Telling) as pool, anyio.create_task_group() as tasks:

        async def call() -> None:
            params = {"count": 10, "pause": 0.025}
            assert await pool.execute("steps", params, on_progress=slow) == "all done"

        tasks.start_soon(call)
        await entered.wait()
        assert [await pool.execute("pid")] == pids(pool)
        assert len(shown) == 1
        release.set()
    assert [done for done, *_ in shown] == [1, 10]


async def test_a_call_that_fails_has_shown_its_progress() -> None:
    shown = Shown()
    async with tools_pool(Telling) as pool:
        with pytest.raises(LookupError, match="no third step"):
            await pool.execute("step_then_fail", on_progress=shown)
    assert shown[-1] == (2, 2, None)


async def test_a_call_that_is_sent_again_begins_again(tmp_path: Path) -> None:
    """What the first worker told is not taken back."""
    shown = Shown()
    async with tools_pool(Telling) as pool:
        params = {"log": str(tmp_path / "log")}
        value = await pool.execute("step_and_die_once", params, on_progress=shown)
        assert value == "survived"
    assert shown[0] == (1, 2, "first")
    assert shown[-1] == (2, 2, "second")


async def test_progress_that_nobody_asks_for_is_dropped() -> None:
    """Of calls without `on_progress`, and of streams."""
    async with tools_pool(Telling) as pool:
        assert await pool.execute("steps", {"count": 3, "pause": 0.025}) == "all done"
        async with pool.stream("count", {"stop": 3}) as numbers:
            assert [number async for number in numbers] == [0, 1, 2]
        assert pool.stats().errors == 0


@pytest.mark.parametrize("wrong", ["print", 5, ()])
async def test_what_cannot_be_called_is_refused_at_once(wrong: Any) -> None:
    async with tools_pool(Telling) as pool:
        with pytest.raises(TypeError, match="on_progress must be a function"):
            await pool.execute("steps", {"count": 1}, on_progress=wrong)
        assert pool.stats().requests == 0


# -- when it raises ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), ExceptionGroup("mine", [KeyError()])])
async def test_its_exception_stops_the_tool_and_then_goes_on_as_itself(
    kind: str, error: Exception, tmp_path: Path
) -> None:
    """Not a moment before the tool, which takes 0.2 s to stop, has stopped."""
    log = tmp_path / "log"

    def fail(*_: Any) -> None:
        raise error

    async def fail_async(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    async with tools_pool(Telling) as pool:
        [pid] = pids(pool)
        with pytest.raises(type(error)) as caught:
            await pool.execute(
                "step_and_beat",
                {"log": str(log), "seconds": 0.2},
                on_progress=fail if kind == "sync" else fail_async,
            )
        assert caught.value is error
        assert lines(log)[-1] == "stopped"
        await assert_silent(log)
        assert await pool.execute("pid") == pid
        assert (pool.stats().errors, pool.stats().restarts) == (1, 0)


async def test_its_exception_counts_also_when_the_call_has_ended_meanwhile() -> None:
    """The value is lost with it: to return it would be to drop the exception."""
    async with tools_pool(Telling) as pool:

        async def fail_late(*_: Any) -> None:
            await until(lambda: not pool.stats().busy)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await pool.execute("steps", {"count": 1}, on_progress=fail_late)
        assert await pool.execute("pid") == pids(pool)[0]


# -- giving up while it runs ---------------------------------------------------------------------


class Asleep:
    """An async `on_progress` that never comes to its end."""

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.ended_by: BaseException | None = None

    async def __call__(self, *_: Any) -> None:
        try:
            self.entered.set()
            await anyio.sleep(FOREVER_S)
        except BaseException as error:
            self.ended_by = error
            raise


async def test_a_cancellation_in_it_is_one_of_the_call(tmp_path: Path) -> None:
    log, asleep = tmp_path / "log", Asleep()
    async with tools_pool(Telling) as pool:
        [pid] = pids(pool)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await asleep.entered.wait()
                    scope.cancel()

                tasks.start_soon(cancel)
                params = {"log": str(log), "seconds": 0.1}
                await pool.execute("step_and_beat", params, on_progress=asleep)
        assert scope.cancelled_caught
        assert isinstance(asleep.ended_by, anyio.get_cancelled_exc_class())
        assert lines(log)[-1] == "stopped"
        await assert_silent(log)
        assert await pool.execute("pid") == pid


@asyncio_only
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_task_cancelled_again_and_again_in_it_still_waits_for_its_tool(
    times: int, tmp_path: Path
) -> None:
    log, asleep = tmp_path / "log", Asleep()
    async with tools_pool(Telling) as pool:
        [pid] = pids(pool)
        params = {"log": str(log), "seconds": 0.25}
        task = asyncio.ensure_future(pool.execute("step_and_beat", params, on_progress=asleep))
        await asleep.entered.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.02)
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lines(log)[-1] == "stopped"
        assert await pool.execute("pid") == pid


async def test_a_timeout_ends_the_tool_and_an_update_that_is_being_shown(tmp_path: Path) -> None:
    log, asleep = tmp_path / "log", Asleep()
    async with tools_pool(Telling) as pool:
        [pid] = pids(pool)
        with pytest.raises(CallTimeoutError):
            await pool.execute("step_and_beat", {"log": str(log)}, timeout=0.3, on_progress=asleep)
        assert isinstance(asleep.ended_by, anyio.get_cancelled_exc_class())
        assert lines(log)[-1] == "stopped"
        assert await pool.execute("pid") == pid


async def test_the_death_of_the_worker_ends_an_update_that_is_being_shown(tmp_path: Path) -> None:
    asleep = Asleep()

    async def kill() -> None:
        await asleep.entered.wait()
        os.kill(pid, signal.SIGKILL)

    async with tools_pool(Telling) as pool, anyio.create_task_group() as tasks:
        [pid] = pids(pool)
        tasks.start_soon(kill)
        with pytest.raises(WorkerDiedError):
            await pool.execute("step_and_beat", {"log": str(tmp_path / "log")}, on_progress=asleep)
        assert isinstance(asleep.ended_by, anyio.get_cancelled_exc_class())


async def test_a_call_that_was_in_time_is_not_cut_short_by_its_timeout() -> None:
    """The tool has answered; what the caller does with the last update is its own affair."""
    shown = Shown()
    async with tools_pool(Telling) as pool:

        async def slow(*told: Any) -> None:
            await until(lambda: not pool.stats().busy)
            await anyio.sleep(0.4)
            shown(*told)

        value = await pool.execute("steps", {"count": 1}, timeout=0.3, on_progress=slow)
        assert value == "all done"
    assert shown == [(1, 1, "step 1")]


async def test_the_closing_of_the_pool_ends_an_update_that_is_being_shown(tmp_path: Path) -> None:
    log, asleep = tmp_path / "log", Asleep()
    errors: list[BaseException] = []

    async def call(pool: Pool) -> None:
        try:
            await pool.execute("step_and_beat", {"log": str(log)}, on_progress=asleep)
        except PoolClosedError as error:
            errors.append(error)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks, open_pool(Telling, size=1) as pool:
            [pid] = pids(pool)
            tasks.start_soon(call, pool)
            await asleep.entered.wait()
    assert len(errors) == 1
    assert asleep.ended_by is not None
    assert not is_alive(pid)


async def test_a_call_with_on_progress_cancelled_at_each_of_its_checkpoints_leaves_the_pool_whole(
    tmp_path: Path,
) -> None:
    """The k-th time that the loop gives others their turn, for each small k: silence, same pid."""
    log = tmp_path / "log"
    shown = Shown()

    async def show(*told: Any) -> None:
        shown(*told)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    async with tools_pool(Telling) as pool:
        before = pids(pool)
        for k in range(60):
            shown.clear()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def cancel(k: int = k, scope: anyio.CancelScope = scope) -> None:
                        if k >= 30:  # from the first update on
                            await until(lambda: shown)
                        for _ in range(k % 30):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()

                    tasks.start_soon(cancel)
                    await pool.execute("step_and_beat", {"log": str(log)}, on_progress=show)
            assert scope.cancelled_caught
            assert not pool.stats().busy
        size = len(lines(log))
        await anyio.sleep(SILENCE_S)
        assert len(lines(log)) == size
        assert [await pool.execute("pid")] == before
        assert pool._core.scheduler.queued() == []
