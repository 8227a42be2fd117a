"""`Pool.as_executor()` used in and around an event loop, on trio and asyncio."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

import anyio
import functions
import pytest
from _backends import asyncio_only, one_loop_each
from pool_kit import PATIENCE_S, lines, pids, run_script, tools_pool, until

from snakepit import PoolClosedError, PoolSaturatedError, Queue, open_pool

pytestmark = one_loop_each


async def outcome(future: Future[Any]) -> Any:
    """Wait for the future as the guide says."""
    return await anyio.to_thread.run_sync(future.result, PATIENCE_S, abandon_on_cancel=True)


async def hold(executor: Executor, folder: Path) -> tuple[Future[Any], Path]:
    started, release = folder / "started", folder / "release"
    future = executor.submit(functions.hold, str(started), str(release), "held")
    await until(started.exists)
    return future, release


async def test_code_in_the_loops_thread_submits_and_awaits() -> None:
    """The futures complete although their submitter is the loop's own thread."""
    async with tools_pool(None, size=2) as pool:
        executor = pool.as_executor()
        futures = [executor.submit(functions.double, number) for number in range(100)]
        assert not any(future.done() for future in futures)
        await until(lambda: all(future.done() for future in futures))
        assert [future.result() for future in futures] == list(range(0, 200, 2))
        assert await outcome(executor.submit(functions.pid)) in pids(pool)


async def test_code_in_other_threads_uses_it_as_any_executor() -> None:
    async with tools_pool(None, size=2) as pool:
        executor = pool.as_executor()

        def blocking() -> list[int]:
            with pool.as_executor() as own:
                assert own.submit(functions.double, 4).result(PATIENCE_S) == 8
                values = list(own.map(functions.double, range(50), chunksize=7))
            return values + list(executor.map(functions.double, range(5)))

        values = await anyio.to_thread.run_sync(blocking)
        assert values == [*range(0, 100, 2), *range(0, 10, 2)]


async def test_a_wait_that_could_never_end_is_an_error(tmp_path: Path) -> None:
    """In the loop's thread; with a time limit, or when it is done, the wait is a wait as any."""
    async with tools_pool(None) as pool:
        executor = pool.as_executor()
        future, release = await hold(executor, tmp_path)
        for wait in (future.result, future.exception, lambda: next(executor.map(abs, [1]))):
            with pytest.raises(RuntimeError, match="wait for itself for ever"):
                wait()
        for limited in (future.result, future.exception):
            with pytest.raises(TimeoutError):
                limited(timeout=0)
        release.touch()
        assert await outcome(future) == "held"
        assert future.result() == "held"
        cancelled = executor.submit(functions.pid)
        assert cancelled.cancel()
        with pytest.raises(CancelledError):
            cancelled.result()


async def test_shutdown_in_the_loops_thread_never_blocks_it(tmp_path: Path) -> None:
    """With futures to wait for it is an error, and the executor is shut down all the same."""
    async with tools_pool(None) as pool:
        executor = pool.as_executor()
        future, release = await hold(executor, tmp_path)
        waiting = executor.submit(functions.pid)
        with pytest.raises(RuntimeError, match=r"anyio\.to_thread"):
            executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures"):
            executor.submit(functions.pid)
        executor.shutdown(wait=False, cancel_futures=True)
        assert waiting.cancelled()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, executor.shutdown)
            await anyio.sleep(0.05)
            assert not future.done()
            release.touch()
        assert future.done()
        executor.shutdown()
        assert await pool.run_sync(functions.double, 1) == 2


async def test_a_with_block_in_async_code(tmp_path: Path) -> None:
    """Fine where its futures were awaited; an error in flight goes before our complaint."""
    async with tools_pool(None) as pool:
        with pool.as_executor() as executor:
            assert await outcome(executor.submit(functions.double, 2)) == 4
        with pytest.raises(RuntimeError, match="wait for itself"), pool.as_executor() as executor:
            executor.submit(functions.pid)
        with pytest.raises(ZeroDivisionError), pool.as_executor() as executor:
            future = executor.submit(functions.double, 3)
            raise ZeroDivisionError
        assert await outcome(future) == 6
        with anyio.move_on_after(0.05) as scope, pool.as_executor() as executor:
            await hold(executor, tmp_path)
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        (tmp_path / "release").touch()


async def test_cancel_in_the_loops_thread_withdraws_the_call(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with tools_pool(None) as pool:
        executor = pool.as_executor()
        running, release = await hold(executor, tmp_path)
        futures = [executor.submit(functions.note, str(log), str(at)) for at in range(3)]
        await until(lambda: pool.stats().queued == 3)
        assert [futures[0].cancel(), running.cancel()] == [True, False]
        await until(lambda: pool.stats().queued == 2)
        unseen = executor.submit(functions.note, str(log), "unseen")
        assert unseen.cancel()  # before the loop has looked at it
        release.touch()
        assert await outcome(futures[2]) == "2"
        assert lines(log) == ["1", "2"]
        assert [futures[0].cancelled(), unseen.cancelled()] == [True, True]


async def test_leaving_the_pool_ends_every_future(tmp_path: Path) -> None:
    """When the block has been left all are done; nothing can be submitted any more."""
    async with tools_pool(None) as pool:
        executor = pool.as_executor()
        running, _ = await hold(executor, tmp_path)
        futures = [running, *(executor.submit(functions.pid) for _ in range(100))]
        called: list[Any] = []
        for future in futures:
            future.add_done_callback(called.append)
    assert len(called) == 101
    assert {type(future.exception()) for future in futures} == {PoolClosedError}
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(functions.pid)


async def test_a_submit_that_comes_too_late_for_its_own_check_ends_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pool may end between the check and the moment in which the call is put down."""
    async with tools_pool(None) as pool:
        executor: Any = pool.as_executor()
    monkeypatch.setattr(executor._desk, "refuse_if_shut", lambda: None)
    for future in (
        executor.submit(functions.pid),
        await anyio.to_thread.run_sync(executor.submit, functions.pid),
    ):
        assert isinstance(future.exception(0), PoolClosedError)
    executor.shutdown()


async def test_a_pool_that_is_cancelled_ends_every_future(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with tools_pool(None) as pool:
            executor = pool.as_executor()
            running, _ = await hold(executor, tmp_path)
            waiting = executor.submit(functions.pid)
            scope.cancel()
            await anyio.sleep_forever()
    assert isinstance(running.exception(), PoolClosedError)
    assert isinstance(waiting.exception(), PoolClosedError)


async def test_an_executor_of_a_pool_that_has_no_worker_yet() -> None:
    """`min_ready=0`: the block is entered before anything of the pool has run."""
    async with open_pool(None, size=1, min_ready=0) as pool:
        future = pool.as_executor().submit(functions.double, 5)
        assert future.cancel() is True
        assert await outcome(pool.as_executor().submit(functions.double, 5)) == 10


async def test_a_burst_past_the_queues_bound_is_refused_by_the_futures(tmp_path: Path) -> None:
    async with tools_pool(None, queue=Queue(max_size=2)) as pool:
        executor = pool.as_executor()
        _, release = await hold(executor, tmp_path)
        futures = [executor.submit(functions.double, number) for number in range(10)]
        await until(lambda: sum(future.done() for future in futures) == 8)
        assert all(isinstance(f.exception(), PoolSaturatedError) for f in futures[2:])
        await until(lambda: pool.stats().saturated == 8)
        release.touch()
        assert [await outcome(future) for future in futures[:2]] == [0, 2]


@asyncio_only
async def test_run_in_executor_of_asyncio(tmp_path: Path) -> None:
    """Values, errors, `gather`; cancelling a wait cancels a call that has not begun."""
    log = tmp_path / "log"
    loop = asyncio.get_running_loop()
    async with tools_pool(None) as pool:
        with pool.as_executor() as executor:
            assert await loop.run_in_executor(executor, functions.double, 4) == 8
            calls = [loop.run_in_executor(executor, functions.double, at) for at in range(20)]
            assert await asyncio.gather(*calls) == list(range(0, 40, 2))
            with pytest.raises(functions.Custom) as caught:
                await loop.run_in_executor(executor, functions.fail_with_cause)
            assert isinstance(caught.value.__cause__, KeyError)
            running, release = await hold(executor, tmp_path)
            waiting = loop.run_in_executor(executor, functions.note, str(log))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting, 0.05)
            release.touch()
            assert await asyncio.wrap_future(running) == "held"
            assert await loop.run_in_executor(executor, functions.double, 1) == 2
        assert lines(log) == []


async def test_another_loop_in_another_thread_uses_the_pool() -> None:
    """`run_in_executor` of a loop that knows nothing of the pool's own."""
    async with tools_pool(None, size=2) as pool:
        executor = pool.as_executor()

        async def elsewhere() -> list[int]:
            loop = asyncio.get_running_loop()
            calls = [loop.run_in_executor(executor, functions.double, at) for at in range(20)]
            return await asyncio.gather(*calls)

        values = await anyio.to_thread.run_sync(lambda: asyncio.run(elsewhere()))
        assert values == list(range(0, 40, 2))


async def test_tasks_and_futures_share_the_workers() -> None:
    """And a future's call is never sent behind another one."""
    async with tools_pool(size=2) as pool:
        executor = pool.as_executor()
        sums: list[int] = []

        async def call(number: int) -> None:
            sums.append(await pool.execute("add", {"left": number, "right": 1}))

        async with anyio.create_task_group() as tasks:
            futures = []
            for number in range(50):
                tasks.start_soon(call, number)
                futures.append(executor.submit(functions.double, number))
        assert sorted(sums) == list(range(1, 51))
        assert [await outcome(future) for future in futures] == list(range(0, 100, 2))


async def test_the_thread_of_a_callback_is_the_loops(tmp_path: Path) -> None:
    threads: list[int] = []
    async with tools_pool(None) as pool:
        future = pool.as_executor().submit(functions.pid)
        future.add_done_callback(lambda _: threads.append(threading.get_ident()))
        await until(lambda: threads)
    assert threads == [threading.get_ident()]


async def test_a_forked_child_is_refused() -> None:
    async with tools_pool(None) as pool:
        executor = pool.as_executor()
        child = os.fork()
        if child == 0:
            try:
                executor.submit(functions.pid)
            except RuntimeError as error:
                os._exit(7 if "process that opened" in str(error) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert await outcome(executor.submit(functions.double, 1)) == 2


ABANDONED = """
import asyncio, concurrent.futures, time, snakepit

futures = []

async def main():
    async with snakepit.open_pool(size=1) as pool:
        executor = pool.as_executor()
        futures.append(executor.submit(time.sleep, 600))
        futures.extend(executor.submit(abs, -1) for _ in range(50))
        asyncio.get_running_loop().call_later(0.3, other.cancel)
        await asyncio.sleep(600)

async def outer():
    global other
    other = asyncio.current_task()
    background = asyncio.create_task(main())
    await asyncio.sleep(600)

if __name__ == "__main__":
    try:
        asyncio.run(outer())
    except asyncio.CancelledError:
        print(len(futures), {type(future.exception(0)).__name__ for future in futures})
"""


def test_asyncio_run_that_cancels_every_task_leaves_no_future_open(tmp_path: Path) -> None:
    """Ours as well, in whatever order: the outcomes come all the same."""
    started = time.monotonic()
    result = run_script(tmp_path, ABANDONED)
    expected = "51 {'PoolClosedError'}\n"
    assert (result.stdout, result.returncode) == (expected, 0), result.stderr
    assert time.monotonic() - started < PATIENCE_S
