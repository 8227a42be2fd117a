"""Pools over gRPC whose workers freeze, whose connections are lost, whose streams are cut off."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from connecting import starting, told
from pool_kit import BRISK, PATIENCE_S, pids, tools_pool, until

from snakepit import WorkerDiedError, open_pool
from snakepit.grpc import _pulse
from snakepit.transports import _grpc

SILENCE = "has answered no ping"


class Intervals:
    """The time between two pings passes when it is told to, and not before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        monkeypatch.setattr(_pulse, "_pause", self.pause)

    async def pause(self) -> None:
        while not self.left:
            await asyncio.sleep(0.005)
        self.left -= 1

    async def freeze(self, pid: int) -> None:
        """Stop this process, and let it miss as many pings as are too many."""
        os.kill(pid, signal.SIGSTOP)
        stat = Path(f"/proc/{pid}/stat")
        await until(lambda: stat.read_text().rpartition(") ")[2].startswith("T"))
        # The first answer may have come before.
        self.left = _pulse.MISSED_MAX + 1


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch) -> Intervals:
    return Intervals(monkeypatch)


async def test_a_worker_that_freezes_while_it_idles_is_replaced(
    intervals: Intervals, caplog: pytest.LogCaptureFixture
) -> None:
    async with tools_pool(transport="grpc", stop=BRISK) as pool:
        [pid] = pids(pool)
        await intervals.freeze(pid)
        await until(lambda: SILENCE in caplog.text)
        assert await pool.execute("add", {"left": 1}) == 2


async def test_a_worker_that_freezes_during_a_call_ends_the_call_and_is_replaced(
    intervals: Intervals, tmp_path: Path
) -> None:
    async with tools_pool(transport="grpc", stop=BRISK) as pool:
        [pid] = pids(pool)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(freeze_once_begun, intervals, pid, tmp_path / "begun")
            with pytest.raises(WorkerDiedError, match=SILENCE) as caught:
                await pool.execute("sleep", {"started": str(tmp_path / "begun")})
        assert (caught.value.pid, caught.value.started) == (pid, True)
        assert caught.value.signal == signal.SIGKILL
        assert await pool.execute("add", {"left": 1}) == 2


@one_loop_each
async def test_a_connected_worker_that_freezes_loses_its_connection_and_may_come_back(
    intervals: Intervals, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    with starting("--listen", address) as worker:
        told(worker)
        with anyio.fail_after(PATIENCE_S):
            async with open_pool(connect=[address], stop=BRISK) as pool:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(freeze_once_begun, intervals, worker.pid, tmp_path / "begun")
                    with pytest.raises(WorkerDiedError, match=SILENCE) as caught:
                        await pool.execute("sleep", {"started": str(tmp_path / "begun")})
                assert caught.value.started
                worker.send_signal(signal.SIGCONT)
                assert await pool.execute("pid") == worker.pid


async def freeze_once_begun(intervals: Intervals, pid: int, begun: Path) -> None:
    await until(begun.exists)
    await intervals.freeze(pid)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The host's ends of the connections to its workers."""
    found: list[socket.socket] = []
    connect = _grpc.GrpcLink._listen_and_connect

    def record(link: Any, path: str) -> None:
        connect(link, path)
        found.append(link._ours)

    monkeypatch.setattr(_grpc.GrpcLink, "_listen_and_connect", record)
    return found


async def test_a_connection_that_is_lost_costs_its_call_and_its_worker_and_no_other_call(
    sockets: list[socket.socket], tmp_path: Path
) -> None:
    async with tools_pool(transport="grpc", stop=BRISK) as pool:
        before = pids(pool)
        sums: list[int] = []

        async def add() -> None:
            sums.append(await pool.execute("add", {"left": 1}))

        async def lose() -> None:
            await until((tmp_path / "begun").exists)
            tasks.start_soon(add)
            await until(lambda: pool.stats().queued)
            sockets[0].shutdown(socket.SHUT_RDWR)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose)
            with pytest.raises(WorkerDiedError) as caught:
                await pool.execute("sleep", {"started": str(tmp_path / "begun")})
            assert caught.value.started
        assert sums == [2]
        assert pids(pool) != before


async def test_a_worker_killed_in_mid_stream_gives_what_it_had_sent_and_no_end() -> None:
    async with tools_pool(transport="grpc", stop=BRISK) as pool:
        [pid] = pids(pool)
        async with pool.stream("count_then", {"stop": 5, "what": "stall"}) as numbers:
            came = [await anext(numbers) for _ in range(5)]
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerDiedError) as caught:
                await anext(numbers)
        assert came == list(range(5))
        assert (caught.value.signal, caught.value.started) == (signal.SIGKILL, True)
        assert await pool.execute("add", {"left": 1}) == 2
