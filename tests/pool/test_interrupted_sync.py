"""Ctrl+C at every step of entering and leaving `open_pool_sync`: KeyboardInterrupt, and nothing goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from _backends import one_loop_each
from interrupts import CtrlC, each_step

from snakepit import Adapter, SyncPool, open_pool_sync, tool
from snakepit.pool import _sync

pytestmark = one_loop_each
STEPS = partial(each_step, "_sync", "_loop_thread", kind="Generator")
cleaned: list[str] = []  # by workers in memory


class Quick(Adapter):
    def cleanup(self) -> None:
        cleaned.append("cleanup")

    @tool
    async def count(self) -> AsyncIterator[int]:
        for number in range(10**9):
            yield number

    @tool
    def echo(self, value: Any = None) -> Any:
        return value


@pytest.fixture(params=["trio", "asyncio"])
def opening(
    request: pytest.FixtureRequest,
) -> Callable[[], AbstractContextManager[SyncPool]]:
    cleaned.clear()
    return partial(open_pool_sync, Quick, size=1, transport="memory", backend=request.param)


def is_all_over() -> bool:
    loops = [thread for thread in threading.enumerate() if thread.name.endswith(" of snakepit")]
    return not _sync._blocks and not loops


def test_a_second_one_while_the_block_is_left(
    opening: Callable[[], AbstractContextManager[SyncPool]],
) -> None:
    """The first one leaves it. Whatever the second one meets, the pool is closed when it is told of."""

    def leave(interrupt: CtrlC) -> None:
        with opening() as pool:
            assert pool.execute("echo", {"value": 5}) == 5
            interrupt.begin()
            raise KeyboardInterrupt

    for count, interrupt in enumerate(STEPS(), 1):
        interrupted(leave, interrupt)
        assert is_all_over(), interrupt.where
        assert cleaned == ["cleanup"] * count, interrupt.where


def test_one_while_the_block_is_entered(
    opening: Callable[[], AbstractContextManager[SyncPool]],
) -> None:
    """At whatever it waits for, and between: the thread of the loop does not go on without us."""

    def enter(interrupt: CtrlC) -> None:
        interrupt.begin()
        with opening():
            interrupt.end()
            if interrupt.where:
                raise AssertionError(f"nobody was told of the one at {interrupt.where}")
            raise KeyboardInterrupt

    for interrupt in STEPS():
        interrupted(enter, interrupt)
        assert is_all_over(), interrupt.where


def interrupted(function: Callable[[CtrlC], None], interrupt: CtrlC) -> None:
    # Nothing holds the exception, and so what it went through, any longer than a program does.
    try:
        function(interrupt)
    except KeyboardInterrupt:
        return
    finally:
        interrupt.end()
    raise AssertionError(f"nobody was told of the one at {interrupt.where}")


def test_many_of_them_are_held_until_the_block_is_closed(
    opening: Callable[[], AbstractContextManager[SyncPool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who keeps the keys pressed sends them, and no longer than closing may take."""
    waits = 0
    waiting = _sync.LoopThread._leave

    def interrupted_wait(thread: Any) -> None:
        nonlocal waits
        waits += 1
        if waits < 10:
            raise KeyboardInterrupt
        waiting(thread)

    monkeypatch.setattr(_sync.LoopThread, "_leave", interrupted_wait)
    with pytest.raises(KeyboardInterrupt), opening():
        pass
    assert is_all_over()
    assert cleaned == ["cleanup"]


def test_one_ends_the_wait_for_a_stream_that_nobody_will_leave(
    opening: Callable[[], AbstractContextManager[SyncPool]],
) -> None:
    """Without one, the block waits for what other threads still do in theirs."""
    lost: list[Any] = []

    def use() -> None:
        with opening() as pool:
            lost.append(pool.stream("count"))
            assert next(lost[0].__enter__()) == 0
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        use()
    assert is_all_over()
    with pytest.raises(RuntimeError):
        lost[0].__exit__(None, None, None)


def test_nobody_is_held_longer_than_closing_may_take(
    opening: Callable[[], AbstractContextManager[SyncPool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that stands still must not take Ctrl+C away from the program."""
    waiting = _sync.LoopThread._leave

    def interrupted_wait(thread: Any) -> None:
        time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(_sync, "_bound_s", lambda _: 0.05)
    monkeypatch.setattr(_sync.LoopThread, "_leave", interrupted_wait)
    with pytest.raises(KeyboardInterrupt), opening():
        pass
    assert not is_all_over()
    monkeypatch.setattr(_sync.LoopThread, "_leave", waiting)
    _sync._leave_at_exit()
    assert is_all_over()


IN_A_THREAD = """
import sys, threading
from snakepit import open_pool_sync

def job():
    with open_pool_sync("doubling", size=1, sweep=False, backend=sys.argv[1]) as pool:
        print(pool.execute("double", {"number": 21}))

threading.Thread(target=job).start()
"""
DOUBLING = """
from snakepit import tool

@tool
def double(number: int) -> int:
    return 2 * number
"""


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_program_that_ends_while_a_thread_opens_a_pool_waits_for_that_thread(
    backend: str, tmp_path: Path
) -> None:
    """As for any thread: the pool is opened, used and left."""
    (tmp_path / "doubling.py").write_text(DOUBLING, encoding="utf-8")
    program = tmp_path / "program.py"
    program.write_text(IN_A_THREAD, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, program, backend], capture_output=True, text=True, timeout=50, check=False
    )
    assert (run.returncode, run.stdout) == (0, "42\n"), run.stderr
