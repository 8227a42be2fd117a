"""Sessions in a pool of real workers: what is kept, where calls go, and what ends it."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from keeping import Keeping
from pool_kit import PATIENT, lines, pids, tools_pool, until
from test_queue import Gate

from snakepit import (
    ConfigError,
    Pool,
    PoolClosedError,
    PoolSaturatedError,
    Queue,
    QueueTimeoutError,
    Session,
    SessionBusyError,
    SessionLostError,
    SessionNotFoundError,
    Sessions,
    WorkerDiedError,
    open_pool,
)

pytestmark = one_loop_each

FOREVER_S = 3600
Ask = Callable[[Any], Awaitable[Any]]


def told_by(session: Session) -> Ask:
    return lambda value: session.execute("remember", {"value": value})


async def told(pool: Pool, session: str | None, value: Any) -> Any:
    return await pool.execute("remember", {"value": value}, session=session)


def session_counts(pool: Pool) -> list[int]:
    return [worker.sessions for worker in pool.workers()]


async def hold_in(session: Session, gate: Gate) -> Any:
    params = {"started": str(gate.started), "release": str(gate.release)}
    return await session.execute("hold", params)


# -- what is kept --------------------------------------------------------------------------------


async def test_calls_of_a_session_find_what_those_before_them_left_until_the_block_is_left() -> (
    None
):
    async with tools_pool(Keeping, size=2) as pool:
        before = pids(pool)
        async with pool.session("user_42") as session:
            assert (session.id, session.worker_id) == ("user_42", None)
            for number in range(1, 4):
                told_now = await session.execute("remember", {"value": number})
                assert told_now == list(range(1, number + 1))
            assert session.worker_id in [worker.id for worker in pool.workers()]
            assert await session.execute("whose") == "user_42"
            assert sorted(session_counts(pool)) == [0, 1]
            async with session.stream("recite", {"count": 2}) as numbers:
                assert [number async for number in numbers] == [1, 2]
            async with session.stream("recite", {"count": 2}) as numbers:
                assert [number async for number in numbers] == [3, 4]
            assert await pool.execute("whose") is None
            assert await told(pool, None, "alone") == ["alone"]
        assert session_counts(pool) == [0, 0]
        async with pool.session("user_42") as session:
            assert await session.execute("remember", {"value": "anew"}) == ["anew"]
        assert pids(pool) == before


async def test_a_session_without_a_name_has_one_that_nobody_else_has() -> None:
    async with tools_pool(Keeping) as pool, pool.session() as one, pool.session() as two:
        assert one.id != two.id
        assert await one.execute("whose") == one.id
        one.metadata["user"] = object()
        assert (list(one.metadata), two.metadata) == (["user"], {})
        assert repr(one) == f"<snakepit.Session {one.id!r} strict_queue: default-1.1>"
        assert repr(two) == f"<snakepit.Session {two.id!r} strict_queue: no worker yet>"


async def test_sessions_on_demand_last_until_they_are_ended() -> None:
    async with tools_pool(Keeping, size=2) as pool:
        for number in range(1, 4):
            assert await told(pool, "a", number) == list(range(1, number + 1))
            assert await told(pool, "b", number) == list(range(1, number + 1))
        async with pool.stream("recite", {"count": 2}, session="a") as numbers:
            assert [number async for number in numbers] == [1, 2]
        assert sum(session_counts(pool)) == 2
        await pool.end_session("a")
        assert sum(session_counts(pool)) == 1
        assert await told(pool, "a", "anew") == ["anew"]
        assert await told(pool, "b", "on") == [1, 2, 3, "on"]
        for unknown in ("c", "a " * 500):
            with pytest.raises(SessionNotFoundError):
                await pool.end_session(unknown)


async def test_an_id_joins_the_session_of_a_block_and_lives_in_its_worker() -> None:
    async with tools_pool(Keeping, size=2) as pool:
        async with pool.session("a") as session:
            assert await session.execute("remember", {"value": 1}) == [1]
            assert await told(pool, "a", 2) == [1, 2]
            assert await pool.execute("remember", {"value": 3}, session=session) == [1, 2, 3]
            with pytest.raises(SessionBusyError, match="held by a block"):
                await pool.end_session("a")
            with pytest.raises(SessionBusyError, match="open already"):
                async with pool.session("a"):
                    pass
        assert await told(pool, "a", 4) == [4]
        with pytest.raises(SessionBusyError, match="open already"):
            async with pool.session("a"):
                pass


async def test_typed_calls_maps_and_views_belong_to_the_session_as_well() -> None:
    async with tools_pool(Keeping, size=2) as pool:
        async with pool.session("a") as session:
            assert await session.call(Keeping.remember, 1) == [1]
            async with session.call_stream(Keeping.recite, count=2) as numbers:
                assert [number async for number in numbers] == [1, 2]
            values = [{"value": value} for value in range(2, 30)]
            async with session.map("remember", values) as results:
                found = [told_now async for told_now in results]
            assert found[-1] == list(range(1, 30))
            assert list(map(len, found)) == list(range(2, 30))
            assert await pool.bind(session=session).call(Keeping.whose) == "a"
            assert await pool.bind(session="a").execute("whose") == "a"
        view = pool.bind(session="on demand")
        assert "session='on demand'" in repr(view)
        async with view.stream("recite", {"count": 2}) as numbers:
            assert [number async for number in numbers] == [1, 2]
        async with view.map("whose", [{}]) as results:
            assert [name async for name in results] == ["on demand"]
        await pool.end_session("on demand")
        with pytest.raises(ConfigError, match="session="):
            pool.bind(session="")


async def test_after_its_block_a_session_takes_no_calls() -> None:
    async with tools_pool(Keeping) as pool:
        async with pool.session("a") as session:
            await session.execute("whose")
        with pytest.raises(SessionNotFoundError, match="ended with its block"):
            await session.execute("whose")
        with pytest.raises(SessionNotFoundError):
            async with session.stream("recite", {"count": 1}):
                pass
        async with tools_pool(Keeping) as other, other.session() as stranger:
            with pytest.raises(ConfigError, match="of this pool"):
                await pool.execute("whose", session=stranger)


@pytest.mark.parametrize("wrong", ["", "x" * 1001, "\ud800", b"a", 7])
async def test_what_cannot_be_an_id_is_refused(wrong: Any) -> None:
    async with open_pool(Keeping, size=1, min_ready=0) as pool:
        for ask in (pool.execute("whose", session=wrong), pool.end_session(wrong)):
            with pytest.raises(ConfigError, match="session="):
                await ask
        with pytest.raises(ConfigError, match="session="):
            async with pool.session(wrong):
                pass


async def test_wrong_options_are_refused() -> None:
    async with open_pool(Keeping, size=1, min_ready=0) as pool:
        for options in ({"affinity": "loose"}, {"ttl": 0}, {"ttl": dt.timedelta(0)}, {"ttl": True}):
            with pytest.raises(ConfigError, match=next(iter(options))):
                async with pool.session("a", **options):  # type: ignore[arg-type]
                    pass
        assert len(pool._core.sessions) == 0


async def test_the_longest_id_that_there_may_be_arrives() -> None:
    longest = "\N{SNAKE}" * 1000
    async with tools_pool(Keeping) as pool:
        assert await pool.execute("whose", session=longest) == longest


# -- where calls go ------------------------------------------------------------------------------


async def test_a_hint_runs_elsewhere_if_its_worker_is_busy_and_moves_there(tmp_path: Path) -> None:
    """It finds nothing there, nor when it comes back: what it left behind has been dropped."""
    gate = Gate(tmp_path)
    async with (
        tools_pool(Keeping, size=2) as pool,
        pool.session("a", affinity="hint") as session,
        anyio.create_task_group() as tasks,
    ):
        for number in (1, 2, 3):
            assert len(await session.execute("remember", {"value": number})) == number
        home = session.worker_id
        tasks.start_soon(hold_in, session, gate)
        await gate.held()
        assert await session.execute("remember", {"value": "moved"}) == ["moved"]
        assert session.worker_id not in (home, None)
        assert await session.execute("remember", {"value": "on"}) == ["moved", "on"]
        gate.open()
        await until(lambda: pool.stats().busy == 0)
        second = Gate(tmp_path, "second")
        tasks.start_soon(hold_in, session, second)
        await second.held()
        assert await session.execute("remember", {"value": "back"}) == ["back"]
        assert session.worker_id == home
        second.open()


async def test_a_strict_call_waits_for_its_worker_although_another_idles(tmp_path: Path) -> None:
    """And does not hold up anybody else."""
    gate = Gate(tmp_path)
    done: list[str] = []
    async with (
        tools_pool(Keeping, size=2) as pool,
        pool.session("a") as session,
        anyio.create_task_group() as tasks,
    ):
        [[_, home]] = [await session.execute("remember_where", {"value": 1})]

        async def wait() -> None:
            assert await session.execute("remember_where", {"value": 2}) == ([1, 2], home)
            done.append("strict")

        tasks.start_soon(hold_in, session, gate)
        await gate.held()
        tasks.start_soon(wait)
        await until(lambda: pool.stats().queued == 1)
        for _ in range(20):
            assert await pool.execute("pid") != home
        assert (done, pool.stats().queued) == ([], 1)
        gate.open()


async def test_a_fail_fast_call_is_refused_while_its_worker_is_busy(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    options = Sessions(affinity="strict_fail_fast")
    async with (
        tools_pool(Keeping, size=2, sessions=options) as pool,
        anyio.create_task_group() as tasks,
        pool.session("a", affinity="strict_fail_fast") as session,
    ):
        await session.execute("whose")
        tasks.start_soon(hold_in, session, gate)
        await gate.held()
        with pytest.raises(SessionBusyError) as caught:
            await session.execute("whose")
        assert caught.value.session_id == "a"
        assert await told(pool, "b", 1) == [1]  # its own worker idles
        gate.open()
        await until(lambda: pool.stats().busy == 0)
        assert await session.execute("remember", {"value": 1}) == [1]


@pytest.mark.parametrize("affinity", ["strict_queue", "hint"])
async def test_calls_of_a_strict_session_run_in_their_order_under_any_load(affinity: str) -> None:
    """Hundreds of short calls, sent ahead, asked back and mixed with long ones and others."""
    sessions, calls = 12, 40
    where: dict[int, set[int]] = {number: set() for number in range(sessions)}
    last: dict[int, list[int]] = {}
    async with tools_pool(Keeping, size=2) as pool, anyio.create_task_group() as blocks:

        async def use(number: int) -> None:
            async with (
                pool.session(affinity=affinity) as session,
                anyio.create_task_group() as tasks,
            ):

                async def ask(value: int) -> None:
                    params = {"value": value}
                    found, pid = await session.execute("remember_where", params)
                    where[number].add(pid)
                    if affinity == "strict_queue":
                        assert found == list(range(value + 1))
                    last[number] = found

                for value in range(calls):
                    tasks.start_soon(ask, value)
                    await anyio.lowlevel.checkpoint()  # so that they come in this order
                    if value % 13 == 0:
                        blocks.start_soon(pool.execute, "echo", {"value": value})
                        blocks.start_soon(pool.execute, "add", {"left": value})

        for number in range(sessions):
            blocks.start_soon(use, number)
        await until(lambda: len(last) == sessions)
    assert len(set().union(*where.values())) == 2
    if affinity == "strict_queue":
        assert all(len(pids_seen) == 1 for pids_seen in where.values())


async def test_pinned_calls_count_for_the_queue_and_its_timeout(tmp_path: Path) -> None:
    gate, queue = Gate(tmp_path), Queue(max_size=2, timeout=0.2)
    outcomes: list[str] = []
    async with (
        tools_pool(Keeping, size=2, queue=queue) as pool,
        pool.session("a") as session,
        anyio.create_task_group() as tasks,
    ):

        async def ask() -> None:
            try:
                await session.execute("note", {"log": str(tmp_path / "log"), "text": "ran"})
            except (QueueTimeoutError, PoolSaturatedError) as error:
                outcomes.append(type(error).__name__)

        tasks.start_soon(hold_in, session, gate)
        await gate.held()
        for _ in range(3):
            tasks.start_soon(ask)
        await until(lambda: len(outcomes) == 3)
        assert outcomes == ["PoolSaturatedError", "QueueTimeoutError", "QueueTimeoutError"]
        stats = pool.stats()
        assert (stats.saturated, stats.queue_timeouts, stats.queued) == (1, 2, 0)
        gate.open()
    assert lines(tmp_path / "log") == []


async def test_as_many_sessions_as_are_allowed_and_no_worker_is_harmed() -> None:
    async with tools_pool(Keeping, size=2, sessions=Sessions(max=3)) as pool:
        before = pids(pool)
        for name in "abc":
            await told(pool, name, 1)
        for _ in range(50):
            with pytest.raises(PoolSaturatedError, match=r"Sessions\.max=3"):
                await told(pool, "d", 1)
            with pytest.raises(PoolSaturatedError):
                async with pool.session():
                    pass
        assert [await told(pool, name, 2) for name in "abc"] == [[1, 2]] * 3
        await pool.end_session("b")
        assert await told(pool, "d", 1) == [1]
        assert pids(pool) == before
        assert pool.stats().restarts == 0


@pytest.mark.unmeasured
@pytest.mark.timeout(120)
@pytest.mark.unmeasured
async def test_ten_thousand_live_sessions_share_two_workers() -> None:
    """All live at once on a real pool; each finds what it left, and one more is refused."""
    count, chunk = 10_000, 500
    async with open_pool(Keeping, size=2, min_ready=2, stop=PATIENT) as pool:
        before = pids(pool)

        async def use(start: int, length: int) -> None:
            for number in range(start, start + chunk):
                assert len(await told(pool, f"s{number}", number)) == length

        async with anyio.create_task_group() as tasks:
            for start in range(0, count, chunk):
                tasks.start_soon(use, start, 1)
        assert sum(session_counts(pool)) == count
        with pytest.raises(PoolSaturatedError):
            await told(pool, "one more", 1)
        await use(0, 2)
        for number in range(100):
            await pool.end_session(f"s{number}")
        assert sum(session_counts(pool)) == count - 100
        assert pids(pool) == before


# -- calls that end otherwise --------------------------------------------------------------------


@pytest.mark.parametrize("affinity", ["hint", "strict_queue", "strict_fail_fast"])
async def test_a_cancelled_call_does_not_end_its_session(affinity: str, tmp_path: Path) -> None:
    async with tools_pool(Keeping, size=2) as pool, pool.session("a", affinity=affinity) as session:
        await session.execute("remember", {"value": 1})
        with anyio.move_on_after(0.1) as scope:
            await session.execute("sleep", {"started": str(tmp_path / "started")})
        assert scope.cancelled_caught
        assert await session.execute("remember", {"value": 2}) == [1, 2]


async def test_waiting_calls_of_a_session_can_be_cancelled(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    async with (
        tools_pool(Keeping, size=2) as pool,
        pool.session("a") as session,
        anyio.create_task_group() as tasks,
    ):
        await session.execute("remember", {"value": 1})
        tasks.start_soon(hold_in, session, gate)
        await gate.held()
        for _ in range(3):
            with anyio.move_on_after(0.02):
                await session.execute("remember", {"value": "never"})
        assert pool.stats().queued == 0
        gate.open()
        assert await session.execute("remember", {"value": 2}) == [1, 2]


async def test_leaving_the_block_stops_what_other_tasks_run_in_it(tmp_path: Path) -> None:
    """Running, waiting and streaming calls; they have stopped when it is left, the worker lives."""
    outcomes: list[str] = []
    log, started = tmp_path / "log", tmp_path / "started"
    async with tools_pool(Keeping, size=2) as pool, anyio.create_task_group() as tasks:
        before = pids(pool)
        async with pool.session("a") as session, pool.session("b") as other:

            async def read() -> None:
                async with other.stream("count", {"stop": 10**9, "log": str(log)}) as numbers:
                    await anext(numbers)
                    started.touch()
                    with pytest.raises(SessionNotFoundError):
                        async for _ in numbers:
                            await anyio.lowlevel.checkpoint()
                outcomes.append("stream")

            async def call(tool: str, params: dict[str, Any]) -> None:
                with pytest.raises(SessionNotFoundError, match="ended with its block"):
                    await session.execute(tool, params)
                outcomes.append(tool)

            await session.execute("remember", {"value": 1})
            tasks.start_soon(call, "sleep", {"started": str(tmp_path / "asleep")})
            await until((tmp_path / "asleep").exists)
            tasks.start_soon(call, "remember", {"value": "never"})
            tasks.start_soon(read)
            await until(started.exists)
        assert lines(log)[-1] == "closed"
        assert sum(session_counts(pool)) == 0
        await until(lambda: len(outcomes) == 3)
        assert sorted(outcomes) == ["remember", "sleep", "stream"]
        assert await told(pool, "a", "anew") == ["anew"]
        assert pids(pool) == before


@pytest.mark.parametrize("how", ["error", "cancelled", "at once"])
async def test_however_its_block_is_left_the_session_is_over(how: str) -> None:
    async with tools_pool(Keeping) as pool:
        with anyio.CancelScope() as scope:
            try:
                async with pool.session("a") as session:
                    if how != "at once":
                        await session.execute("remember", {"value": 1})
                    if how == "error":
                        raise LookupError("the body's own")
                    if how == "cancelled":
                        scope.cancel()
                        await anyio.sleep(FOREVER_S)
            except LookupError as error:
                assert str(error) == "the body's own"
                assert how == "error"
        assert scope.cancelled_caught is (how == "cancelled")
        assert (len(pool._core.sessions), session_counts(pool)) == (0, [0])
        assert await told(pool, "a", 2) == [2]


async def test_ending_a_session_on_demand_stops_its_calls(tmp_path: Path) -> None:
    """While they stop its id is taken; then it is free."""
    ended: list[str] = []
    async with tools_pool(Keeping) as pool, anyio.create_task_group() as tasks:

        async def call() -> None:
            params = {"log": str(tmp_path / "log"), "seconds": 0.3}
            with pytest.raises(SessionNotFoundError, match="was ended"):
                await pool.execute("slow_to_stop", params, session="a")
            ended.append("call")

        async def end() -> None:
            await pool.end_session("a")
            ended.append("session")

        tasks.start_soon(call)
        await until((tmp_path / "log").exists)
        tasks.start_soon(end)
        await until(lambda: "stopping" in lines(tmp_path / "log"))
        with pytest.raises(SessionBusyError, match="being ended"):
            await told(pool, "a", 1)
        await until(lambda: len(ended) == 2)
        assert lines(tmp_path / "log")[-1] == "stopped"
        assert await told(pool, "a", 1) == [1]
        assert pool.stats().restarts == 0


async def test_a_pool_that_closes_ends_its_sessions(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    outcomes: list[str] = []
    async with anyio.create_task_group() as tasks:

        async def use(pool: Pool) -> None:
            async with pool.session("a") as session:
                await session.execute("remember", {"value": 1})
                async with anyio.create_task_group() as calls:

                    async def ask(tool: str, params: dict[str, Any]) -> None:
                        with pytest.raises(PoolClosedError):
                            await session.execute(tool, params)
                        outcomes.append(tool)

                    params = {"started": str(gate.started), "release": str(gate.release)}
                    calls.start_soon(ask, "hold", params)
                    await gate.held()
                    calls.start_soon(ask, "remember", {"value": 2})
                with pytest.raises(PoolClosedError):
                    async with pool.session("b"):
                        pass
            outcomes.append("left")

        async with tools_pool(Keeping, size=2, stop=PATIENT) as pool:
            tasks.start_soon(use, pool)
            await until(lambda: pool.stats().queued == 1)
    assert sorted(outcomes) == ["hold", "left", "remember"]


# -- death ---------------------------------------------------------------------------------------


async def test_a_dead_worker_takes_its_strict_sessions_along_and_no_others(tmp_path: Path) -> None:
    """The running call dies, waiting and later ones are lost; never another worker's answer."""
    gate = Gate(tmp_path)
    outcomes: list[str] = []
    async with tools_pool(Keeping, size=2) as pool, anyio.create_task_group() as tasks:
        async with pool.session("a") as doomed, pool.session("b") as other:
            await doomed.execute("remember", {"value": 1})
            await other.execute("remember", {"value": 1})
            home = doomed.worker_id
            assert other.worker_id != home

            async def call(tool: str, params: dict[str, Any]) -> None:
                try:
                    await doomed.execute(tool, params)
                except (WorkerDiedError, SessionLostError) as error:
                    outcomes.append(f"{tool}: {type(error).__name__} {error.worker_id}")

            params = {"started": str(gate.started), "release": str(gate.release)}
            tasks.start_soon(call, "hold_then_die", params)
            await gate.held()
            for _ in range(3):
                tasks.start_soon(call, "remember", {"value": 2})
            await until(lambda: pool.stats().queued == 3)
            gate.open()
            await until(lambda: len(outcomes) == 4)
            assert sorted(outcomes) == [
                f"hold_then_die: WorkerDiedError {home}",
                *[f"remember: SessionLostError {home}"] * 3,
            ]
            for _ in range(2):
                with pytest.raises(SessionLostError) as caught:
                    await doomed.execute("remember", {"value": 3})
                assert (caught.value.session_id, caught.value.worker_id) == ("a", home)
                with pytest.raises(SessionLostError):
                    await told(pool, "a", 3)
            assert doomed.worker_id == home
            assert await other.execute("remember", {"value": 2}) == [1, 2]
        async with pool.session("a") as session:
            assert await session.execute("remember", {"value": "anew"}) == ["anew"]


async def test_the_death_of_an_idle_worker_loses_its_sessions_as_well() -> None:
    async with tools_pool(Keeping, size=1) as pool, pool.session("a") as session:
        await session.execute("remember", {"value": 1})
        [pid] = pids(pool)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.stats().restarts == 1 and pool.stats().workers == 1)
        with pytest.raises(SessionLostError):
            await session.execute("remember", {"value": 2})


async def test_a_strict_session_on_demand_is_lost_once_and_then_begins_anew() -> None:
    options = Sessions(affinity="strict_queue")
    async with tools_pool(Keeping, size=2, sessions=options) as pool:
        for how in ("told", "ended"):
            await told(pool, "a", 1)
            with pytest.raises(WorkerDiedError):
                await pool.execute("die", {"how": "exit"}, session="a")
            if how == "told":
                with pytest.raises(SessionLostError):
                    await told(pool, "a", 2)
            else:
                await pool.end_session("a")
            assert await told(pool, "a", 3) == [3]
            await pool.end_session("a")


async def test_a_hint_survives_its_worker_without_its_state() -> None:
    async with tools_pool(Keeping, size=2) as pool, pool.session(affinity="hint") as session:
        assert await told_by(session)(1) == [1]
        with pytest.raises(WorkerDiedError):
            await session.execute("die", {"how": "kill"})
        assert await told_by(session)(2) == [2]
        assert await told_by(session)(3) == [2, 3]


@pytest.mark.parametrize("affinity", ["hint", "strict_queue"])
async def test_an_idempotent_call_is_repeated_elsewhere_only_if_its_session_may_move(
    affinity: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with tools_pool(Keeping, size=2) as pool:
        with pytest.raises(WorkerDiedError):
            async with pool.session("a", affinity=affinity) as session:
                await session.execute("die_wherever_it_runs", {"log": str(log)})
    assert len(lines(log)) == (2 if affinity == "hint" else 1)


async def test_calls_of_a_session_that_has_nothing_to_lose_go_on_elsewhere(tmp_path: Path) -> None:
    """It waited for its worker and had no call there yet when that died."""
    gate = Gate(tmp_path)
    found: list[Any] = []
    async with tools_pool(Keeping, size=1) as pool, anyio.create_task_group() as tasks:

        async def die() -> None:
            params = {"started": str(gate.started), "release": str(gate.release)}
            with pytest.raises(WorkerDiedError):
                await pool.execute("hold_then_die", params)

        async def use() -> None:
            async with pool.session() as session, anyio.create_task_group() as calls:

                async def ask(value: int) -> None:
                    found.append(await session.execute("remember", {"value": value}))

                for value in range(3):
                    calls.start_soon(ask, value)
                    await anyio.lowlevel.checkpoint()

        tasks.start_soon(die)
        await gate.held()
        tasks.start_soon(use)
        await until(lambda: pool.stats().queued == 3)
        gate.open()
    assert sorted(map(len, found)) == [1, 2, 3]  # trio wakes those of one turn in any order


async def test_sessions_wait_for_the_first_worker_to_be_ready() -> None:
    async with open_pool(Keeping, size=1, min_ready=0) as pool:
        found: list[Any] = []

        async def ask(session: Session, value: int) -> None:
            found.append(await session.execute("remember", {"value": value}))

        async with pool.session() as session, anyio.create_task_group() as tasks:
            for value in range(3):
                tasks.start_soon(ask, session, value)
                await anyio.lowlevel.checkpoint()
            assert pool.stats().workers == 0
        assert sorted(map(len, found)) == [1, 2, 3]
        assert found[0][0] == 0
