"""A pool lives in every kind of program: whatever owns the loop, and wherever the loop runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import psutil
import pytest
import trio
from _backends import asyncio_only
from adapters import BadStart, Tools
from pool_kit import BRISK, PATIENT, ROOT, all_gone, lines, pids, run_script, tools_pool, until

from snakepit import (
    Pool,
    PoolClosedError,
    WorkerStartError,
    open_pool,
    run_pool,
)


async def use_a_pool(found: list[int]) -> None:
    """A bit of everything; the pids are noted."""
    async with open_pool(Tools, size=2, stop=PATIENT) as pool:
        await pool.ready()
        found += pids(pool)
        assert await pool.execute("pid") in found
        async with pool.stream("count", {"stop": 30}, window=3) as items:
            assert [item async for item in items] == list(range(30))
        assert await pool.run_sync(divmod, 7, 2) == (3, 1)
        with anyio.move_on_after(0.05) as scope:
            await pool.execute("sleep", {"started": os.devnull})
        assert scope.cancelled_caught
        assert sorted(pids(pool)) == sorted(found)


# Without an owner of our own: bare loops


def in_this_thread(run: Callable[[], Any]) -> None:
    run()


def in_another_thread(run: Callable[[], Any]) -> None:
    errors: list[BaseException] = []

    def target() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("place", [in_this_thread, in_another_thread])
@pytest.mark.parametrize("loop", ["trio", "asyncio", "anyio on trio", "anyio on asyncio"])
def test_a_pool_works_under_each_way_to_run_a_loop(
    loop: str, place: Callable[[Callable[[], Any]], None]
) -> None:
    """trio.run, asyncio.run, anyio.run, in the main thread and in one that is not."""
    found: list[int] = []
    runs: dict[str, Callable[[], Any]] = {
        "trio": lambda: trio.run(use_a_pool, found),
        "asyncio": lambda: asyncio.run(use_a_pool(found)),
        "anyio on trio": lambda: anyio.run(use_a_pool, found, backend="trio"),
        "anyio on asyncio": lambda: anyio.run(use_a_pool, found, backend="asyncio"),
    }
    place(runs[loop])
    assert len(found) == 2
    assert all_gone(found)


def test_a_pool_works_in_trios_guest_mode_on_an_asyncio_loop() -> None:
    """Trio is the guest of asyncio: the pool sees trio, and all ends well for both."""
    found: list[int] = []

    async def host() -> None:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        trio.lowlevel.start_guest_run(
            use_a_pool,
            found,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        (await asyncio.wait_for(done, 30)).unwrap()

    asyncio.run(host())
    assert len(found) == 2
    assert all_gone(found)


def test_two_loops_in_two_threads_have_a_pool_each() -> None:
    """At the same time, one on trio and one on asyncio."""
    found: list[list[int]] = [[], []]
    threads = [
        threading.Thread(target=lambda: trio.run(use_a_pool, found[0])),
        threading.Thread(target=lambda: asyncio.run(use_a_pool(found[1]))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(one) for one in found] == [2, 2]
    assert all_gone(found[0] + found[1])


# In somebody else's nursery


async def test_run_pool_hands_the_pool_over_when_it_is_ready_and_lives_until_cancelled() -> None:
    """With anyio's `start`; a call that runs when it is cancelled raises PoolClosedError."""
    async with anyio.create_task_group() as tasks:

        async def serve(*, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
            await run_pool(Tools, size=1, stop=PATIENT, task_status=task_status)

        pool: Pool = await tasks.start(serve)
        found = pids(pool)
        assert await pool.execute("pid") == found[0]
        tasks.cancel_scope.cancel()
    assert all_gone(found)
    with pytest.raises(PoolClosedError):
        await pool.execute("pid")


@pytest.mark.trio
async def test_run_pool_works_with_trios_own_nursery() -> None:
    """`await nursery.start(run_pool, ...)`, with the options bound by a lambda or partial."""
    from functools import partial

    async with trio.open_nursery() as nursery:
        pool = await nursery.start(partial(run_pool, Tools, size=1, stop=PATIENT))
        found = pids(pool)
        assert await pool.execute("echo", {"value": 1}) == 1
        nursery.cancel_scope.cancel()
    assert all_gone(found)


async def test_run_pool_raises_from_start_when_it_cannot_start() -> None:
    """`await tasks.start(...)` raises the WorkerStartError itself; the task group is unharmed."""

    async def serve(*, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        await run_pool(BadStart, size=1, adapter_args=("raise",), task_status=task_status)

    async with anyio.create_task_group() as tasks:
        with pytest.raises(WorkerStartError):
            await tasks.start(serve)


async def test_a_pool_in_an_exit_stack() -> None:
    """Entered in one function, left in another, and closed before what was opened earlier."""
    order: list[str] = []

    async def open_it(stack: AsyncExitStack) -> Pool:
        stack.callback(order.append, "before")
        pool = await stack.enter_async_context(open_pool(Tools, size=1, stop=PATIENT))
        stack.callback(order.append, "after")
        return pool

    async with AsyncExitStack() as stack:
        pool = await open_it(stack)
        found = pids(pool)
        assert await pool.execute("pid") == found[0]
    assert order == ["after", "before"]
    assert all_gone(found)
    with pytest.raises(LookupError):
        async with AsyncExitStack() as stack:
            found = pids(await open_it(stack))
            raise LookupError
    assert all_gone(found)


@asyncio_only
async def test_calls_from_an_asyncio_task_group_inside_the_pool() -> None:
    async with tools_pool(size=2) as pool, asyncio.TaskGroup() as group:
        calls = [group.create_task(pool.execute("add", {"left": n})) for n in range(20)]
    assert [call.result() for call in calls] == list(range(1, 21))


@asyncio_only
async def test_a_pool_inside_a_task_of_an_asyncio_task_group() -> None:
    """A sibling's failure cancels the task that holds the pool; its workers are gone by then."""
    found: list[int] = []
    opened = asyncio.Event()

    async def hold() -> None:
        async with open_pool(Tools, size=1, stop=PATIENT) as pool:
            found.extend(pids(pool))
            opened.set()
            await pool.execute("sleep", {"started": os.devnull})

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(hold())
            await opened.wait()
            raise LookupError("sibling")
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert len(found) == 1
    assert all_gone(found)


@asyncio_only
async def test_gather_and_as_completed_over_calls() -> None:
    async with tools_pool(size=2) as pool:
        calls = [pool.execute("echo", {"value": n}) for n in range(10)]
        assert await asyncio.gather(*calls) == list(range(10))
        some = [pool.execute("echo", {"value": n}) for n in range(5)]
        assert sorted([await one for one in asyncio.as_completed(some)]) == list(range(5))


@asyncio_only
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_the_task_that_holds_a_pool_may_be_cancelled_again_and_again(
    times: int, tmp_path: Path
) -> None:
    """While it closes: the workers' clean-up is done, and they are gone, when the task ends."""
    log = tmp_path / "log"
    found: list[int] = []

    async def hold() -> None:
        async with open_pool(Tools, size=1, stop=PATIENT) as pool:
            found.extend(pids(pool))
            await pool.execute("slow_to_stop", {"log": str(log), "seconds": 0.3})

    task = asyncio.ensure_future(hold())
    await until(log.exists)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.03)
        assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lines(log)[-1] == "stopped"
    assert all_gone(found)


async def test_two_pools_in_one_process_do_not_know_each_other() -> None:
    """Traffic on one moves only its own counters; their workers are different ones."""
    async with tools_pool(name="one", size=1) as one, tools_pool(name="two", size=2) as two:
        assert len(set(pids(one) + pids(two))) == 3
        for _ in range(3):
            await one.execute("echo")
        assert (one.stats().requests, two.stats().requests) == (3, 0)
        assert (one.stats().workers, two.stats().workers) == (1, 2)
        assert {worker.id for worker in two.workers()} == {"two-1.1", "two-2.1"}


async def test_a_broken_pool_does_not_trouble_another() -> None:
    with anyio.fail_after(20):
        async with tools_pool() as healthy:
            with pytest.raises(WorkerStartError):
                async with open_pool(BadStart, size=1, adapter_args=("raise",)):
                    pytest.fail("the block was entered")
            assert await healthy.execute("echo", {"value": 1}) == 1


# Where it does not belong


async def test_use_from_another_thread_is_an_error_that_says_what_to_do() -> None:
    """Also from a loop of that thread's own. The way in is `anyio.from_thread`."""
    async with tools_pool() as pool:

        def drive(use: Callable[[], Awaitable[Any]], run: Callable[[Any], Any]) -> None:
            with pytest.raises(RuntimeError) as caught:
                run(use)
            assert "open_pool_sync" in str(caught.value)
            assert "event loop that opened it" in str(caught.value)

        async def stream() -> None:
            async with pool.stream("count", {"stop": 1}):
                pytest.fail("the block was entered")

        def by_hand(use: Callable[[], Awaitable[Any]]) -> None:
            use().__await__().send(None)

        for run in (trio.run, lambda use: asyncio.run(use()), by_hand):
            for use in (lambda: pool.execute("pid"), lambda: pool.run_sync(os.getpid), stream):
                await anyio.to_thread.run_sync(drive, use, run)
        assert pool.stats().requests == 0

        def properly() -> int:
            return anyio.from_thread.run(pool.execute, "pid")

        assert await anyio.to_thread.run_sync(properly) == pids(pool)[0]


def test_use_from_a_later_loop_in_the_same_thread_is_an_error() -> None:
    kept: list[Pool] = []

    async def first() -> None:
        async with open_pool(Tools, size=1) as pool:
            kept.append(pool)

    async def second() -> None:
        with pytest.raises(RuntimeError) as caught:
            await kept[0].execute("pid")
        assert "open_pool_sync" in str(caught.value)

    for run in (trio.run, lambda main: asyncio.run(main())):
        run(first)
        run(second)
        asyncio.run(second())
        kept.clear()


FORKING = """
import os, sys, {loop}, snakepit

async def main():
    async with snakepit.open_pool("adapters:Tools", size=1) as pool:
        pid = await pool.execute("pid")
        child = os.fork()
        if child == 0:
            for use in (lambda: pool.execute("pid"), lambda: pool.run_sync(os.getpid), pool.ready):
                try:
                    use().__await__().send(None)
                except RuntimeError as error:
                    print("child:", error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print("parent:", await pool.execute("pid") == pid, flush=True)
        lasting = os.fork()
        if lasting == 0:
            os.read(gate, 1)
            os._exit(0)
        worker = pool.workers()[0].pid
    # The second child lives on; it must not keep the worker's pipes open.
    print("gone:", not os.path.exists(f"/proc/{{worker}}"), flush=True)
    os.close(opening)
    os.waitpid(lasting, 0)

gate, opening = os.pipe()
os.register_at_fork(after_in_child=lambda: os.close(opening))
if __name__ == "__main__":
    {run}
"""


@pytest.mark.parametrize(
    ("loop", "run"), [("trio", "trio.run(main)"), ("asyncio", "asyncio.run(main())")]
)
def test_a_forked_child_cannot_use_the_pool_and_does_not_harm_it(
    loop: str, run: str, tmp_path: Path
) -> None:
    """A RuntimeError in the child that says why; the parent's calls and its closing go on."""
    result = run_script(tmp_path, FORKING.format(loop=loop, run=run), PYTHONWARNINGS="ignore")
    assert result.returncode == 0, result.stderr
    printed = result.stdout.splitlines()
    assert len(printed) == 5
    for line in printed[:3]:
        assert line.startswith("child: this pool belongs to the process that opened it")
        assert "forked child" in line
    assert printed[3:] == ["parent: True", "gone: True"]


FORKING_WITHOUT_ASYNC = """
import os, sys, snakepit

if __name__ == "__main__":
    with snakepit.open_pool_sync("adapters:Tools", size=1, backend="{loop}") as pool:
        pid = pool.execute("pid")
        child = os.fork()
        if child == 0:
            for use in (lambda: pool.execute("pid"), pool.stats, pool.as_executor):
                try:
                    use()
                except RuntimeError as error:
                    print("child:", error, flush=True)
            sys.exit(7)  # out of the block
        print("its code:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        print("parent:", pool.execute("pid") == pid, flush=True)
"""


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_a_forked_child_of_blocking_code_cannot_use_the_pool_and_leaves_its_block(
    loop: str, tmp_path: Path
) -> None:
    """The thread that it would wait for is its parent's."""
    script = FORKING_WITHOUT_ASYNC.format(loop=loop)
    result = run_script(tmp_path, script, PYTHONWARNINGS="ignore")
    assert result.returncode == 0, result.stderr
    printed = result.stdout.splitlines()
    told = (
        "child: this pool belongs to the process that opened it; a forked child must open its own"
    )
    assert printed == [told] * 3 + ["its code: 7", "parent: True"]
    assert result.stderr == ""


def test_asyncio_run_that_returns_while_a_task_holds_a_pool_ends_its_workers() -> None:
    """`asyncio.run` cancels every task that is left, the pool's own as well; it takes no longer
    than an orderly end."""
    found: list[int] = []
    kept: list[asyncio.Task[None]] = []

    async def hold(opened: asyncio.Event) -> None:
        async with open_pool(Tools, size=2, min_ready=2, stop=PATIENT) as pool:
            found.extend(pids(pool))
            opened.set()
            await asyncio.sleep(3600)

    async def main() -> None:
        opened = asyncio.Event()
        kept.append(asyncio.ensure_future(hold(opened)))
        await opened.wait()

    async def timed() -> float:
        return asyncio.get_running_loop().time()

    begun = asyncio.run(timed())
    asyncio.run(main())
    took = asyncio.run(timed()) - begun
    assert kept[0].cancelled()
    assert len(found) == 2
    assert all_gone(found)
    assert took < PATIENT.term_grace


def test_asyncio_run_that_returns_while_a_call_runs_stops_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found: list[int] = []

    async def hold() -> None:
        async with open_pool(Tools, size=1, stop=PATIENT) as pool:
            found.extend(pids(pool))
            await pool.execute("slow_to_stop", {"log": str(log), "seconds": 0.1})

    kept: list[asyncio.Task[None]] = []

    async def main() -> None:
        kept.append(asyncio.ensure_future(hold()))
        await until(log.exists)

    asyncio.run(main())
    assert kept[0].cancelled()
    assert all_gone(found)
    assert lines(log)[-1] == "stopped"


@pytest.mark.parametrize("how", ["starting", "stubborn"])
def test_asyncio_run_that_returns_ends_workers_that_start_or_will_not_stop(
    how: str, tmp_path: Path
) -> None:
    """A worker inside `initialize`, and one whose tool swallows everything."""
    mark = tmp_path / "mark"
    kept: list[asyncio.Task[None]] = []

    async def hold() -> None:
        if how == "starting":
            async with open_pool(BadStart, size=2, adapter_args=("hang", str(mark)), stop=BRISK):
                pytest.fail("the block was entered")
        async with open_pool(Tools, size=1, stop=BRISK) as pool:
            await pool.execute("stubborn", {"log": str(mark)})

    async def main() -> None:
        kept.append(asyncio.ensure_future(hold()))
        await until(mark.exists)

    before = set(psutil.Process().children())
    asyncio.run(main())
    assert kept[0].cancelled()
    assert not [child for child in psutil.Process().children() if child not in before]


INTERRUPTED = """
import sys, trio, asyncio, snakepit

async def main():
    async with snakepit.open_pool("adapters:Tools", size=2, min_ready=2) as pool:
        print(*[worker.pid for worker in pool.workers()], flush=True)
        await pool.execute("sleep", {{"started": {started!r}}})

if __name__ == "__main__":
    {run}
"""


@pytest.mark.parametrize("run", ["trio.run(main)", "asyncio.run(main())"])
def test_ctrl_c_ends_the_program_and_its_workers(run: str, tmp_path: Path) -> None:
    """SIGINT to the host: the tool is stopped, KeyboardInterrupt ends it, no worker is left."""
    import signal
    import time

    started = tmp_path / "started"
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.format(started=str(started), run=run), encoding="utf-8")
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    with subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = [int(word) for word in process.stdout.readline().split()]
        deadline = time.monotonic() + 20
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert len(found) == 2
    assert process.returncode in (1, -signal.SIGINT, 130)
    assert "KeyboardInterrupt" in stderr
    assert all_gone(found)
