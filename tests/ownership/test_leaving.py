"""The block is left in every way, with workers in every state: all is gone, in bounded time.

Every pair of these is met in `make test`, everything with everything by `make thorough`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path

import anyio
import pytest
from _bounds import watched_machine
from _leaks import is_alive
from _shares import sampled
from attrs import asdict
from leaving_program import BOUND_S, TOOLS, Case, Leaving
from ownership_kit import HERE, env_for_hosts, pid_of

from benchmarks.stuck import TRANSPORTS

FACTORS: tuple[Sequence[str | int], ...] = (
    ("return", "exception", "cancel", "deadline", "Ctrl+C", "Ctrl+C twice", "SIGTERM"),
    ("idle", "busy", "stuck", "starting", "stopped"),
    (1, 8),
    ("trio", "asyncio"),
    TRANSPORTS,
)
BY_SIGNAL = {
    "Ctrl+C": (signal.SIGINT, {1, 130, -signal.SIGINT}),
    "Ctrl+C twice": (signal.SIGINT, {1, 130, -signal.SIGINT}),
    "SIGTERM": (signal.SIGTERM, {143}),
}
TWICE_S = 0.05  # two signals that come closer to each other may be one
PATIENCE_S = 30.0


def all_pairs(factors: Sequence[Sequence[object]]) -> Iterator[tuple[object, ...]]:
    """Combinations that, together, meet each pair of values of any two factors. Greedy."""

    def pairs(row: tuple[object, ...]) -> set[tuple[object, ...]]:
        return set(combinations(enumerate(row), 2))

    rows = list(product(*factors))
    left = set().union(*map(pairs, rows))
    while left:
        best = max(rows, key=lambda row: len(pairs(row) & left))
        left -= pairs(best)
        yield best


CASES = [Case(*row) for row in product(*FACTORS)]  # type: ignore[arg-type]
SAMPLE = {Case(*row) for row in all_pairs(FACTORS)}  # type: ignore[arg-type]


@pytest.mark.parametrize("case", sampled(CASES, SAMPLE.__contains__), ids=str)
def test_the_block_is_left_and_nothing_is_left(case: Case, tmp_path: Path) -> None:
    """Neither a worker nor what it has started, a process in a session of its own that ignores SIGTERM."""
    with watched_machine() as machine:
        if case.way in BY_SIGNAL:
            seconds = left_by_signal(case, tmp_path)
        else:
            leaving = Leaving(case, tmp_path)
            anyio.run(leaving.leave_by_itself, backend=case.backend)
            seconds = leaving.seconds
    if case.way not in BY_SIGNAL:
        told = case.state in TOOLS and case.way in ("return", "exception")
        assert leaving.closed == (case.count if told else 0)
    everything = [
        pid_of(path) for name in ("worker", "session") for path in tmp_path.glob(f"{name}-*")
    ]
    assert len(everything) == 2 * case.count
    assert [pid for pid in everything if is_alive(pid)] == []
    assert seconds <= machine.allows(BOUND_S)


def left_by_signal(case: Case, folder: Path) -> float:
    """Run it as a program, signal it, and say how long it took to end."""
    number, codes = BY_SIGNAL[case.way]
    program = [
        sys.executable,
        str(HERE / "leaving_program.py"),
        str(folder),
        json.dumps(asdict(case)),
    ]
    with subprocess.Popen(
        program, env=env_for_hosts(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "set\n"
            begun = time.monotonic()
            process.send_signal(number)
            if case.way == "Ctrl+C twice":
                time.sleep(TWICE_S)
                process.send_signal(number)
            _, stderr = process.communicate(timeout=PATIENCE_S)
            seconds = time.monotonic() - begun
        finally:
            process.kill()
    assert process.returncode in codes, stderr
    return seconds


def test_the_sample_meets_each_pair() -> None:
    cases = [tuple(asdict(case).values()) for case in SAMPLE]
    for one, other in combinations(range(len(FACTORS)), 2):
        met = {(case[one], case[other]) for case in cases}
        assert met == set(product(FACTORS[one], FACTORS[other]))
    assert len(SAMPLE) < len(CASES) / 5
