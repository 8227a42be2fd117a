"""Whose fault a death is: judged by what is known of it, and by what was seen before it."""

from __future__ import annotations

import signal

import pytest
from attrs import evolve

from snakepit.resilience import Blame, Death
from snakepit.resilience._blame import TERMINATED, Verdict

WINDOW_S = 60.0
KILL = signal.SIGKILL
NOBODYS = Verdict()
OUTSIDE = Verdict(outside=True)


def judge(death: Death, *, ready: bool = True, useful: bool = True) -> Verdict:
    return Blame(window_s=WINDOW_S).judge(0, death, ready=ready, useful=useful)


@pytest.mark.parametrize(
    "death",
    [
        Death(exit_code=1),
        Death(exit_code=0),
        Death(signal=signal.SIGSEGV),
        Death(signal=signal.SIGABRT),
        Death(signal=KILL, oom_kills=1),
        Death(),
    ],
)
def test_a_crash_is_the_worker_s_and_its_call_s_whatever_else_is_known(death: Death) -> None:
    assert judge(death) == NOBODYS
    with_call = Death(death.exit_code, death.signal, death.oom_kills, had_call=True)
    assert judge(with_call) == Verdict(of_call=True)


@pytest.mark.parametrize(
    "asked",
    [
        {"signal": signal.SIGTERM},
        {"signal": signal.SIGINT},
        {"exit_code": TERMINATED},
        {"exit_code": 0, "said_goodbye": True},
    ],
)
@pytest.mark.parametrize("had_call", [False, True])
def test_one_that_was_asked_to_end_was_asked_from_outside(asked: dict, had_call: bool) -> None:
    """If it, or others, can do anything at all; it is no sign of somebody who kills."""
    blame = Blame(window_s=WINDOW_S)
    death = Death(**asked, had_call=had_call)
    assert blame.judge(0, death, ready=False, useful=False) == NOBODYS
    assert blame.judge(0, death, ready=True, useful=True) == OUTSIDE
    assert not blame.judge(0, Death(signal=KILL, had_call=True), ready=True, useful=True).killer


def test_sigkill_of_a_worker_without_a_call_is_from_outside_if_workers_can_start() -> None:
    """Else it may be that the machine has not the memory that a start takes."""
    blame = Blame(window_s=WINDOW_S)
    kill = Death(signal=KILL)
    assert blame.judge(0, kill, ready=False, useful=False) == NOBODYS
    killed = Verdict(outside=True, killer=True)
    assert blame.judge(100, kill, ready=True, useful=False) == killed
    assert blame.judge(159, kill, ready=False, useful=False) == killed
    assert blame.judge(160, kill, ready=False, useful=False) == NOBODYS


def test_sigkill_during_a_call_is_the_call_s_until_somebody_is_seen_who_kills() -> None:
    blame = Blame(window_s=WINDOW_S)
    kill = Death(signal=KILL, had_call=True)
    assert blame.judge(0, kill, ready=True, useful=False) == Verdict(of_call=True, doubtful=True)
    assert blame.judge(1, Death(signal=KILL), ready=True, useful=False).killer
    assert blame.judge(60, kill, ready=True, useful=False) == OUTSIDE
    assert blame.judge(61, kill, ready=True, useful=False) == Verdict(of_call=True, doubtful=True)


def test_sigkill_during_a_call_is_no_fault_of_a_worker_while_workers_are_of_use() -> None:
    """That it is suspect, the call has to bear alone."""
    blame = Blame(window_s=WINDOW_S)
    kill = Death(signal=KILL, had_call=True)
    unclear = Verdict(outside=True, of_call=True, doubtful=True)
    assert blame.judge(0, kill, ready=True, useful=True) == unclear
    assert blame.judge(59, kill, ready=True, useful=False) == unclear
    assert blame.judge(60, kill, ready=True, useful=False) == Verdict(of_call=True, doubtful=True)


def test_who_was_ready_and_is_killed_is_not_to_blame_where_the_kernel_says_that_it_was_not_it() -> (
    None
):
    """Whether or not any call was finished before. Its call is suspect as before."""
    killed = Death(signal=KILL, oom_kills=0, had_call=True, was_ready=True)
    unclear = Verdict(outside=True, of_call=True, doubtful=True)
    assert judge(killed, useful=False) == unclear
    assert judge(evolve(killed, signal=signal.SIGTERM), useful=False) == OUTSIDE
    for other in (
        evolve(killed, oom_kills=None),
        evolve(killed, oom_kills=1),
        evolve(killed, was_ready=False),
        evolve(killed, signal=signal.SIGSEGV),
        evolve(killed, signal=None, exit_code=1),
    ):
        assert not judge(other, useful=False).outside
    assert not judge(Death(signal=KILL, oom_kills=0), ready=False, useful=False).outside


def test_two_calls_that_sigkill_had_ended_and_that_were_answered_then_tell_of_somebody() -> None:
    """One alone may be a call that kills now and then."""
    blame = Blame(window_s=WINDOW_S)
    assert not blame.cleared(0, b"a")
    assert not blame.cleared(1, b"a")
    assert not blame.cleared(61, b"b")
    assert blame.judge(61, Death(signal=KILL, had_call=True), ready=True, useful=False).of_call
    assert blame.cleared(120, b"a")
    assert not blame.judge(121, Death(signal=KILL, had_call=True), ready=True, useful=False).of_call


@pytest.mark.parametrize("how", [{"exit_code": 1}, {"signal": signal.SIGSEGV}])
def test_a_worker_that_crashes_again_and_again_is_at_fault_though_others_are_of_use(
    how: dict,
) -> None:
    blame = Blame(window_s=WINDOW_S)
    for now in range(10):
        assert not blame.judge(now, Death(**how), ready=True, useful=True).outside
