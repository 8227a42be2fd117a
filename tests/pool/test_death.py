"""A worker dies: one call hears of it, the others never notice, a new worker takes its place."""

from __future__ import annotations

import os
import pickle
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from _leaks import is_alive
from adapters import BadStart
from pool_kit import lines, pids, tools_pool, until

from snakepit import (
    CrashBarrier,
    Pool,
    PoolBrokenError,
    WorkerDiedError,
    WorkerStartError,
    open_pool,
)

DEATHS = {
    "exit": (3, None, "exited with code 3"),
    "kill": (None, signal.SIGKILL, "ended by SIGKILL"),
    "segv": (None, signal.SIGSEGV, "ended by SIGSEGV"),
}


@pytest.mark.parametrize("how", DEATHS)
async def test_the_death_of_a_worker_is_told_in_full_and_it_is_replaced(how: str) -> None:
    """Exit code or signal, pid, id, that the call had started; the error travels whole."""
    exit_code, number, certificate = DEATHS[how]
    async with tools_pool() as pool:
        [worker] = pool.workers()
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"how": how})
        error = caught.value
        assert (error.worker_id, error.pid) == (worker.id, worker.pid)
        assert (error.exit_code, error.signal) == (exit_code, number)
        assert (error.reason, error.started) == ("died", True)
        assert error.certificate.startswith(certificate)
        assert str(worker.pid) in str(error)
        assert certificate in str(error)
        assert pickle.loads(pickle.dumps(error)).args == error.args
        new_pid = await pool.execute("pid")
        assert new_pid != worker.pid
        assert worker.pid is not None
        assert not is_alive(worker.pid)
        stats = pool.stats()
        assert (stats.restarts, stats.errors, stats.workers) == (1, 1, 1)
        assert pool.workers()[0].id != worker.id


async def test_the_last_words_of_a_worker_are_in_the_error() -> None:
    """What it wrote to stderr is there, a crash in C with the stack of the crash."""
    async with tools_pool(env={"PYTHONFAULTHANDLER": "1"}) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("say_and_die", {"text": "so long"})
        assert caught.value.stderr_tail == "so long"
        assert "so long" in str(caught.value)
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"how": "segv"})
        assert "Segmentation fault" in caught.value.stderr_tail


async def test_only_the_call_on_the_dead_worker_fails(tmp_path: Path) -> None:
    """The neighbour's call goes on, those that wait run on what is left and on the replacement."""
    log, started, release = tmp_path / "log", tmp_path / "started", tmp_path / "release"
    outcomes: list[Any] = []
    async with tools_pool(size=2) as pool:
        before = pids(pool)

        async def call(tool: str, params: dict[str, Any]) -> None:
            try:
                outcomes.append(await pool.execute(tool, params))
            except WorkerDiedError as error:
                outcomes.append(error)

        neighbour = {"started": str(started), "release": str(release)}
        doomed = {"started": str(tmp_path / "s2"), "release": str(tmp_path / "r2")}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "hold", neighbour)
            tasks.start_soon(call, "hold_then_die", doomed)
            await until(lambda: started.exists() and Path(doomed["started"]).exists())
            for number in range(20):
                tasks.start_soon(call, "note", {"log": str(log), "text": f"{number}"})
            await until(lambda: pool.stats().queued == 20)
            Path(doomed["release"]).touch()
            await until(lambda: len(outcomes) == 21)
            release.touch()
        [died] = [outcome for outcome in outcomes if isinstance(outcome, WorkerDiedError)]
        assert died.exit_code == 9
        assert outcomes.count(None) == 20
        assert sorted(lines(log), key=int) == [str(number) for number in range(20)]
        assert outcomes[-1] in before
        assert outcomes[-1] != died.pid
        assert pool.stats().errors == 1


async def test_calls_sent_ahead_to_a_worker_that_dies_run_exactly_once(tmp_path: Path) -> None:
    """Only the first unanswered call of a worker may have run; the others go to the next one."""
    log = tmp_path / "log"
    outcomes: list[Any] = []
    async with tools_pool() as pool:
        for _ in range(50):
            await pool.execute("echo")

        async def call(tool: str, params: dict[str, Any]) -> None:
            try:
                outcomes.append(await pool.execute(tool, params))
            except WorkerDiedError as error:
                outcomes.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "die", {"how": "exit"})
            for number in range(10):
                tasks.start_soon(call, "note", {"log": str(log), "text": f"{number}"})
        assert [type(outcome) for outcome in outcomes if outcome] == [WorkerDiedError]
        assert outcomes.count(None) == 10
        assert sorted(lines(log), key=int) == [str(number) for number in range(10)]


async def test_many_calls_through_workers_that_die_all_the_time_run_at_most_once(
    tmp_path: Path,
) -> None:
    """40 calls, every fifth kills its worker: 8 errors, 32 values, each call run exactly once."""
    log, deaths = tmp_path / "log", tmp_path / "deaths"
    failed: list[int] = []
    barrier = CrashBarrier(max_restarts=100, quarantine_after=None)
    async with tools_pool(size=2, crash_barrier=barrier) as pool:

        async def call(number: int) -> None:
            try:
                if number % 5:
                    await pool.execute("note", {"log": str(log), "text": f"{number}"})
                else:
                    await pool.execute("die", {"how": "kill", "log": str(deaths)})
            except WorkerDiedError:
                failed.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(call, number)
        assert sorted(failed) == list(range(0, 40, 5))
        assert sorted(map(int, lines(log))) == [n for n in range(40) if n % 5]
        assert len(lines(deaths)) == len(set(lines(deaths))) == 8
        await pool.ready()
        assert pool.stats().restarts == 8


async def test_an_idle_worker_that_is_killed_is_replaced_and_nobody_hears_of_it() -> None:
    async with tools_pool(size=2) as pool:
        before = pids(pool)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.stats().restarts == 2)
        await pool.ready()
        assert not set(pids(pool)) & set(before)
        assert await pool.execute("pid") in pids(pool)
        assert pool.stats().errors == 0


@pytest.mark.parametrize("milliseconds", range(0, 40, 5))
async def test_a_worker_killed_while_a_large_value_travels_is_a_death_or_the_value(
    milliseconds: int,
) -> None:
    """At whatever moment, on the way there or back: all of it or WorkerDiedError, no hang."""
    data = bytes(range(256)) * 60_000
    async with tools_pool() as pool:
        [pid] = pids(pool)
        outcomes: list[object] = []

        async def call() -> None:
            try:
                outcomes.append(await pool.execute("echo", {"value": data}) == data)
            except WorkerDiedError as error:
                outcomes.append((error.pid, error.signal))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(milliseconds / 1000)
            os.kill(pid, signal.SIGKILL)
        assert outcomes in ([True], [(pid, signal.SIGKILL)])
        assert await pool.execute("echo", {"value": data}) == data


async def test_an_idempotent_call_is_sent_again(tmp_path: Path) -> None:
    """The second worker answers; the caller sees nothing but the value."""
    log = tmp_path / "log"
    async with tools_pool() as pool:
        answer = await pool.execute("die_once", {"log": str(log)})
        assert [str(answer)] == lines(log)[1:]
        stats = pool.stats()
        assert (stats.requests, stats.errors, stats.restarts) == (1, 0, 1)


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_an_idempotent_call_is_retried_max_retries_times_and_no_more(
    retries: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with tools_pool(crash_barrier=CrashBarrier(max_retries=retries)) as pool:
        with pytest.raises(WorkerDiedError):
            await pool.execute("die_idempotently", {"log": str(log)})
        assert len(lines(log)) == len(set(lines(log))) == retries + 1
        assert isinstance(await pool.execute("pid"), int)


async def test_the_caller_may_say_whether_a_call_is_idempotent(tmp_path: Path) -> None:
    """`idempotent=` goes before what the tool declares, both ways; the default is not to retry."""
    yes, no, default, never = (tmp_path / name for name in ("yes", "no", "default", "never"))
    async with tools_pool() as pool:
        with pytest.raises(WorkerDiedError):
            await pool.execute("die", {"how": "exit", "log": str(yes)}, idempotent=True)
        with pytest.raises(WorkerDiedError):
            await pool.execute("die_idempotently", {"log": str(no)}, idempotent=False)
        with pytest.raises(WorkerDiedError):
            await pool.execute("die", {"how": "exit", "log": str(default)})
    async with tools_pool(crash_barrier=CrashBarrier(retry="never")) as pool:
        with pytest.raises(WorkerDiedError):
            await pool.execute("die_idempotently", {"log": str(never)})
    assert [len(lines(path)) for path in (yes, no, default, never)] == [2, 1, 1, 1]


async def test_a_stream_is_never_retried(tmp_path: Path) -> None:
    async with tools_pool() as pool:
        with pytest.raises(WorkerDiedError):
            async with pool.stream("count_then", {"stop": 0, "what": "exit"}) as items:
                async for _ in items:
                    pass
        await pool.ready()
        stats = pool.stats()
        assert (stats.restarts, stats.requests) == (1, 1)


async def test_workers_that_finish_a_call_and_die_are_replaced_for_ever() -> None:
    """Only fruitless starts count: the slot is not given up, and there is no waiting."""
    barrier = CrashBarrier(max_restarts=0, quarantine_after=None)
    async with tools_pool(crash_barrier=barrier) as pool:
        for _ in range(4):
            await pool.execute("echo")
            with pytest.raises(WorkerDiedError):
                await pool.execute("die", {"how": "kill"})
        assert await pool.execute("echo", {"value": 1}) == 1


async def _break(pool: Pool, times: int) -> WorkerDiedError:
    for _ in range(times):
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"how": "exit"})
    return caught.value


async def test_fruitless_restarts_break_the_pool_in_the_end() -> None:
    """With `max_restarts` of 2 the third death is the last; later calls are refused with it."""
    async with tools_pool(crash_barrier=CrashBarrier(max_restarts=2)) as pool:
        died = await _break(pool, 3)
        await until(lambda: "broken" in repr(pool))
        with pytest.raises(PoolBrokenError) as caught:
            await pool.execute("pid")
        assert died.certificate in caught.value.certificate
        assert died.worker_id in caught.value.certificate
        assert "2 fruitless restarts" in caught.value.message
        with pytest.raises(PoolBrokenError):
            await pool.ready()
        assert pool.stats().restarts == 2
        assert pool.stats().workers == 0


async def test_calls_that_wait_when_the_pool_breaks_fail_with_it(tmp_path: Path) -> None:
    """The call that killed the worker gets WorkerDiedError, those behind it PoolBrokenError."""
    log = tmp_path / "log"
    outcomes: list[BaseException] = []
    barrier = CrashBarrier(max_restarts=0)
    async with tools_pool(crash_barrier=barrier) as pool:

        async def call(tool: str, params: dict[str, Any]) -> None:
            try:
                await pool.execute(tool, params)
            except (WorkerDiedError, PoolBrokenError) as error:
                outcomes.append(error)

        doomed = {"started": str(tmp_path / "started"), "release": str(tmp_path / "release")}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "hold_then_die", doomed)
            await until(Path(doomed["started"]).exists)
            for _ in range(5):
                tasks.start_soon(call, "note", {"log": str(log), "text": "ran"})
            await until(lambda: pool.stats().queued == 5)
            Path(doomed["release"]).touch()
    assert sorted(type(error).__name__ for error in outcomes) == [
        *["PoolBrokenError"] * 5,
        "WorkerDiedError",
    ]
    assert lines(log) == []


async def test_an_idempotent_call_that_kills_every_worker_ends_when_the_pool_breaks(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    barrier = CrashBarrier(max_restarts=1, max_retries=50)
    async with tools_pool(crash_barrier=barrier) as pool:
        with pytest.raises(PoolBrokenError):
            await pool.execute("die_idempotently", {"log": str(log)})
    assert len(lines(log)) == 2


async def test_one_slot_given_up_does_not_break_a_pool_with_another(tmp_path: Path) -> None:
    """The only worker that may start serves all; `ready()` tells what keeps the other out."""
    mark = str(tmp_path / "mark")
    barrier = CrashBarrier(max_restarts=0)
    with anyio.fail_after(20):
        async with open_pool(
            BadStart, size=2, adapter_args=("once", mark), crash_barrier=barrier
        ) as pool:
            await until(lambda: any(slot.given_up for slot in pool._core.slots))
            assert pool.stats().workers == 1
            [pid] = [worker.pid for worker in pool.workers() if worker.state == "ready"]
            assert await pool.execute("pid") == pid
            with pytest.raises(WorkerStartError) as caught:
                await pool.ready()
            assert "only one may start" in str(caught.value)


async def test_starts_that_fail_are_tried_again_with_growing_pauses(tmp_path: Path) -> None:
    """At once, then after 0.1 s, then 0.2 s; between them no process exists."""
    mark = tmp_path / "mark"
    barrier = CrashBarrier(max_restarts=3)
    times: list[float] = []
    with anyio.fail_after(20):
        async with open_pool(
            BadStart,
            size=1,
            adapter_args=("raise", "", str(mark)),
            crash_barrier=barrier,
        ) as pool:
            mark.touch()
            with pytest.raises(WorkerDiedError):
                await pool.execute("die")
            seen: set[str] = set()
            while not pool._core.slots[0].given_up:
                [worker] = pool.workers()
                if worker.pid is not None and worker.id not in seen:
                    seen.add(worker.id)
                    times.append(worker.started_at)
                await anyio.sleep(0.002)
            [worker] = pool.workers()
            assert worker.state == "gone"
            with pytest.raises(PoolBrokenError) as caught:
                await pool.execute("pid")
            assert "no model here" in caught.value.certificate
    assert len(seen) == 3
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(pauses) == 2
    assert pauses[1] > 0.1


async def test_a_crashed_slot_is_chosen_last() -> None:
    """While it is tainted the other worker gets every call that comes alone."""
    async with tools_pool(size=2, crash_barrier=CrashBarrier(taint=30)) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"how": "exit"})
        await pool.ready()
        slot = caught.value.worker_id.rpartition(".")[0]
        [other] = [w.pid for w in pool.workers() if not w.id.startswith(slot + ".")]
        assert {await pool.execute("pid") for _ in range(10)} == {other}
        assert len(set(pids(pool))) == 2


async def test_a_taint_never_keeps_a_call_waiting(tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    async with tools_pool(size=2, crash_barrier=CrashBarrier(taint=30)) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("die", {"how": "exit"})
        await pool.ready()
        slot = caught.value.worker_id.rpartition(".")[0]
        async with anyio.create_task_group() as tasks:
            params = {"started": str(started), "release": str(release)}
            tasks.start_soon(pool.execute, "hold", params)
            await until(started.exists)
            [tainted] = [w.pid for w in pool.workers() if w.id.startswith(slot + ".")]
            assert await pool.execute("pid") == tainted
            release.touch()
