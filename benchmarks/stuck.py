"""`make ladder`: cancel calls that are stuck in every way, and tell at which step each one ended.

The steps: `interrupt` (the tool is stopped where it stands, its worker goes on), `SIGTERM` (the worker
ends, in order), `SIGKILL`. With `--update` the table in docs/guarantees.md is written anew. Fails where a
call ended at another step than is promised, or left something.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import psutil
from attrs import frozen

import snakepit
from benchmarks._machine import describe_machine
from benchmarks._stuck_tools import STEPS, WAYS, Stuck

PAGE: Final = Path(__file__).parents[1] / "docs" / "guarantees.md"
BEGIN: Final = "<!-- what follows is written by `make ladder UPDATE=1` -->"
END: Final = "<!-- what came before is written by `make ladder UPDATE=1` -->"
# Those with a process; the tests of stopping know no other list.
TRANSPORTS: Final = ("stdio", "shm", "grpc")
LOOPS: Final = ("trio", "asyncio")
SETTLE_S: Final = 0.03  # from the sign that a tool gives into what it is stuck in


@frozen
class Ending:
    """How one stuck call ended: at which step, and after how long.

    `kept`: its worker lives on, with what it had loaded. `left`: of the processes that the call had
    `started`, how many still ran.
    """

    step: str
    seconds: float
    kept: bool
    started: int
    left: int


async def end_stuck(pool: snakepit.Pool, way: str, folder: Path) -> Ending:
    """Cancel a call that is stuck in this way in a pool of one worker, and see what it costs."""
    sign = folder / f"sign-{time.monotonic_ns()}"
    pid, model = await pool.execute("loaded")
    with _last_words() as words:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "be_stuck", {"way": way, "sign": str(sign)})
            while not sign.exists():  # noqa: ASYNC110 - another process makes it
                await anyio.sleep(0.005)
            await anyio.sleep(SETTLE_S)
            started = [p for p in psutil.Process(pid).children(recursive=True) if _runs(p)]
            begun = time.perf_counter()
            tasks.cancel_scope.cancel()
        seconds = time.perf_counter() - begun
        left = [process for process in started if _runs(process)]
        kept = await pool.execute("loaded") == [pid, model]
    return Ending(_step(words), seconds, kept, len(started), len(left))


async def end_all(
    transport: str, ways: Sequence[str] = tuple(WAYS), *, stop: snakepit.Stop | None = None
) -> dict[str, Ending]:
    """Each of these ways, one after the other, in one pool."""
    options: dict[str, Any] = {} if stop is None else {"stop": stop}
    with tempfile.TemporaryDirectory() as folder:
        async with snakepit.open_pool(Stuck, size=1, transport=transport, **options) as pool:
            return {way: await end_stuck(pool, way, Path(folder)) for way in ways}


@contextmanager
def _last_words() -> Iterator[list[str]]:
    """What is logged of the death of workers meanwhile."""
    words: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: words.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("snakepit.pool")
    log.addHandler(handler)
    try:
        yield words
    finally:
        log.removeHandler(handler)


def _step(words: list[str]) -> str:
    if not words:
        return "interrupt"
    [death] = words
    return "SIGKILL" if "ended by SIGKILL" in death else "SIGTERM"


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# -- the table -------------------------------------------------------------------------------------


def table(runs: Sequence[dict[str, Ending]]) -> list[str]:
    """The endings of the same ways on several transports and loops, as a table in Markdown."""
    lines = [
        "| a call that is stuck in | ends at | after | its worker, and what that had loaded | what the call had started |",
        "|---|---|---|---|---|",
    ]
    for way in runs[0]:
        endings = [run[way] for run in runs]
        steps = sorted({ending.step for ending in endings})
        started, left = (
            sum(getattr(ending, name) for ending in endings) for name in ("started", "left")
        )
        cells = (
            way,
            " or ".join(steps),
            _span([ending.seconds for ending in endings]),
            "kept" if all(ending.kept for ending in endings) else "replaced",
            "–" if not started else "gone" if not left else f"**{left} left**",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _span(seconds: list[float]) -> str:
    low, high = min(seconds), max(seconds)
    unit, factor, digits = ("s", 1.0, 2) if low >= 0.5 else ("ms", 1000.0, 1)
    return f"{low * factor:.{digits}f} to {high * factor:.{digits}f} {unit}"


def broken(runs: Sequence[dict[str, Ending]]) -> list[str]:
    """What did not end as promised, a line each."""
    return [
        f"{way}: ended at {ending.step}, not at {STEPS[way]}; its worker was "
        f"{'kept' if ending.kept else 'replaced'}; {ending.left} of its processes are left"
        for run in runs
        for way, ending in run.items()
        if (ending.step, ending.kept, ending.left) != (STEPS[way], STEPS[way] == "interrupt", 0)
    ]


def rewrite(page: str, part: list[str]) -> str:
    """The page with its table replaced. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no table: its two markers are missing")
    return before + "\n".join([BEGIN, "", *part, "", END]) + after


def main() -> int:
    """Run every way on every transport and loop, and show the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stuck", description=__doc__)
    parser.add_argument("--update", action="store_true", help="rewrite the table in docs/")
    update = parser.parse_args().update
    runs = [
        anyio.run(partial(end_all, transport), backend=loop)
        for transport in TRANSPORTS
        for loop in LOOPS
    ]
    machine = describe_machine()
    where = f"Transports {', '.join(TRANSPORTS)}; loops {' and '.join(LOOPS)}"
    lines = [f"{where}; {machine['processor']}; {machine['python']}.", "", *table(runs)]
    print("\n".join(lines))
    if update:
        PAGE.write_text(rewrite(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")
    if wrong := broken(runs):
        print("\nnot as promised:", *wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
