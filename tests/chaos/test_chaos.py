"""A minute of chaos with real processes; `make chaos` goes on from there."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from pathlib import Path

import pytest
from _leaks import unmeasured_env
from chaos_draw import CALLS, HAVOC, TRANSPORTS, draw_plan

ROOT = Path(__file__).parents[2]
SEED, SECONDS = 233, 60


@pytest.mark.timeout(240)
def test_a_minute_of_chaos_leaves_nothing_wrong_and_nothing_behind() -> None:
    """In a process of its own, for which the calls, the memory and the descriptors can be counted."""
    faulthandler.cancel_dump_traceback_later()  # it takes longer than other tests, and is not stuck
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.chaos.chaos_rounds",
            "--seed",
            f"{SEED}",
            "--seconds",
            f"{SECONDS}",
        ],
        cwd=ROOT,
        env={**unmeasured_env(), "PYTHONPATH": os.fspath(ROOT)},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == f"seed {SEED}: make chaos SEED={SEED} SECONDS={SECONDS}"
    assert lines[-1] == "failed: none"
    quiet = next(line for line in lines if line.startswith("quiet: "))
    assert not quiet.startswith("quiet: 0 pools")


def test_the_seeds_of_that_minute_draw_every_kind_of_round() -> None:
    """Four are drawn on a slow machine: both loops, each transport, and three that begin and end calmly."""
    plans = [draw_plan(seed) for seed in range(SEED, SEED + 4)]
    assert {plan.backend for plan in plans} == {"trio", "asyncio"}
    assert {plan.transport for plan in plans} == set(TRANSPORTS)
    assert [plan.ending for plan in plans] == ["calm", "calm", "calm", "raise"]
    assert draw_plan(5) == draw_plan(5)
    assert set(CALLS) == {"call", "large", "stream", "eat", "confer", "session", "map"}
    assert {"kill", "stop"} < set(HAVOC)
