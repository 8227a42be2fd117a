"""The simulation, from a few thousand seeds. `make simulate` goes on from there."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import _seeds
import pytest
from _leaks import unmeasured_env
from sim_checks import report, simulate_and_check
from sim_draw import BEHAVIOURS

SEEDS = 2000
CHUNK = 100
ROOT = Path(__file__).parents[2]

ENDINGS = {
    "HeardEnough",
    "InputError",
    "SessionBusyError",
    "SessionLostError",
    "SessionNotFoundError",
    "unread",
    "CallQuarantinedError",
    "CallTimeoutError",
    "InvalidParamsError",
    "PoolBrokenError",
    "PoolClosedError",
    "PoolSaturatedError",
    "QueueTimeoutError",
    "SerializationError",
    "ToolError",
    "ToolNotFoundError",
    "WorkerDiedError",
    "cancelled",
    "items",
    "left",
    "value",
}


MAP_ENDINGS = {
    "CallTimeoutError",
    "InputError",
    "PoolClosedError",
    "QueueTimeoutError",
    "SessionLostError",
    "ToolError",
    "WorkerDiedError",
    "cancelled",
    "items",
    "left",
}
SESSION_ENDINGS = {
    "PoolClosedError",
    "PoolSaturatedError",
    "SessionBusyError",
    "SessionNotFoundError",
    "cancelled",
    "ended",
    "left",
}


@pytest.fixture(autouse=True)
def quiet() -> Generator[None]:
    logging.disable(logging.CRITICAL)  # workers die here by the thousand, and say so
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_wrong_after_any_run(first: int) -> None:
    for seed in range(first, first + CHUNK):
        world, problems = simulate_and_check(seed)
        _seeds.add(world)
        assert not problems, report(world, problems)


def test_the_seeds_meet_every_kind_of_end() -> None:
    """None of the checks is there for nothing. Says nothing where only some of the seeds were run."""
    if _seeds.seeds >= SEEDS:
        assert set(_seeds.endings) == ENDINGS
        assert set(_seeds.map_endings) >= MAP_ENDINGS
        assert set(_seeds.session_endings) >= SESSION_ENDINGS
        assert set(_seeds.faults) == {"Delay", "Die", "Garbage", "Silence"}
        assert set(_seeds.behaviours) == set(BEHAVIOURS)


def test_a_seed_is_the_same_run_in_every_process() -> None:
    """Neither the hashes of strings nor the places of objects in memory have a say in it."""
    script = (
        "import hashlib, logging, sys; logging.disable(); sys.path[:0] = ['tests/simulation', 'tests']\n"
        "from sim_run import simulate\n"
        "seeds = list(range(30)); seeds = seeds[:: int(sys.argv[1])]\n"
        "logs = {seed: repr(simulate(seed).log).encode() for seed in seeds}\n"
        "for seed in sorted(logs): print(seed, hashlib.sha256(logs[seed]).hexdigest())\n"
    )

    def digests(hash_seed: str, order: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", script, order],
            cwd=ROOT,
            env={**unmeasured_env(), "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.fspath(ROOT)},
            check=True,
            capture_output=True,
            text=True,
            timeout=50,
        ).stdout

    first = digests("1", "1")
    assert len(first.splitlines()) == 30
    assert digests("2", "-1") == first


def test_a_failure_is_told_with_the_command_that_shows_it_again() -> None:
    world, problems = simulate_and_check(7)
    assert problems == []
    text = report(world, ["something is wrong"])
    assert text.endswith("  something is wrong\nagain: make simulate SEED=7 RUNS=1")
    assert "message 1 to_host Hello" in report(world, [], tail=None)


def test_the_command_runs_what_it_is_told_to() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", "11", "--runs", "3"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "seed 11"
    assert lines[-2].startswith("3 seeds: ")
    assert lines[-1] == "failed: none"
