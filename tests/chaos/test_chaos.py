"""A minute of chaos with real processes; `make chaos` goes on from there. And its checks find what they are for."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _leaks import unmeasured_env
from chaos_checks import problems
from chaos_draw import CALLS, HAVOC, TRANSPORTS, draw_plan
from chaos_world import Asked, Outcome, Run, World

from snakepit import WorkerDiedError

ROOT = Path(__file__).parents[2]
SEED, SECONDS = 20, 60


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


def test_the_seeds_of_that_minute_draw_every_kind_of_round() -> None:
    """Six are drawn on the slowest machine, and so both loops and each transport."""
    plans = [draw_plan(seed) for seed in range(SEED, SEED + 6)]
    assert {plan.backend for plan in plans} == {"trio", "asyncio"}
    assert {plan.transport for plan in plans} == set(TRANSPORTS)
    assert len({plan.ending for plan in plans}) >= 2
    assert draw_plan(5) == draw_plan(5)
    assert set(CALLS) == {"call", "large", "stream", "eat", "confer", "session", "map"}
    assert {"kill", "stop"} < set(HAVOC)


def died(pid: int = 7, *, started: bool = True) -> WorkerDiedError:
    return WorkerDiedError("w", pid, None, 9, "died", started)


def a_world(asked: Asked, outcome: Outcome | None, *runs: Run, transport: str = "stdio") -> World:
    world = World(dataclasses.replace(draw_plan(1), transport=transport), Path("/nowhere"))
    world.calls[1] = asked
    if outcome is not None:
        world.outcomes[1] = outcome
    world.runs = {1: list(runs)} if runs else {}
    world.ending_at = world.closing_at = world.closed_at = 50.0
    return world


RETURNED = Run(7, 1.0, 2.0, "returned")
WORK = Asked(1, "work", "return")
LIMITED = Asked(1, "work", "return", timeout=5.0)
TRUTHS: list[tuple[Asked, Outcome, tuple[Run, ...]]] = [
    (WORK, Outcome("value", 0.0, 3.0, False), (RETURNED,)),
    (WORK, Outcome("cancelled", 0.0, 3.0, True), (Run(7, 1.0),)),
    (WORK, Outcome("PoolClosedError", 0.0, 51.0, False), ()),
    (LIMITED, Outcome("CallTimeoutError", 0.0, 6.0, False), ()),
    (Asked(1, "work", "exit"), Outcome("WorkerDiedError", 0.0, 3.0, False, died()), (Run(7, 1.0),)),
    (
        Asked(1, "work", "raise"),
        Outcome("ToolError", 0.0, 3.0, False),
        (Run(7, 1.0, 2.0, "raised"),),
    ),
]
LIES: list[tuple[str, Asked, Outcome | None, tuple[Run, ...]]] = [
    ("never ended", WORK, None, (RETURNED,)),
    ("no tool returned it", WORK, Outcome("value", 0.0, 3.0, False), ()),
    ("ran on when it had been left", WORK, Outcome("cancelled", 0.0, 1.5, True), (RETURNED,)),
    ("ran 2 times, and may 1", WORK, Outcome("value", 0.0, 3.0, False), (RETURNED, RETURNED)),
    (
        "nothing has happened to its worker",
        WORK,
        Outcome("WorkerDiedError", 0, 3, False, died()),
        (),
    ),
    (
        "it had started",
        Asked(1, "work", "exit"),
        Outcome("WorkerDiedError", 0.0, 3.0, False, died(started=False)),
        (Run(7, 1.0),),
    ),
    ("its time was not over", LIMITED, Outcome("CallTimeoutError", 0.0, 3.0, False), ()),
    ("its tool did not raise", WORK, Outcome("ToolError", 0.0, 3.0, False), (RETURNED,)),
    ("the pool was not closing", WORK, Outcome("PoolClosedError", 0.0, 3.0, False), ()),
    (
        "it ran",
        WORK,
        Outcome("QueueTimeoutError", 0, 3, False),
        (RETURNED,),
    ),
    ("is not how a call ends", WORK, Outcome("KeyError", 0.0, 3.0, False), ()),
]


@pytest.mark.parametrize(("asked", "outcome", "runs"), TRUTHS)
def test_what_is_true_is_not_found_wrong(asked: Asked, outcome: Outcome, runs: Any) -> None:
    assert list(problems(a_world(asked, outcome, *runs))) == []


@pytest.mark.parametrize(
    ("problem", "asked", "outcome", "runs"), LIES, ids=[lie[0] for lie in LIES]
)
def test_a_lie_is_found(problem: str, asked: Asked, outcome: Outcome | None, runs: Any) -> None:
    [found] = problems(a_world(asked, outcome, *runs))
    assert problem in found


def test_of_workers_that_are_not_the_pools_less_is_asked() -> None:
    """A call whose connection was lost, or that did not stop, may go on; no other, and not without a reason."""
    lost = WorkerDiedError("w", None, None, None, "lost its connection", True)
    stuck = WorkerDiedError("w", None, None, None, "unresponsive", True)
    runs_on = Run(7, 1.0, 9.0)

    def found(outcome: Outcome, *, harmed: bool, run: Run = runs_on) -> list[str]:
        world = a_world(WORK, outcome, run, transport="connect")
        world.harmed = {7} if harmed else set()
        return list(problems(world))

    assert found(Outcome("WorkerDiedError", 0.0, 3.0, False, lost), harmed=True) == []
    assert found(Outcome("WorkerDiedError", 0.0, 3.0, False, stuck), harmed=False) == []
    [lie] = found(Outcome("WorkerDiedError", 0.0, 3.0, False, lost), harmed=False)
    assert "nothing has happened" in lie
    [lie] = found(Outcome("cancelled", 0.0, 3.0, True), harmed=True)
    assert "ran on" in lie
    [lie] = found(Outcome("CallTimeoutError", 0.0, 0.5, True), harmed=True, run=Run(7, 0.1, 0.2))
    assert "its time was not over" in lie


def test_a_close_that_takes_too_long_is_found() -> None:
    world = a_world(WORK, TRUTHS[0][1], RETURNED)
    world.closed_at = world.closing_at + 60
    [found] = problems(world)
    assert found.startswith("closing took 60.0 s")


def test_the_journal_tells_who_ran_what(tmp_path: Path) -> None:
    world = World(draw_plan(1), tmp_path / "journal")
    world.journal.write_text(
        "begins 1 7 1.000000 -\nbegins 2 8 1.500000 -\nends 2 8 2.000000 raised\n"
    )
    world.read_journal()
    assert world.runs == {1: [Run(7, 1.0)], 2: [Run(8, 1.5, 2.0, "raised")]}
