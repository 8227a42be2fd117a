"""Connections that are lost: because a worker has ended, or although neither side has."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from _backends import one_loop_each
from connecting import starting, told, worker
from pool_kit import PATIENCE_S, PATIENT, lines, take_all_calls_for_short, until

from snakepit import Pool, QueueTimeoutError, WorkerDiedError, open_pool

CALLS = 100
HOST = "127.0.0.1"
TAKEN_MAX = 2**16


class Wire:
    """Stands between a pool and a worker. Once `cut`, the first connection is none for the pool alone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cut = anyio.Event()
        self._connections = 0

    async def connect(self, pool: anyio.abc.SocketStream) -> None:
        self._connections += 1
        is_first = self._connections == 1
        async with pool, await anyio.connect_tcp(HOST, self._port) as worker:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass, pool, worker)
                tasks.start_soon(self._pass, worker, pool)
                if is_first:
                    await self.cut.wait()
                    tasks.cancel_scope.cancel()
            if is_first:
                await pool.aclose()
                await anyio.sleep_forever()

    async def _pass(self, source: anyio.abc.SocketStream, sink: anyio.abc.SocketStream) -> None:
        try:
            while True:
                await sink.send(await source.receive(TAKEN_MAX))
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass


async def test_what_was_sent_ahead_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker goes on with it: it does not know yet. In a worker that died it could not have run."""
    take_all_calls_for_short(monkeypatch)
    log = tmp_path / "log"
    failed: list[str] = []

    async def note(text: str) -> None:
        try:
            await pool.execute("note", {"log": str(log), "text": text})
        except WorkerDiedError as error:
            assert error.started
            failed.append(text)

    with worker("--listen", "tcp:127.0.0.1:0") as where, anyio.fail_after(PATIENCE_S):
        wire = Wire(int(where.rpartition(":")[2]))
        async with (
            await anyio.create_tcp_listener(local_host=HOST) as listener,
            anyio.create_task_group() as wires,
        ):
            wires.start_soon(listener.serve, wire.connect)
            at = f"tcp:{HOST}:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
            async with open_pool(connect=[at]) as pool:
                async with anyio.create_task_group() as tasks:
                    for number in range(CALLS):
                        tasks.start_soon(note, str(number))
                    await until(lambda: len(lines(log)) > CALLS / 10)
                    wire.cut.set()
                told = sorted(lines(log), key=int)
            wires.cancel_scope.cancel()
    assert told == sorted(set(told), key=int)
    assert {str(number) for number in range(CALLS)} - set(told) <= set(failed)
    assert len(failed) > 1


@one_loop_each
async def test_a_connection_that_is_lost_costs_the_call_that_ran_and_is_made_again(
    tmp_path: Path,
) -> None:
    """A worker that ends in good order first answers what it has, and gets nothing more."""
    where, started, release = (tmp_path / name for name in ("socket", "started", "release"))
    arguments = "--listen", f"unix:{where}"
    hold = {"started": str(started), "release": str(release)}
    with starting(*arguments) as first, anyio.fail_after(PATIENCE_S):
        told(first)
        async with (
            open_pool(connect=arguments[1:], stop=PATIENT) as pool,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_fails, pool, "sleep", {"started": str(started)})
            await until(started.exists)
            first.kill()
            first.wait()
            await until(lambda: pool.workers()[0].state == "starting")
            with starting(*arguments) as second:
                assert await pool.execute("pid") == second.pid
                started.unlink()
                tasks.start_soon(_returns, pool, "hold", hold, second.pid)
                await until(started.exists)
                second.send_signal(signal.SIGTERM)
                await until(lambda: pool.workers()[0].state == "draining")
                with pytest.raises(QueueTimeoutError):
                    await pool.execute("pid", timeout=0.05)
                release.touch()
                assert await anyio.to_thread.run_sync(second.wait) == 0


async def _fails(pool: Pool, tool: str, params: dict[str, Any]) -> None:
    with pytest.raises(WorkerDiedError, match="lost its connection") as caught:
        await pool.execute(tool, params)
    assert caught.value.started


async def _returns(pool: Pool, tool: str, params: dict[str, Any], value: object) -> None:
    assert await pool.execute(tool, params) == value
