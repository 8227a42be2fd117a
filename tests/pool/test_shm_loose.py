"""Arguments that do not lie in a row, over shared memory, in calls that go wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from _backends import one_loop_each
from pool_kit import pids, tools_pool, until
from shm_adapters import MIB, Sharer, memory

import snakepit
from snakepit.pool._suspects import Suspects
from snakepit.protocol import Loose
from snakepit.resilience import Fingerprint


@one_loop_each
async def test_who_dies_of_what_does_not_lie_in_a_row_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = pa.table({"n": np.ones(MIB)})
    strided = np.ones((MIB // 4, 2))[:, 0]
    async with snakepit.open_pool(Sharer, size=1, transport="shm") as pool:
        for value in (table, strided):
            with pytest.raises(snakepit.WorkerDiedError):
                await pool.execute("die", {"value": value})
            # Now a call of this shape is compared with the one that killed.
            assert await pool.execute("echo", {"value": 1}) == 1
        with pytest.raises(snakepit.WorkerDiedError):
            await pool.execute("die", {"value": strided.copy().repeat(2)[::2]})
        assert len(pool._core.suspects.known) == 2
        # Nor does anybody wait where the judge himself fails.
        monkeypatch.setattr(Suspects, "_judge", lambda *_: 1 / 0)
        with pytest.raises(snakepit.WorkerDiedError):
            await pool.execute("die", {"value": strided})
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "why a worker died could not be judged; its calls end all the same"
    ]


def strided(rows: int) -> Any:
    return np.ones((rows, 2))[:, 0]


@one_loop_each
async def test_what_cannot_be_written_costs_its_own_call_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not its worker, not what others have there, and no memory."""

    def no_memory(*_: object) -> None:
        raise MemoryError("no room")

    def torn(*_: object) -> None:
        raise OSError("torn")

    refusals: list[tuple[Any, type[Exception], str]] = [
        (no_memory, MemoryError, "no room"),
        (torn, snakepit.SerializationError, "could not be written: OSError: torn"),
    ]

    async def items(size: int) -> AsyncIterator[Any]:
        yield strided(size)

    async with tools_pool(Sharer, size=1, transport="shm") as pool:
        pool.add_host_tool(lambda value: strided(len(value)), name="same")
        assert await pool.execute("total", {"array": pool.empty(2 * MIB)[:0]}) == 0
        before = pids(pool)
        async with pool.session() as session:
            await session.execute("keep", {"value": 3})
            # One is copied where the call is made, the other in a thread.
            for size, (fail, kind, words) in product((MIB // 8, MIB), refusals):
                value = strided(size)
                with monkeypatch.context() as patch:
                    patch.setattr(Loose, "write_to", fail)
                    with pytest.raises(kind, match=words):
                        await pool.execute("echo", {"value": value})
                    with pytest.raises(kind, match=words):
                        async with pool.stream("repeat", {"value": value, "times": 2}) as stream:
                            await anext(stream)
                    with pytest.raises(kind, match=words):
                        await pool.execute("lengths", {"values": items(size)})
                    with pytest.raises(snakepit.ToolError, match=words):
                        await pool.execute("through_the_host", {"value": value.copy()})
                assert (await pool.execute("echo", {"value": value})).sum() == size
            assert await session.execute("kept_total") == 3
        await until(lambda: memory(pool).leases == memory(pool).used_bytes == 0)
        assert pids(pool) == before
    assert not caplog.records


@one_loop_each
async def test_a_worker_without_memory_for_what_it_sends_says_so() -> None:
    async with snakepit.open_pool(Sharer, size=1, transport="shm") as pool:
        await pool.execute("no_more_memory")
        with pytest.raises(snakepit.SerializationError, match="no memory for 8388608 bytes"):
            await pool.execute("strided")
        with pytest.raises(snakepit.SerializationError, match="no memory for 8388608 bytes"):
            async with pool.stream("strided_items") as items:
                assert [item async for item in items] == [1]
        with pytest.raises(MemoryError, match="no memory for 8388608 bytes"):
            await pool.execute("strided_for_the_host")
        assert await pool.execute("echo", {"value": 1}) == 1


@one_loop_each
async def test_items_of_an_input_are_given_back_once_they_were_taken() -> None:
    async with snakepit.open_pool(Sharer, size=1, transport="shm") as pool:

        async def items() -> AsyncIterator[Any]:
            for _ in range(8):
                yield pool.buffer(2 * MIB)

        assert await pool.execute("lengths", {"values": items()}) == 8 * 2 * MIB
        await until(lambda: memory(pool).used_bytes == 0)


def test_what_does_not_lie_in_a_row_is_known_again_by_its_content() -> None:
    def digest(size: int, byte: int) -> bytes:
        def write(target: memoryview) -> None:
            target[:] = bytes([byte]) * size

        return Fingerprint("tool", (b"body", Loose(size, write))).digest

    assert digest(MIB, 1) == digest(MIB, 1) != digest(MIB, 2)
    assert digest(5 * MIB, 1) == digest(5 * MIB, 2)  # too much to be written for this
    assert digest(5 * MIB, 1) != digest(5 * MIB + 1, 1)


def test_what_cannot_be_written_is_known_by_its_size() -> None:
    def fail(target: memoryview) -> None:
        raise MemoryError

    assert (
        Fingerprint("tool", (Loose(8, fail),)).digest
        == Fingerprint("tool", (Loose(8, fail),)).digest
    )
