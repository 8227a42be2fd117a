"""Waiting for a worker: how many may, how long, and that what was refused never ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from adapters import BadStart
from pool_kit import PATIENT, lines, tools_pool, until

from snakepit import (
    CallTimeoutError,
    Pool,
    PoolSaturatedError,
    PoolStats,
    Queue,
    QueueTimeoutError,
    ToolError,
    open_pool,
)

pytestmark = one_loop_each


class Gate:
    """One call that keeps a worker busy until `open()`."""

    def __init__(self, folder: Path, name: str = "gate") -> None:
        self.started, self.release = folder / f"{name}.started", folder / f"{name}.release"

    async def hold(self, pool: Pool) -> int:
        params = {"started": str(self.started), "release": str(self.release)}
        pid: int = await pool.execute("hold", params)
        return pid

    async def held(self) -> None:
        await until(self.started.exists)

    def open(self) -> None:
        self.release.touch()


async def test_calls_past_the_queue_s_bound_are_refused_and_never_run(tmp_path: Path) -> None:
    """Of 10 calls behind a busy worker 3 wait and 7 are refused: exactly, and at once."""
    log, gate = tmp_path / "log", Gate(tmp_path)
    refused: list[str] = []
    async with tools_pool(queue=Queue(max_size=3), name="narrow") as pool:

        async def call(text: str) -> None:
            try:
                await pool.execute("note", {"log": str(log), "text": text})
            except PoolSaturatedError as error:
                assert "max_size=3" in error.message
                assert "'narrow'" in error.message
                refused.append(text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gate.hold, pool)
            await gate.held()
            for number in range(10):
                tasks.start_soon(call, f"{number}")
            await anyio.wait_all_tasks_blocked()
            assert len(refused) == 7
            assert pool.stats().queued == 3
            gate.open()
        stats = pool.stats()
        assert (stats.saturated, stats.requests, stats.errors) == (7, 4, 0)
    assert sorted(lines(log) + refused) == [f"{number}" for number in range(10)]
    assert len(lines(log)) == 3


async def test_a_queue_of_no_places_still_lets_idle_workers_be_used(tmp_path: Path) -> None:
    gates = [Gate(tmp_path, f"{number}") for number in range(2)]
    async with tools_pool(size=2, queue=Queue(max_size=0)) as pool:
        assert await pool.execute("echo", {"value": 1}) == 1
        async with anyio.create_task_group() as tasks:
            for gate in gates:
                tasks.start_soon(gate.hold, pool)
                await gate.held()
            with pytest.raises(PoolSaturatedError):
                await pool.execute("echo")
            for gate in gates:
                gate.open()
        assert await pool.execute("echo", {"value": 2}) == 2


async def test_calls_that_were_sent_ahead_count_as_waiting() -> None:
    """Where they wait is no business of the caller's: the bound is the same."""
    async with tools_pool(queue=Queue(max_size=5)) as pool:
        for _ in range(50):
            await pool.execute("echo")
        refused = 0
        answered = 0

        async def call() -> None:
            nonlocal refused, answered
            try:
                await pool.execute("echo")
                answered += 1
            except PoolSaturatedError:
                refused += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(call)
        assert (answered, refused) == (6, 14)


async def test_cancelled_calls_make_room_in_a_full_queue(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    async with tools_pool(queue=Queue(max_size=4)) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(gate.hold, pool)
        await gate.held()
        async with anyio.create_task_group() as waiting:
            for _ in range(4):
                waiting.start_soon(pool.execute, "echo")
            await until(lambda: pool.stats().queued == 4)
            with pytest.raises(PoolSaturatedError):
                await pool.execute("echo")
            waiting.cancel_scope.cancel()
        tasks.start_soon(pool.execute, "echo")
        await until(lambda: pool.stats().queued == 1)
        gate.open()


async def test_the_first_live_call_in_line_runs_next(tmp_path: Path) -> None:
    """The head of the queue is cancelled while a worker comes back: the next one is served."""
    log, gate = tmp_path / "log", Gate(tmp_path)
    async with tools_pool() as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(gate.hold, pool)
        await gate.held()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(pool.execute, "note", {"log": str(log), "text": "dead"})
                await until(lambda: pool.stats().queued == 1)
                for place, text in ((2, "a"), (3, "b")):
                    tasks.start_soon(pool.execute, "note", {"log": str(log), "text": text})
                    await until(lambda place=place: pool.stats().queued == place)
                gate.open()
                scope.cancel()
    assert lines(log) == ["a", "b"]


async def test_calls_are_served_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    log, gate = tmp_path / "log", Gate(tmp_path)
    async with tools_pool() as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(gate.hold, pool)
        await gate.held()
        for number in range(20):
            tasks.start_soon(pool.execute, "note", {"log": str(log), "text": f"{number}"})
            await until(lambda number=number: pool.stats().queued == number + 1)
        gate.open()
    assert lines(log) == [f"{number}" for number in range(20)]


async def test_a_call_that_waited_too_long_never_runs(tmp_path: Path) -> None:
    """One worker, five places, ten calls, 0.1 s: five are refused, five time out, none runs."""
    log, gate = tmp_path / "log", Gate(tmp_path)
    outcomes: list[BaseException] = []
    async with tools_pool(queue=Queue(max_size=5, timeout=0.1)) as pool:

        async def call(number: int) -> None:
            with pytest.raises((QueueTimeoutError, PoolSaturatedError)) as caught:
                await pool.execute("note", {"log": str(log), "text": f"{number}"})
            outcomes.append(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gate.hold, pool)
            await gate.held()
            for number in range(10):
                tasks.start_soon(call, number)
            await until(lambda: len(outcomes) == 10)
            gate.open()
        await pool.execute("note", {"log": str(log), "text": "later"})
        stats = pool.stats()
    assert lines(log) == ["later"]
    late = [error for error in outcomes if isinstance(error, QueueTimeoutError)]
    assert {(error.tool, error.timeout) for error in late} == {("note", 0.1)}
    assert all(isinstance(error, TimeoutError) for error in late)
    assert (len(late), len(outcomes)) == (5, 10)
    assert (stats.queue_timeouts, stats.saturated, stats.errors) == (5, 5, 5)


async def test_the_queue_s_clock_stops_when_the_call_begins() -> None:
    """A call that runs longer than `Queue.timeout` is left alone."""
    async with tools_pool(queue=Queue(timeout=0.05)) as pool:
        await pool.execute("sleep", {"started": "/dev/null", "seconds": 0.2})
        assert pool.stats().queue_timeouts == 0


async def test_the_queue_s_clock_does_not_run_before_a_worker_was_ever_ready(
    tmp_path: Path,
) -> None:
    """A slow start is no fault of the caller's: it waits four times as long, and is served."""
    mark = tmp_path / "mark"
    Path(f"{mark}.d").mkdir()
    answers: list[int] = []
    with anyio.fail_after(20):
        async with open_pool(
            BadStart,
            size=1,
            min_ready=0,
            adapter_args=("slow second", str(mark)),
            queue=Queue(timeout=0.1),
        ) as pool:

            async def call() -> None:
                answers.append(await pool.execute("pid"))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await anyio.sleep(0.4)
                assert answers == []
                assert pool.stats().queue_timeouts == 0
                Path(f"{mark}.release").touch()
            assert answers == [pool.workers()[0].pid]


async def test_the_queue_s_clock_starts_when_the_first_worker_is_ready(tmp_path: Path) -> None:
    """For calls that had come before: the one behind a busy worker times out then."""
    mark, gate, log = tmp_path / "mark", Gate(tmp_path), tmp_path / "log"
    with anyio.fail_after(20):
        async with open_pool(
            "adapters:SlowTools",
            size=1,
            min_ready=0,
            adapter_args=(str(mark),),
            queue=Queue(timeout=0.15),
        ) as pool:

            async def late() -> None:
                with pytest.raises(QueueTimeoutError):
                    await pool.execute("note", {"log": str(log), "text": "ran"})
                gate.open()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gate.hold, pool)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(late)
                await anyio.sleep(0.3)
                assert pool.stats().queue_timeouts == 0
                mark.touch()
            assert pool.stats().queue_timeouts == 1
    assert lines(log) == []


async def test_the_timeout_of_a_call_includes_its_waiting(tmp_path: Path) -> None:
    """Its budget is spent before it begins: QueueTimeoutError, with its own timeout."""
    log, gate = tmp_path / "log", Gate(tmp_path)
    async with tools_pool() as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(gate.hold, pool)
        await gate.held()
        with pytest.raises(QueueTimeoutError) as caught:
            await pool.execute("note", {"log": str(log), "text": "ran"}, timeout=0.05)
        assert caught.value.timeout == 0.05
        gate.open()
        await pool.execute("pid")
    assert lines(log) == []


# Whose timeout counts


async def test_the_call_s_timeout_goes_before_the_tool_s_and_that_before_the_pool_s() -> None:
    """Each is replaced by the nearer one, shorter or longer; a tool may see what is left."""
    params = {"started": "/dev/null"}
    async with tools_pool(call_timeout=0.3) as pool:
        for tool, timeout, expected in (
            ("sleep", None, 0.3),
            ("sleep_with_timeout", None, 0.2),
            ("sleep_with_timeout", 0.1, 0.1),
            ("sleep", 0.4, 0.4),
        ):
            with pytest.raises(CallTimeoutError) as caught:
                await pool.execute(tool, params, timeout=timeout)
            assert (caught.value.tool, caught.value.timeout) == (tool, expected)
        left = await pool.execute("deadline", timeout=50)
        assert 30 < left <= 50
    async with tools_pool(call_timeout=60) as pool:
        left = await pool.execute("deadline")
        assert 40 < left <= 60
    async with tools_pool() as pool:
        assert await pool.execute("deadline") is None


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1", True])
async def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    async with tools_pool() as pool:
        with pytest.raises(ValueError, match="timeout="):
            await pool.execute("pid", timeout=timeout)
        with pytest.raises(ValueError, match="timeout="):
            async with pool.stream("count", {"stop": 1}, timeout=timeout):
                pytest.fail("the block was entered")
        assert pool.stats().requests == 0


def test_the_preset_for_services_is_what_is_documented() -> None:
    assert Queue(max_size=1000, timeout=5.0) == Queue.SERVICE
    assert Queue() == Queue(max_size=None, timeout=None)


async def test_the_preset_for_services_takes_a_thousand_and_no_more(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    async with tools_pool(queue=Queue.SERVICE) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(gate.hold, pool)
        await gate.held()
        async with anyio.create_task_group() as waiting:
            for _ in range(1000):
                waiting.start_soon(pool.execute, "echo")
            await until(lambda: pool.stats().queued == 1000)
            with pytest.raises(PoolSaturatedError):
                await pool.execute("echo")
            waiting.cancel_scope.cancel()
        gate.open()


# Counters


async def test_the_counters_tell_what_happened_and_what_is(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    async with tools_pool(size=2, stop=PATIENT, transport="stdio") as pool:
        assert pool.stats() == PoolStats(
            requests=0,
            errors=0,
            queued=0,
            queue_timeouts=0,
            saturated=0,
            workers=2,
            available=2,
            busy=0,
            restarts=0,
            transport="stdio",
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gate.hold, pool)
            await gate.held()
            stats = pool.stats()
            assert (stats.requests, stats.available, stats.busy) == (1, 1, 1)
            gate.open()
        with pytest.raises(ToolError):
            await pool.execute("die", {"how": "not at all"})
        for _ in range(3):
            await pool.execute("echo")
        stats = pool.stats()
        assert (stats.requests, stats.errors, stats.busy, stats.available) == (5, 1, 0, 2)
        assert sum(worker.requests for worker in pool.workers()) == 5


async def test_hundreds_of_callers_on_few_workers_all_get_their_own_answer() -> None:
    """20 clients with 25 calls each on 3 workers, and the counters agree."""
    answers: list[tuple[int, int, int]] = []
    async with tools_pool(size=3) as pool:

        async def client(number: int) -> None:
            for turn in range(25):
                value = await pool.execute("echo", {"value": (number, turn)})
                answers.append((*value, len(answers)))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(client, number)
        assert sorted(answer[:2] for answer in answers) == [
            (number, turn) for number in range(20) for turn in range(25)
        ]
        stats = pool.stats()
        assert (stats.requests, stats.errors, stats.queued, stats.busy) == (500, 0, 0, 0)
        assert sum(worker.requests for worker in pool.workers()) == 500
