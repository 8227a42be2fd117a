"""A connection is lost and neither its worker nor its pool has ended: nothing runs twice."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.abc
import pytest
from connecting import worker
from pool_kit import PATIENCE_S, lines, until

from snakepit import WorkerDiedError, open_pool
from snakepit.pool import _scheduler, _seat

CALLS = 200
TAKEN_MAX = 2**16


class Wire:
    """Stands between a pool and a worker. Once `cut`, the first connection is none for the pool alone."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self.cut = anyio.Event()
        self._connections = 0

    async def connect(self, pool: anyio.abc.SocketStream) -> None:
        self._connections += 1
        is_first = self._connections == 1
        async with pool, await anyio.connect_unix(self._worker) as worker:
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
    # Here every call is taken for a short one, behind which others may be sent, and stay there.
    monkeypatch.setattr(_seat, "PREFETCH_AVERAGE_MAX_S", PATIENCE_S)
    monkeypatch.setattr(_scheduler, "OVERDUE_S", PATIENCE_S)
    log, at = tmp_path / "log", str(tmp_path / "wire")
    failed: list[str] = []

    async def note(text: str) -> None:
        try:
            await pool.execute("note", {"log": str(log), "text": text})
        except WorkerDiedError as error:
            assert error.started
            failed.append(text)

    with worker("--listen", f"unix:{tmp_path / 'socket'}"), anyio.fail_after(PATIENCE_S):
        wire = Wire(str(tmp_path / "socket"))
        async with (
            await anyio.create_unix_listener(at) as listener,
            anyio.create_task_group() as wires,
        ):
            wires.start_soon(listener.serve, wire.connect)
            async with open_pool(connect=[f"unix:{at}"]) as pool:
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
