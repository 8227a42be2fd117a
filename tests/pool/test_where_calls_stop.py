"""Cancels that meet a call's return, a tool's own wish, or code in which no interrupt can land."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from _leaks import is_alive
from _transports import OF_PROCESSES
from leaving_tools import Edge, Elsewhere, Willing
from pool_kit import BRISK, lines, pids, tools_pool, until

from snakepit import Pool, Stop

SHOTS = 100
CANCELLED_AFTER_S = 0.003
LONG_S = 0.03  # some ticks of the worker's reader, which repeats an interrupt
STEP_S, STEP_MAX_S = 50e-6, 0.02
on_each_transport = pytest.mark.parametrize("transport", OF_PROCESSES)

pytestmark = one_loop_each


class Shooter:
    """Aims cancels at the end of a tool: after one that hit it it spins less, after others longer."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.spin_s = CANCELLED_AFTER_S
        self.step_s = STEP_S
        self.hits, self.was_hit = 0, False

    async def shoot(self, number: int) -> None:
        """With a call right behind it, whose value must be its own."""
        values: list[int] = []

        async def echo() -> None:
            params = {"value": number, "seconds": 0 if number % 4 else LONG_S}
            values.extend(await self.pool.execute("echo", params))

        async with anyio.create_task_group() as tasks, anyio.create_task_group() as cancelled:
            cancelled.start_soon(self.pool.execute, "spin", {"seconds": self.spin_s})
            await anyio.sleep(CANCELLED_AFTER_S / 3)
            tasks.start_soon(echo)
            await anyio.sleep(CANCELLED_AFTER_S * 2 / 3)
            cancelled.cancel_scope.cancel()
        assert values[0] == number
        self.adjust(was_hit=values[1] > self.hits)
        self.hits = values[1]

    def adjust(self, *, was_hit: bool) -> None:
        """In steps that grow as long as nothing changes."""
        self.step_s = min(self.step_s * 2, STEP_MAX_S) if was_hit is self.was_hit else STEP_S
        self.spin_s = max(0.0, self.spin_s - self.step_s if was_hit else self.spin_s + self.step_s)
        self.was_hit = was_hit


@on_each_transport
async def test_a_cancel_that_meets_the_return_never_hits_the_call_behind_it(
    transport: str,
) -> None:
    """With real signals in a real pool: the worker stays, and each value is its own call's."""
    async with tools_pool(Edge, transport=transport) as pool:
        before = pids(pool)
        shooter = Shooter(pool)
        for number in range(SHOTS):
            await shooter.shoot(number)
        ends = await pool.execute("how")
        assert pids(pool) == before
        assert pool.stats().restarts == 0
    # It came too early and too late.
    assert ends["interrupted"] >= 3
    assert ends["returned"] >= 3


@on_each_transport
async def test_a_stream_of_a_tool_that_is_to_be_killed_ends_with_its_worker(
    transport: str, tmp_path: Path
) -> None:
    """At once: this pool would wait for longer than the test may take."""
    log = tmp_path / "log"
    patient = Stop(cancel_grace=60, term_grace=0.2, drain_timeout=1)
    async with tools_pool(Willing, transport=transport, stop=patient) as pool:
        [before] = pids(pool)
        async with pool.stream("beat", {"log": str(log)}) as items:
            assert [await anext(items), await anext(items)] == [0, 1]
        assert not is_alive(before)
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_a_cooperative_async_tool_is_cancelled_at_its_next_await(tmp_path: Path) -> None:
    """Where it stands it is left alone, also when it blocks its loop."""
    log = tmp_path / "log"
    async with tools_pool(Willing) as pool:
        before = pids(pool)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "go_on", {"log": str(log)})
            await until(log.exists)
            tasks.cancel_scope.cancel()
        assert lines(log) == ["began", "went on"]
        assert pids(pool) == before


async def test_a_tool_that_blocks_its_loop_is_interrupted_within_its_own_grace(
    tmp_path: Path,
) -> None:
    """However long that of the pool is: its worker is kept."""
    started = tmp_path / "started"
    patient = Stop(cancel_grace=600, term_grace=10, drain_timeout=10)
    async with tools_pool(Willing, stop=patient) as pool:
        before = pids(pool)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "block", {"started": str(started)})
            await until(started.exists)
            tasks.cancel_scope.cancel()
        assert await pool.execute("echo", {"value": 1}) == 1
        assert pids(pool) == before
        assert pool.stats().restarts == 0


OUT_OF_REACH: dict[str, tuple[str, Any]] = {
    "make": ("SIGKILL", lambda sign: {"slow": {"sign": sign}}),
    "show": ("SIGKILL", lambda sign: {"sign": sign}),
    "run_a_loop": ("SIGKILL", lambda sign: {"sign": sign}),
    "load": ("SIGTERM", lambda sign: {"sign": sign}),
}


@pytest.mark.parametrize("tool", OUT_OF_REACH)
async def test_what_no_interrupt_reaches_ends_with_its_worker(
    tool: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As docs/guarantees.md tells: an argument in the making, a result being read, a busy loop, an import."""
    step, params = OUT_OF_REACH[tool]
    sign = tmp_path / "sign"
    async with tools_pool(Elsewhere, stop=BRISK) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, tool, params(os.fspath(sign)))
            await until(sign.exists)
            tasks.cancel_scope.cancel()
        assert await pool.execute("echo", {"value": 1}) == 1
    [death] = [text for text in caplog.messages if "did not stop" in text]
    assert ("ended by SIGKILL" in death) == (step == "SIGKILL")
