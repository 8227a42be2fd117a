"""A call with a large value is cancelled wherever it may be: it is not sent, and leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pandas
import pytest
from _backends import one_loop_each
from pool_kit import pids, tools_pool, until
from shm_adapters import MIB, Sharer, memory

from snakepit import Pool, ZeroCopy
from snakepit.pool import _codec
from snakepit.shm import Block, Heap
from snakepit.transports import _shm_copies


class Gate:
    """In place of a function: says that it was called, and calls it once that is allowed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.begun, self.may_go = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.begun.set()
        assert self.may_go.wait(30)
        return self._function(*arguments, **options)


async def cancelled_in(pool: Pool, gate: Gate, tool: str, value: Any) -> bool:
    """Cancel the call when it has come to the gate; did it end as cancelled?"""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await until(gate.begun.is_set)
                scope.cancel()
                gate.may_go.set()

            tasks.start_soon(cancel)
            await pool.execute(tool, {"value": value})
    return scope.cancelled_caught


@pytest.mark.parametrize("step", ["converted", "copied", "read"])
async def test_a_call_cancelled_while_a_thread_works_for_it(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread ends first; so nobody writes where somebody else may be by then."""
    owner, name, tool, value = {
        "converted": (_codec, "encode_arguments", "keep", pandas.DataFrame({"n": np.ones(MIB)})),
        "copied": (Block, "fill", "keep", np.ones(MIB)),
        "read": (_codec, "private_bytes", "echo", bytes(5 * MIB)),
    }[step]
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=128)) as pool:
        before = pids(pool)
        with monkeypatch.context() as patched:
            gate = Gate(getattr(owner, name))

            def through(*arguments: Any, **options: Any) -> Any:  # a method, where it is one
                return gate(*arguments, **options)

            patched.setattr(owner, name, through)
            cancelled = await cancelled_in(pool, gate, tool, value)
            assert cancelled is (step != "read")  # a value that is there is not thrown away
        assert await pool.execute("kept_total") == 0  # it was never sent
        await until(lambda: memory(pool).leases == memory(pool).used_bytes == 0)
        assert await pool.execute("echo", {"value": bytes(5 * MIB)}) == bytes(5 * MIB)
        assert pids(pool) == before


async def test_a_call_cancelled_while_it_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0
    take_warm = Heap.take_warm

    def count(heap: Heap, nbytes: int) -> Block | None:
        nonlocal tries
        tries += 1
        return take_warm(heap, nbytes)

    monkeypatch.setattr(_shm_copies, "PIPE_S_PER_BYTE", 1.0)  # it would wait for ever
    monkeypatch.setattr(Heap, "take_warm", count)
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=32)) as pool:
        before = pids(pool)
        await pool.execute("keep", {"value": np.ones(3 * MIB // 2)})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "keep", {"value": np.zeros(MIB)})
            enough = tries + 20
            await until(lambda: tries > enough)
            tasks.cancel_scope.cancel()
        assert await pool.execute("kept_total") == 3 * MIB // 2  # still the first one
        await pool.execute("forget")
        await until(lambda: memory(pool).leases == memory(pool).used_bytes == 0)
        assert await pool.execute("total", {"array": np.ones(MIB)}) == MIB
        assert memory(pool).donations == 0
        assert pids(pool) == before


@one_loop_each
async def test_calls_of_a_session_wait_while_an_earlier_one_is_converted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = pandas.DataFrame({"n": np.ones(MIB)})
    gate = Gate(_codec.encode_arguments)
    monkeypatch.setattr(_codec, "encode_arguments", gate)
    async with tools_pool(Sharer, size=1, transport="shm") as pool, pool.session() as session:
        async with anyio.create_task_group() as tasks:

            async def keep(value: Any) -> None:
                await session.execute("keep", {"value": value})

            tasks.start_soon(keep, large)
            await until(gate.begun.is_set)
            scope = anyio.CancelScope()

            async def keep_until_cancelled() -> None:
                with scope:
                    await keep([1.0])

            tasks.start_soon(keep_until_cancelled)
            tasks.start_soon(keep, large)
            (line,) = pool._turns._lines.values()
            await until(lambda: len(line) == 3)
            tasks.start_soon(keep, [2.0])
            assert await pool.execute("echo", {"value": 3}) == 3  # which is of no session
            scope.cancel()
            gate.may_go.set()
        assert scope.cancelled_caught
        assert await session.execute("kept_total") == 2
        assert not pool._turns._lines
