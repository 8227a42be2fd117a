"""Waits that no cancellation cuts short: neither a cancelled scope nor a native `Task.cancel()`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
from _backends import asyncio_only

from snakepit.process import hold_until, shielded


async def set_soon(event: anyio.Event) -> None:
    await anyio.sleep(0.02)
    event.set()


async def test_hold_until_says_whether_the_event_came() -> None:
    event = anyio.Event()
    with anyio.fail_after(10):
        start = anyio.current_time()
        assert not await hold_until(event, 0.02)
        assert anyio.current_time() - start >= 0.02
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(set_soon, event)
            assert await hold_until(event, 60)
        assert await hold_until(event, 60)
        assert await hold_until(event, 0)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_hold_until_with_no_time_does_not_wait(timeout_s: float) -> None:
    assert not await hold_until(anyio.Event(), timeout_s)


async def test_hold_until_holds_in_a_cancelled_scope_and_drops_nothing_of_it() -> None:
    """The scope takes effect at the next checkpoint."""
    event = anyio.Event()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(set_soon, event)
            with anyio.CancelScope() as scope:
                scope.cancel()
                assert await hold_until(event, 60)
                assert not await hold_until(anyio.Event(), 0.02)
                await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def test_shielded_waits_to_the_end_in_a_cancelled_scope() -> None:
    event = anyio.Event()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(set_soon, event)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await shielded(event.wait)
                assert event.is_set()
                await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def test_shielded_passes_errors_on() -> None:
    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await shielded(fail)


async def cancel(task: asyncio.Task[object], times: int) -> None:
    """Natively, each time after the one before has been seen."""
    for number in range(1, times + 1):
        task.cancel(f"number {number}")
        for _ in range(5):
            await asyncio.sleep(0)
    assert not task.done()


async def run(wait: Callable[[], Awaitable[object]]) -> object:
    return await wait()


@asyncio_only
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_shielded_raises_the_last_native_cancellation_at_the_end(times: int) -> None:
    event = anyio.Event()
    with anyio.fail_after(10):
        task = asyncio.create_task(run(lambda: shielded(event.wait)))
        await asyncio.sleep(0)
        await cancel(task, times)
        event.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == (f"number {times}",)
        assert task.cancelled()


@asyncio_only
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_hold_until_holds_through_native_cancellations(times: int) -> None:
    event = anyio.Event()
    with anyio.fail_after(10):
        task = asyncio.create_task(run(lambda: hold_until(event, 60)))
        await asyncio.sleep(0)
        await cancel(task, times)
        event.set()
        assert await task is True


@asyncio_only
async def test_native_cancellations_do_not_make_hold_until_wait_longer() -> None:
    with anyio.fail_after(10):
        start = anyio.current_time()
        task = asyncio.create_task(run(lambda: hold_until(anyio.Event(), 0.1)))
        await asyncio.sleep(0)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0.01)
        assert await task is False
        assert 0.1 <= anyio.current_time() - start < 5
