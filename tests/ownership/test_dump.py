"""The stacks of a worker, where it has many threads, dies meanwhile, or does not want to show them."""

from __future__ import annotations

import collections
import itertools
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from _backends import one_loop_each

from snakepit import Adapter, CallTimeoutError, Pool, Stop, WorkerInfo, open_pool, tool
from snakepit.process import _stderr

pytestmark = one_loop_each

BRISK = Stop(cancel_grace=0.2, term_grace=0.3, drain_timeout=2)
THREADS = 120


class Odd(Adapter):
    @tool
    def hold_gil_in_a_crowd(self, busy: str) -> None:
        for _ in range(THREADS):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        Path(busy).touch()
        collections.deque(itertools.repeat(None), maxlen=0)

    @tool
    def die_of_the_question(self) -> None:
        """The next SIGQUIT ends it."""
        signal.signal(signal.SIGQUIT, lambda *_: os._exit(3))

    @tool
    def take_the_signal_away(self) -> None:
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)

    @tool
    def shout(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            os.write(2, b"noise " * 100 + b"\n")

    @tool
    def closes_stderr(self) -> None:
        os.close(2)


@asynccontextmanager
async def odd_pool(transport: str = "stdio") -> AsyncGenerator[tuple[Pool, WorkerInfo]]:
    with anyio.fail_after(30):
        async with open_pool(Odd, size=1, transport=transport, stop=BRISK) as pool:
            yield pool, pool.workers()[0]


@pytest.mark.parametrize("transport", ["stdio", "grpc"])
async def test_of_more_threads_than_are_shown_the_main_one_comes_first(
    transport: str, tmp_path: Path
) -> None:
    """Also where it holds the GIL; and it is what is told of a worker that is killed for that."""
    name, busy = "hold_gil_in_a_crowd", tmp_path / "busy"
    async with odd_pool(transport) as (pool, worker):
        causes: list[BaseException | None] = []

        async def call() -> None:
            with pytest.raises(CallTimeoutError) as caught:
                await pool.execute(name, {"busy": str(busy)}, timeout=2.0)
            causes.append(caught.value.__cause__)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            while not busy.exists():
                await anyio.sleep(0.005)
            stacks = await pool.dump(worker.id)
    assert f"in {name}\n" in "\n".join(stacks.splitlines()[:3])
    assert stacks.count("(most recent call first)") == 1 + 100
    assert f"in {name}\n" in causes[0].stderr_tail  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("how", "transport"), [("SIGKILL", "stdio"), ("SIGKILL", "grpc"), ("of the question", "shm")]
)
async def test_a_worker_that_dies_before_it_answers_is_not_waited_for(
    how: str, transport: str
) -> None:
    async with odd_pool(transport) as (pool, worker), anyio.create_task_group() as tasks:
        assert worker.pid is not None
        if how == "SIGKILL":
            os.kill(worker.pid, signal.SIGSTOP)
        else:
            await pool.execute("die_of_the_question")

        async def kill_it() -> None:
            await anyio.sleep(0.05)
            os.kill(worker.pid, signal.SIGKILL)  # type: ignore[arg-type]

        if how == "SIGKILL":
            tasks.start_soon(kill_it)
        with anyio.fail_after(_stderr.HEAR_S * 0.9), pytest.raises(LookupError, match=worker.id):
            await pool.dump(worker.id)


async def test_one_whose_code_has_taken_the_signal_away_says_so() -> None:
    async with odd_pool() as (pool, worker):
        await pool.execute("take_the_signal_away")
        with pytest.raises(RuntimeError, match="or its own code has changed that"):
            await pool.dump(worker.id)


async def test_one_that_is_stopped_or_has_no_stderr_shows_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_stderr, "HEAR_S", 0.3)
    async with odd_pool() as (pool, worker):
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            assert await pool.dump(worker.id) == ""
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        await pool.execute("closes_stderr")
        assert await pool.dump(worker.id) == ""


async def test_of_what_comes_meanwhile_a_bounded_part_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_stderr, "HEARD_CHARS", 20_000)
    async with odd_pool() as (pool, worker), anyio.create_task_group() as tasks:
        tasks.start_soon(pool.execute, "shout", {"seconds": 0.5})
        await anyio.sleep(0.1)
        assert 18_000 < len(await pool.dump(worker.id)) < 20_000
