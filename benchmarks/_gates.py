"""What is asked of the figures: gates, and the goals beyond them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen

from benchmarks._contenders import DEFAULT, NOT_PIPELINED, SHARED
from benchmarks._results import Results
from benchmarks._rounds import Summary, ratios

Figures = Callable[[Results], list[float] | None]


@frozen
class Gate:
    """One figure and its limit; `goal`: it is hoped for, not asked for."""

    text: str
    figures: Figures
    limit: float
    unit: str = "x"
    at_least: bool = False
    goal: bool = False

    def judge(self, results: Results) -> Verdict | None:
        """None: it was not measured in this run."""
        figures = self.figures(results)
        if not figures:
            return None
        summary = Summary.of(figures)
        found = summary.median
        return Verdict(self, summary, found >= self.limit if self.at_least else found <= self.limit)


@frozen
class Verdict:
    """A gate and what was measured; it is judged by the median."""

    gate: Gate
    figure: Summary
    reached: bool


def cost(table: str, row: str, *others: str) -> Figures:
    """What the row costs, as a multiple of the best of the others, round by round."""

    def figures(results: Results) -> list[float] | None:
        mine = results.row(table, row)
        theirs = [found for other in others if (found := results.row(table, other))]
        return ratios(mine, *theirs) if mine and len(theirs) == len(others) else None

    return figures


def above(table: str, row: str, other: str) -> Figures:
    """How many milliseconds the row costs more than the other, round by round."""

    def figures(results: Results) -> list[float] | None:
        mine, theirs = results.row(table, row), results.row(table, other)
        if not mine or not theirs:
            return None
        return [1e3 * (a - b) for a, b in zip(mine, theirs, strict=False)]

    return figures


def speed(table: str, row: str, *others: str) -> Figures:
    """How much faster the row is than the best of the others, round by round."""

    def figures(results: Results) -> list[float] | None:
        found = cost(table, row, *others)(results)
        return None if found is None else [1 / ratio for ratio in found]

    return figures


def rate(table: str, row: str) -> Figures:
    """Calls per second."""

    def figures(results: Results) -> list[float] | None:
        found = results.row(table, row)
        return None if found is None else [1 / seconds for seconds in found]

    return figures


def worst(table: str, *rows: str) -> Figures:
    """The highest figure of these rows, with no other to compare with."""

    def figures(results: Results) -> list[float] | None:
        found = [figure for row in rows for figure in results.row(table, row) or ()]
        return [max(found)] if found else None

    return figures


_QUICK_PEERS: Final = ("anyio.to_process", "trio-parallel", "multiprocessing.Pool")
_SPAWN: Final = "ProcessPoolExecutor spawn"
_GREW: Final = tuple(
    f"growth of the {side} from 100,000 calls to 1,000,000" for side in ("host", "worker")
)

GATES: Final = (
    Gate(
        "no-op round trip over that of anyio.to_process",
        cost("roundtrip", DEFAULT, "anyio.to_process"),
        0.7,
    ),
    Gate("no-op round trip over the floor", cost("roundtrip", DEFAULT, "floor"), 2),
    Gate(
        "no-op throughput over the best of " + ", ".join(_QUICK_PEERS),
        speed("throughput", DEFAULT, *_QUICK_PEERS),
        3,
        at_least=True,
    ),
    Gate(
        "the same with pipelining off",
        speed("throughput", NOT_PIPELINED.name, *_QUICK_PEERS),
        1.7,
        at_least=True,
    ),
    Gate(
        "the longest of thousands of short calls beside one of 5 s",
        worst("longcall", "the longest short call"),
        0.25,
        "s",
    ),
    Gate(
        "a chunk of a stream of 100,000 over a call of the no-op throughput",
        cost("stream", f"{DEFAULT}, a chunk", f"{DEFAULT}, a call"),
        1,
    ),
    Gate(
        "round trip of a tool that makes one no-op host call over that of a no-op",
        cost("hostcall", f"{DEFAULT}, a host call", f"{DEFAULT}, a no-op"),
        2.5,
    ),
    Gate(
        "100,000 floats there and back over ProcessPoolExecutor (spawn)",
        cost("floats", DEFAULT, _SPAWN),
        1.2,
    ),
    Gate(
        "a dict of 1,000 keys there and back over ProcessPoolExecutor (spawn)",
        cost("dict", DEFAULT, _SPAWN),
        2,
    ),
    Gate(
        "opening a pool of 2 to the first result over ProcessPoolExecutor (spawn)",
        cost("startup", DEFAULT, _SPAWN),
        1.2,
    ),
    Gate("USS of an idle worker, bare adapter", worst("memory", "an idle worker"), 11, "MiB"),
    Gate(
        "growth of either side from 100,000 calls to 1,000,000",
        worst("memory", *_GREW),
        1,
        "MiB",
    ),
    Gate(
        "cost per call with 10,000 waiting callers over that with 10",
        cost("waiting", "10,000 callers", "10 callers"),
        1.1,
    ),
    Gate(
        "cost per call with 10,000 sessions over that with 10",
        cost("sessions", "10,000 sessions", "10 sessions"),
        1.1,
    ),
    Gate(
        "cost per call with 1,000 workers in memory over that with 10",
        cost("workers", "1,000 workers", "10 workers"),
        1.1,
    ),
    Gate(
        "256 MiB in shared memory there and back over 1 MiB",
        cost("shm", "segment, 256 MiB", "segment, 1 MiB"),
        2,
    ),
    *(
        Gate(
            f"{mib} MiB from the heap there and back over one warm copy",
            cost("shm", f"heap, {mib} MiB", f"memcpy, {mib} MiB"),
            1.3,
        )
        for mib in (64, 256)
    ),
    Gate(
        "a table of 1,000 columns, 64 MiB, to a worker, beyond one warm copy",
        above("shm", "table, 64 MiB", "memcpy, 64 MiB"),
        5,
        "ms",
    ),
    Gate("no-op round trip of shm over that of stdio", cost("roundtrip", SHARED, DEFAULT), 1.05),
    Gate("no-op throughput of shm over that of stdio", cost("throughput", SHARED, DEFAULT), 1.05),
    Gate("no-op round trip over the floor", cost("roundtrip", DEFAULT, "floor"), 1.3, goal=True),
    Gate(
        "no-op throughput",
        rate("throughput", DEFAULT),
        60_000,
        "calls/s",
        at_least=True,
        goal=True,
    ),
)
