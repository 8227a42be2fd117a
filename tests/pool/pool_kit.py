"""What the pool's tests share: patience, signs from tools, scripts in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _leaks import is_alive
from adapters import Tools

from snakepit import Pool, Stop, open_pool
from snakepit.pool import _seat

ROOT = Path(__file__).parents[2]
PATIENCE_S = 45.0
# A cancelled tool has all the time in the world here: a worker that is replaced is a failure.
PATIENT = Stop(cancel_grace=30, term_grace=10, drain_timeout=10)
# Here the ladder is what is tested.
BRISK = Stop(cancel_grace=0.15, term_grace=0.2, drain_timeout=1)


@asynccontextmanager
async def tools_pool(
    adapter: Any = Tools, *, size: int = 1, stop: Stop = PATIENT, **options: Any
) -> AsyncGenerator[Pool]:
    """A pool, all workers ready, in a block that does not last longer than it may."""
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(adapter, size=size, min_ready=size, stop=stop, **options) as pool:
            yield pool


def take_all_calls_for_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """So others may be sent behind any of them, and stay there, however slow this machine is."""
    monkeypatch.setattr(_seat, "PREFETCH_AVERAGE_MAX_S", PATIENCE_S)
    monkeypatch.setattr(_seat, "PREFETCH_S", PATIENCE_S * _seat.PREFETCH_MAX)
    monkeypatch.setattr(_seat, "OVERDUE_S", PATIENCE_S)


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for what another process does; return what the condition gave."""
    with anyio.fail_after(PATIENCE_S / 2):
        while not (value := condition()):
            await anyio.sleep(0.003)
    return value


def lines(path: Path) -> list[str]:
    """The lines of a tool's log, [] if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return text.splitlines()


def pids(pool: Pool) -> list[int]:
    found = [worker.pid for worker in pool.workers()]
    assert None not in found
    return [pid for pid in found if pid is not None]


def all_gone(numbers: list[int]) -> bool:
    return not any(map(is_alive, numbers))


def run_script(
    folder: Path, source: str, *arguments: str, timeout: float = 40, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the source as a script of its own; the tree and these tests can be imported."""
    script = folder / "script.py"
    script.write_text(source, encoding="utf-8")
    return run_python(str(script), *arguments, timeout=timeout, **env)


def run_python(
    *arguments: str, timeout: float = 40, **env: str
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": path} | env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
