"""The checks of the chaos find what they are for, and nothing else."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chaos_checks import problems
from chaos_draw import draw_plan
from chaos_quiet import Quiet
from chaos_tally import Tally
from chaos_tools import complaint
from chaos_world import Asked, Burial, Harm, Outcome, Run, World, lives

from snakepit import CallQuarantinedError, SessionLostError, WorkerDiedError
from snakepit.errors import tool_error
from snakepit.procfs import read_process

PID = 7
ELSEWHERE = 8


def died(
    reason: str = "died",
    *,
    status: int | None = -signal.SIGKILL,
    pid: int | None = PID,
    started: bool = True,
) -> WorkerDiedError:
    code = status if status is not None and status >= 0 else None
    number = -status if status is not None and status < 0 else None
    told = f"exited with code {code}" if number is None else signal.Signals(number).name
    return WorkerDiedError("chaos-1.1", pid, code, number, reason, started, "", told)


def raised(kind: str = "chaos_tools.ChaosError", text: str = complaint(1)) -> Exception:
    return tool_error(
        tool="work", type=kind, message=text, traceback=text, worker_id="w", builtin="ValueError"
    )


def a_world(asked: Asked, outcome: Outcome | None, *runs: Run, transport: str = "stdio") -> World:
    """A round of one call, which has ended calmly. Plan 1 has stops of less than two seconds."""
    plan = dataclasses.replace(draw_plan(1), transport=transport, ending="calm")
    world = World(plan, Path("/nowhere"))
    world.calls[1] = asked
    if outcome is not None:
        world.outcomes[1] = outcome
    world.runs[1] = list(runs)
    world.ending_at = world.closing_at = world.closed_at = 50.0
    return world


def buried(world: World, death: WorkerDiedError, *harms: str) -> World:
    """A worker has died so in it, at 2.5, of what was done to it before."""
    world.burials[death.worker_id] = Burial(death, 2.5, at_close=False)
    world.harms[PID] = [Harm(what, 2.0) for what in harms]
    return world


RETURNED = Run(PID, 1.0, 2.0, "returned")
CUT = Run(PID, 1.0)
WORK = Asked(1, "work", "return")
EXITS = Asked(1, "work", "exit")
AGAIN = Asked(1, "again", "kill", may_again=True)
LIMITED = Asked(1, "work", "return", timeout=5.0)
RAISES = Asked(1, "work", "raise")
COUNTS = Asked(1, "count", "return", session="s")
VALUE = Outcome("value", 0.0, 3.0)
LEFT = Outcome("cancelled", 0.0, 3.0, 2.2)
LOST = Outcome("SessionLostError", 0.0, 3.0, None, SessionLostError("s", "chaos-1.1"))
GRACE_S = draw_plan(1).stop.cancel_grace
STUCK = f"was ended because 'work' did not stop within {GRACE_S:g} s of being cancelled"
HASTE = "was ended because 'work' did not stop within 0 s of being cancelled"


def ended_by(error: Exception, kind: str = "") -> Outcome:
    return Outcome(kind or type(error).__name__, 0.0, 3.0, None, error)


def quarantined(kills: int) -> Outcome:
    return ended_by(CallQuarantinedError("again", kills, 60.0, True))


DIED = ended_by(died())
TRUTHS: list[World] = [
    a_world(WORK, VALUE, RETURNED),
    a_world(WORK, LEFT, CUT),
    a_world(WORK, Outcome("PoolClosedError", 0.0, 51.0)),
    a_world(LIMITED, Outcome("CallTimeoutError", 0.0, 6.0)),
    a_world(LIMITED, Outcome("QueueTimeoutError", 0.0, 6.0)),
    a_world(RAISES, ended_by(raised(), "ToolError"), Run(PID, 1.0, 2.0, "raised")),
    buried(a_world(WORK, DIED, CUT), died(), "kill"),
    buried(a_world(EXITS, ended_by(died(status=3)), CUT), died(status=3)),
    buried(a_world(WORK, LEFT, CUT), died(STUCK)),
    buried(a_world(WORK, DIED, CUT), died(), "stop", "term", "kill"),
    buried(a_world(COUNTS, LOST), died(), "kill"),
]
LIES: list[tuple[str, World]] = [
    ("never ended", a_world(WORK, None, RETURNED)),
    ("no tool returned it", a_world(WORK, VALUE)),
    ("ran on when it had been left", a_world(WORK, Outcome("cancelled", 0, 1.5, 1.0), RETURNED)),
    ("ran 2 times, and may 1", a_world(WORK, VALUE, RETURNED, RETURNED)),
    ("nobody cancelled it", a_world(WORK, Outcome("cancelled", 0.0, 3.0), CUT)),
    ("its worker lives", a_world(WORK, DIED)),
    (
        "its worker died otherwise",
        buried(a_world(WORK, ended_by(died(status=0)), CUT), died(), "kill"),
    ),
    ("it ran elsewhere", buried(a_world(WORK, DIED, Run(ELSEWHERE, 1.0)), died(), "kill")),
    (
        "it had started",
        buried(a_world(WORK, ended_by(died(started=False)), CUT), died(), "kill"),
    ),
    ("nothing was done to it", buried(a_world(WORK, VALUE, RETURNED), died())),
    ("nothing was done to it", buried(a_world(WORK, VALUE, RETURNED), died(), "stop")),
    ("nothing was done to it", buried(a_world(WORK, VALUE, RETURNED), died(STUCK))),
    ("nothing was done to it", buried(a_world(WORK, LEFT, CUT), died(HASTE))),
    ("it ended with 0, by kill", buried(a_world(WORK, VALUE, RETURNED), died(status=0), "kill")),
    ("it ended with None", buried(a_world(WORK, VALUE, RETURNED), died(status=None), "kill")),
    ("this is no reason", buried(a_world(WORK, VALUE, RETURNED), died("was tired"), "kill")),
    ("it was not in that session", buried(a_world(WORK, LOST), died(), "kill")),
    ("its worker lives", a_world(COUNTS, LOST)),
    ("its time was not over", a_world(LIMITED, Outcome("CallTimeoutError", 0.0, 3.0))),
    ("its time was not over", a_world(LIMITED, Outcome("QueueTimeoutError", 0.0, 1.0))),
    ("it took 25.00 s to end", a_world(LIMITED, Outcome("CallTimeoutError", 0.0, 30.0))),
    ("it took 25.00 s to end", a_world(LIMITED, Outcome("value", 0.0, 30.0), RETURNED)),
    ("it took 27.80 s to end", a_world(WORK, Outcome("cancelled", 0.0, 30.0, 2.2), CUT)),
    ("lives on: [9]", a_world(WORK, dataclasses.replace(LEFT, living=[9]), CUT)),
    ("its tool did not raise", a_world(WORK, ended_by(raised(), "ToolError"), RETURNED)),
    (
        "its tool raised (",
        a_world(RAISES, ended_by(raised(text="?"), "ToolError"), Run(PID, 1.0, 2.0, "raised")),
    ),
    (
        "its tool raised (",
        a_world(RAISES, ended_by(raised(kind="ValueError"), "ToolError"), Run(PID, 1, 2, "raised")),
    ),
    ("1 deaths are not enough", a_world(AGAIN, quarantined(1), CUT)),
    ("it ran 1 times in all", buried(a_world(AGAIN, quarantined(3), CUT), died(), "kill")),
    ("the pool was not closing", a_world(WORK, Outcome("PoolClosedError", 0.0, 3.0))),
    ("it ran;", a_world(LIMITED, Outcome("QueueTimeoutError", 0, 6), RETURNED)),
    ("is not how a call ends", a_world(WORK, Outcome("KeyError", 0.0, 3.0))),
]


@pytest.mark.parametrize("world", TRUTHS)
def test_what_is_true_is_not_found_wrong(world: World) -> None:
    assert list(problems(world)) == []


@pytest.mark.parametrize(("problem", "world"), LIES, ids=[lie[0] for lie in LIES])
def test_a_lie_is_found(problem: str, world: World) -> None:
    [found] = problems(world)
    assert problem in found


def test_a_call_may_end_as_late_as_this_process_itself_is() -> None:
    world = a_world(LIMITED, Outcome("CallTimeoutError", 0.0, 30.0))
    world.pulse.note(due=6.0, woken=25.0)
    assert list(problems(world)) == []
    assert world.pulse.late_s(26.0, 30.0) == 0


def test_one_death_costs_one_call() -> None:
    world = buried(a_world(WORK, DIED, CUT), died(), "kill")
    world.calls[2], world.outcomes[2] = dataclasses.replace(WORK, number=2), DIED
    [found] = problems(world)
    assert "it fails the calls [1, 2]" in found


def test_an_error_of_a_map_in_any_order_has_to_be_one_of_its_calls() -> None:
    world = a_world(RAISES, VALUE, Run(PID, 1.0, 2.0, "returned"))
    world.unclaimed = [([RAISES], ended_by(raised(), "ToolError"))]
    [found] = problems(world)
    assert "of its calls: ['its tool did not raise']" in found
    world.runs[1][0].how, world.outcomes[1].kind = "raised", "unread"
    assert list(problems(world)) == []


def test_of_workers_that_are_not_the_pools_less_is_asked() -> None:
    """A call whose connection was lost, or that did not stop, may go on; no other, and not without a reason."""
    lost = died("lost its connection", pid=None, status=None)
    stuck = died("unresponsive", pid=None, status=None)
    runs_on = Run(PID, 1.0, 9.0)

    def found(outcome: Outcome, *harms: str, death: Any = lost, run: Run = runs_on) -> list[str]:
        world = a_world(WORK, outcome, run, transport="connect")
        world.processes[1] = [PID]
        return list(problems(buried(world, death, *harms)))

    left = dataclasses.replace(ended_by(stuck), left_at=1.5)
    assert found(ended_by(lost), "kill") == []
    assert found(left, death=stuck) == []
    assert "nothing was done" in found(ended_by(stuck), death=stuck)[-1]
    assert "nothing was done" in found(ended_by(lost))[-1]
    [lie] = found(LEFT, "kill")
    assert "ran on" in lie


def test_a_close_that_takes_too_long_is_found() -> None:
    world = a_world(WORK, VALUE, RETURNED)
    world.closed_at = world.closing_at + 60
    [found] = problems(world)
    assert found.startswith("closing took 60.0 s")


def test_the_journal_tells_who_ran_what(tmp_path: Path) -> None:
    world = World(draw_plan(1), tmp_path / "journal")
    world.read_journal()
    world.journal.write_text("begins 1 7 1.000000 -\nbegins 2 8 1.500000 -\n")
    world.read_journal()
    with world.journal.open("a") as journal:
        journal.write("starts 2 8 1.600000 99:5\nends 2 8 2.000000 raised\n")
    world.read_journal()
    assert world.runs == {1: [Run(7, 1.0)], 2: [Run(8, 1.5, 2.0, "raised", [(99, 5)])]}


def test_what_a_left_call_has_started_is_looked_at_when_it_is_left(tmp_path: Path) -> None:
    world = World(draw_plan(1), tmp_path / "journal")
    with subprocess.Popen(["sleep", "60"]) as child:
        process = read_process(child.pid)
        assert process is not None
        world.journal.write_text(
            f"begins 1 7 1.000000 -\nstarts 1 7 1.500000 {child.pid}:{process.start}\n"
        )
        left, later = Outcome("cancelled", 0.0, 2.0, 1.0), Outcome("cancelled", 0.0, 2.0, 1.0)
        world.ended(Asked(1, "work", "child"), left)
        child.kill()
        child.wait()
        world.ended(Asked(1, "work", "child"), later)
    assert (left.living, later.living) == ([child.pid], [])
    assert world.wrong == ["call 1 ended twice"]
    assert not lives(child.pid, process.start)


def a_quiet_pool(**more: Any) -> Quiet:
    worker = Counter({"pipe:[]": 3, "threads": 2})
    kept = {"fds": Counter(pipe=4), "tasks": Counter(slot=2), "calls": 0, "workers": {7: worker}}
    return Quiet(**(kept | {"used_bytes": 0} | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, []),
        ({"fds": Counter(pipe=9)}, ["descriptors: {'pipe': 5}"]),
        ({"tasks": Counter(slot=2, leak=3)}, ["tasks: {'leak': 3}"]),
        ({"calls": 2}, ["calls: {'kept': 2}"]),
        ({"workers": {8: Counter({"pipe:[]": 1})}}, []),
        ({"workers": {8: Counter(threads=3)}}, ["of worker 8: {'threads': 1}"]),
    ],
)
def test_what_a_quiet_pool_has_more_than_before_is_found(more: Any, found: list[str]) -> None:
    assert a_quiet_pool(**more).surplus(a_quiet_pool()) == found


@pytest.mark.parametrize(
    ("calls", "kib", "says", "leaks"),
    [
        (1000, 2, "+2.0 KiB for each", 0),
        (1000, 16, "+16.0 KiB for each", 1),
        (10, 16, "too few to tell", 0),
    ],
)
def test_memory_is_counted_by_the_call_and_said_where_too_few_were_made(
    calls: int, kib: int, says: str, leaks: int
) -> None:
    world = a_world(WORK, VALUE, RETURNED)
    world.workers_seen, world.calls_between, world.bytes_left = 2, calls, calls * kib * 2**10
    tally = Tally()
    tally.add(world, [])
    assert says in tally.text()
    assert len(tally.leaks()) == leaks
