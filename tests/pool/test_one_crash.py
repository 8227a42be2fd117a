"""One crash, one call: in whatever way a worker dies, only the call that it was running fails.

On every transport that has a process: one that is added to `TRANSPORTS` is in all of this.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from _transports import OF_PROCESSES
from adapters import BadStart
from dying import WAYS, Dying
from pool_kit import lines, pids, tools_pool, until
from test_bystanders import send_ahead

from snakepit import (
    CallQuarantinedError,
    CrashBarrier,
    Pool,
    PoolBrokenError,
    Session,
    WorkerDiedError,
    WorkerStartError,
    open_pool,
)
from snakepit.pool import _core, _seat
from snakepit.process._oom import oom_kills

PATIENT = CrashBarrier(max_restarts=1000)
# Each way is tried on each transport once; where all that differs is what the host does, in turns.
TURNS = [(t, list(WAYS)[n % 2 :: 2]) for n, t in enumerate(OF_PROCESSES)]
in_turns = pytest.mark.parametrize(("transport", "ways"), TURNS, ids=OF_PROCESSES)
on_each_transport = pytest.mark.parametrize("transport", OF_PROCESSES)


@one_loop_each
@on_each_transport
async def test_a_crash_harms_no_other_call_and_no_session(transport: str, tmp_path: Path) -> None:
    """In each way to die: a neighbour's session and its call go on, and so do all that wait."""
    async with tools_pool(Dying, size=2, transport=transport, crash_barrier=PATIENT) as pool:
        for how in WAYS:
            folder = tmp_path / how
            folder.mkdir()
            await pool.ready()
            async with pool.session() as session:
                assert await session.execute("learn", {"word": how}) == [how]
                home = session.worker_id
                await _crash_beside(pool, session, how, folder)
                assert await session.execute("learn", {"word": "more"}) == [how, "more"]
                assert session.worker_id == home
        assert pool.stats().errors == pool.stats().restarts == len(WAYS)


async def _crash_beside(pool: Pool, session: Session, how: str, folder: Path) -> None:
    """A call that dies, beside one of the session that goes on, with others in line."""
    release, holding, doomed = (str(folder / name) for name in ("release", "holding", "doomed"))
    log = folder / "log"

    async def hold() -> None:
        params = {"started": holding, "release": release}
        assert await session.execute("hold", params) == [how]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await until(lambda: os.path.exists(holding))
        params = {"started": doomed, "release": release, "how": how}
        tasks.start_soon(_expect_death, pool, params, how)
        await until(lambda: os.path.exists(doomed))
        for number in range(4):
            tasks.start_soon(pool.execute, "note", {"log": str(log), "text": f"{number}"})
        await until(lambda: pool.stats().queued == 4)
        Path(release).touch()
    assert sorted(lines(log)) == ["0", "1", "2", "3"]


async def _expect_death(pool: Pool, params: dict[str, Any], how: str) -> None:
    with pytest.raises(WorkerDiedError) as caught:
        await pool.execute("wait_and_die", params)
    _, exit_code, number = WAYS[how]
    assert (caught.value.exit_code, caught.value.signal) == (exit_code, number)
    assert (caught.value.reason, caught.value.started) == ("died", True)


@one_loop_each
@in_turns
async def test_what_was_said_before_the_death_counts(transport: str, ways: list[str]) -> None:
    """In each way to die: every item of a stream, and the progress, sent at the last moment.

    Over gRPC a thread of the worker has them yet to send: there it is those up to some point.
    """
    all_counts = transport != "grpc"
    async with tools_pool(Dying, transport=transport, crash_barrier=PATIENT) as pool:
        for how in ways:
            taken: list[int] = []
            await pool.execute(
                "echo"
            )  # a start that was good for something: the next one is at once
            with pytest.raises(WorkerDiedError):
                async with pool.stream(
                    "count_and_die", {"stop": 30, "how": how}, window=64
                ) as items:
                    async for item in items:
                        taken += [item]
            assert taken == list(range(30) if all_counts else range(len(taken)))

        for how in ways[:1]:
            await pool.execute("echo")
            told: list[Any] = []
            with pytest.raises(WorkerDiedError):
                await pool.execute("die", {"how": how}, on_progress=partial(_tell, told))
            assert told == [(1, 2, "about to die")] or (told == [] and not all_counts)


def _tell(told: list[Any], *update: Any) -> None:
    told.append(update)


@pytest.mark.blocking_ok(
    "the loop is held up on purpose, so that the death comes before the reader"
)
@one_loop_each
@on_each_transport
async def test_a_result_that_was_written_counts(transport: str) -> None:
    async with tools_pool(Dying, transport=transport) as pool:
        [pid] = pids(pool)
        values: list[Any] = []

        async def call() -> None:
            values.append(await pool.execute("echo", {"value": "in time"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until(lambda: pool.stats().busy or values)
            _let_it_answer_and_end(pid)
        assert values == ["in time"]
        await until(lambda: {worker.pid for worker in pool.workers()} - {pid, None})
        assert await pool.execute("pid") != pid


def _let_it_answer_and_end(pid: int) -> None:
    import time

    time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@one_loop_each
@in_turns
async def test_calls_that_were_sent_ahead_run_elsewhere_and_once(
    transport: str, ways: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each way to die. They keep their order, and only the one that died is suspect."""
    for module in (_seat, _core):  # a call that runs for long is waited for all the same
        monkeypatch.setattr(module, "OVERDUE_S", 1000.0)
    async with tools_pool(Dying, transport=transport, crash_barrier=PATIENT) as pool:
        for turn, how in enumerate(ways):
            log, release, doomed = (tmp_path / f"{name}{turn}" for name in ("log", "rel", "doom"))
            await pool.execute("echo")
            send_ahead(pool)
            async with anyio.create_task_group() as tasks:
                params = {"started": str(doomed), "release": str(release), "how": how}
                tasks.start_soon(_expect_death, pool, params, how)
                await until(doomed.exists)
                for number in range(4):
                    params = {"log": str(log), "text": f"{number}"}
                    tasks.start_soon(pool.execute, "note", params)
                    await until(lambda: pool._core.scheduler.prefetched == number + 1)  # noqa: B023 - at once
                release.touch()
            assert lines(log) == ["0", "1", "2", "3"]
            assert len(pool._core.suspects.known) == turn + 1


@one_loop_each
@on_each_transport
async def test_a_call_that_kills_is_not_run_again(transport: str) -> None:
    """Also one with a large argument, of which a part travels beside the message."""
    barrier = CrashBarrier(quarantine_after=2)
    async with tools_pool(Dying, transport=transport, crash_barrier=barrier) as pool:
        for ballast in (b"", bytes(3 * 2**20)):
            await pool.execute("echo")
            call = {"how": "SIGSEGV", "ballast": ballast}
            for _ in range(2):
                with pytest.raises(WorkerDiedError):
                    await pool.execute("die_of", call)
            with pytest.raises(CallQuarantinedError):
                await pool.execute("die_of", call)
            assert await pool.execute("echo", {"value": len(ballast)}) == len(ballast)


@one_loop_each
@pytest.mark.parametrize(("transport", "how"), [("stdio", "SIGKILL"), ("grpc", "_exit")])
async def test_an_answer_to_a_call_that_killed_clears_it(
    transport: str, how: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    barrier = CrashBarrier(quarantine_after=2, max_restarts=1000)
    async with tools_pool(Dying, transport=transport, crash_barrier=barrier) as pool:
        found = []
        for deadly in (True, False, True, True, True):
            mark.touch() if deadly else mark.unlink()
            try:
                found.append(await pool.execute("die_if", {"mark": str(mark), "how": how}))
            except (WorkerDiedError, CallQuarantinedError) as error:
                found.append(type(error).__name__)
    assert found == [
        "WorkerDiedError",
        "it lives",
        *2 * ["WorkerDiedError"],
        "CallQuarantinedError",
    ]


@one_loop_each
@pytest.mark.parametrize("transport", ["shm"])
async def test_a_call_is_not_suspect_where_somebody_kills_workers_without_a_call(
    transport: str, tmp_path: Path
) -> None:
    """The same call, ended by SIGKILL once more often than would be borne, and then answered."""
    barrier = CrashBarrier(quarantine_after=1)
    started, release = tmp_path / "started", tmp_path / "release"
    params = {"started": str(started), "release": str(release)}
    async with tools_pool(Dying, size=2, transport=transport, crash_barrier=barrier) as pool:
        os.kill(pids(pool)[0], signal.SIGKILL)
        await until(lambda: pool.stats().restarts)
        for _ in range(2):
            await pool.ready()
            started.unlink(missing_ok=True)

            async def end_it() -> None:
                await until(started.exists)
                [busy] = [worker.pid for worker in pool.workers() if worker.state == "leased"]
                os.kill(busy, signal.SIGKILL)  # type: ignore[arg-type]

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end_it)
                with pytest.raises(WorkerDiedError):
                    await pool.execute("wait", params)
        assert not pool._core.suspects.known
        release.touch()
        await pool.execute("wait", params)


@one_loop_each
async def test_ready_tells_of_a_slot_that_is_given_up_while_the_others_serve() -> None:
    """It has made no call that could have died."""
    async with tools_pool(Dying, size=2, crash_barrier=CrashBarrier(max_restarts=0)) as pool:
        with pytest.raises(WorkerDiedError) as died:
            await pool.execute("die", {"how": "abort"})
        with pytest.raises(WorkerDiedError, match="its slot was given up after 0") as caught:
            await pool.ready()
        assert (caught.value.pid, caught.value.started) == (died.value.pid, False)
        assert await pool.execute("echo", {"value": 1}) == 1


# -- who is at fault ---------------------------------------------------------------------------------


@one_loop_each
async def test_a_worker_killed_as_it_starts_does_not_break_a_pool_that_was_of_use() -> None:
    """Again and again, with one fruitless restart allowed: it comes from outside."""
    async with tools_pool(Dying, crash_barrier=CrashBarrier(max_restarts=1)) as pool:
        os.kill(pids(pool)[0], signal.SIGKILL)
        for generation in range(2, 6):
            [worker] = await until(
                lambda number=generation: [
                    w for w in pool.workers() if w.id.endswith(f".{number}") and w.pid
                ]
            )
            assert worker.state in ("starting", "ready")
            os.kill(worker.pid, signal.SIGKILL)
        assert await pool.execute("echo", {"value": 1}) == 1


@one_loop_each
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_workers_killed_in_their_first_call_do_not_break_a_pool(
    number: signal.Signals, tmp_path: Path
) -> None:
    """With no fruitless restart allowed, in a pool that has not finished a call yet."""
    if oom_kills() is None:
        pytest.skip("the kernel does not tell here whether it was it that ended a process")
    barrier = CrashBarrier(max_restarts=0, quarantine_after=None)
    async with tools_pool(Dying, crash_barrier=barrier) as pool:
        for turn in range(2):
            started = tmp_path / f"{turn}"

            async def end_it(started: Path = started) -> None:
                await until(started.exists)
                os.kill(pids(pool)[0], number)

            params = {"started": str(started), "release": str(tmp_path / "never")}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end_it)
                with pytest.raises(WorkerDiedError):
                    await pool.execute("wait", params)
        assert await pool.execute("echo", {"value": 1}) == 1


@one_loop_each
async def test_workers_that_were_never_ready_and_are_killed_break_the_pool(tmp_path: Path) -> None:
    """It may be that there is not the memory to start them."""
    barrier = CrashBarrier(max_restarts=2)
    with anyio.fail_after(20):
        with pytest.raises((WorkerStartError, PoolBrokenError)) as caught:
            async with open_pool(BadStart, size=1, adapter_args=("die",), crash_barrier=barrier):
                pytest.fail("it is open")
        assert "SIGKILL" in str(caught.value)


@one_loop_each
async def test_a_worker_that_is_asked_to_end_is_replaced_and_its_call_is_not_suspect(
    tmp_path: Path,
) -> None:
    """SIGTERM from somebody else, as often as you like."""
    barrier = CrashBarrier(max_restarts=0, quarantine_after=1)
    async with tools_pool(Dying, crash_barrier=barrier) as pool:
        await pool.execute("echo")
        for turn in range(2):
            started = tmp_path / f"{turn}"

            async def end_it(started: Path = started) -> None:
                await until(started.exists)
                os.kill(pids(pool)[0], signal.SIGTERM)

            params = {"started": str(started), "release": str(tmp_path / "never")}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end_it)
                with pytest.raises(WorkerDiedError, match="as at a SIGTERM from outside"):
                    await pool.execute("wait", params)
            assert not pool._core.suspects.known
        assert await pool.execute("echo", {"value": 2}) == 2
