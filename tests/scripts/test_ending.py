"""How a program's end goes on, step by step: pure, the time given."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.scripts._ending import Ending, Step
from snakepit.scripts._outcome import code_of_error


def ending(
    timeout: float | None = None,
    shutdown_timeout: float | None = 15,
    cleanup_timeout: float | None = 10,
) -> Ending:
    return Ending(
        100.0,
        timeout=timeout,
        shutdown_timeout=shutdown_timeout,
        cleanup_timeout=cleanup_timeout,
    )


def test_a_program_without_a_limit_runs_for_ever() -> None:
    one = ending()
    assert one.seconds_left(1e9) is None
    assert one.step is Step.RUNNING


def test_a_signal_begins_the_end_and_each_limit_goes_on_with_it() -> None:
    one = ending()
    one.on_signal(signal.SIGTERM, 200)
    assert (one.step, one.code, one.seconds_left(200)) == (Step.CLOSING, 143, 15)
    one.on_time(215)
    assert (one.step, one.code, one.seconds_left(217)) == (Step.KILLED, 143, 8)
    one.on_time(225)
    assert (one.step, one.code, one.seconds_left(225)) == (Step.OVER, 143, None)


def test_each_further_signal_goes_on_at_once_and_the_first_one_is_the_cause() -> None:
    one = ending()
    steps = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        one.on_signal(number, 101)
        steps.append(one.step)
    assert steps == [Step.CLOSING, Step.KILLED, Step.OVER, Step.OVER]
    assert one.code == 130


def test_a_program_whose_time_is_up_is_closed() -> None:
    one = ending(timeout=5)
    assert one.seconds_left(102) == 3
    one.on_time(105)
    assert (one.step, one.code, one.seconds_left(105)) == (Step.CLOSING, 124, 15)
    one.on_signal(signal.SIGINT, 106)
    assert (one.step, one.code) == (Step.KILLED, 124)


def test_what_main_leaves_to_the_loop_has_the_same_limits_and_its_code_counts() -> None:
    one = ending(timeout=5)
    one.on_main_ended(3, 104)
    assert (one.step, one.code, one.seconds_left(104)) == (Step.CLOSING, 3, 15)
    one.on_signal(signal.SIGINT, 105)
    assert (one.step, one.code) == (Step.KILLED, 3)


def test_a_main_that_ends_while_it_is_closed_gets_no_more_time_for_that() -> None:
    one = ending()
    one.on_signal(signal.SIGINT, 100)
    one.on_main_ended(0, 114)
    assert (one.step, one.code, one.seconds_left(114)) == (Step.CLOSING, 0, 1)


def test_a_limit_that_is_none_is_never_up_and_one_that_has_passed_is_up_now() -> None:
    one = ending(shutdown_timeout=None, cleanup_timeout=0)
    one.on_signal(signal.SIGINT, 100)
    assert one.seconds_left(1e9) is None
    one.on_signal(signal.SIGINT, 100)
    assert one.seconds_left(100) == 0
    assert one.seconds_left(1000) == 0


@given(st.lists(st.sampled_from(["signal", "time", "main"]), max_size=8))
def test_it_only_goes_forward_one_step_at_a_time(facts: list[str]) -> None:
    one = ending(timeout=1)
    for now, fact in enumerate(facts, 101):
        before = one.step
        if fact == "signal":
            one.on_signal(signal.SIGINT, now)
        elif fact == "time":
            one.on_time(now)
        else:
            one.on_main_ended(0, now)
        assert one.step - before in (0, 1)
        assert one.step > Step.RUNNING
        assert (one.seconds_left(now) is None) == (one.step is Step.OVER)


INTERRUPT, EXIT, ERROR = KeyboardInterrupt(), SystemExit(3), ValueError()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ERROR, 1),
        (EXIT, 3),
        (INTERRUPT, 130),
        (SystemExit(), 0),
        (SystemExit(True), 1),
        (SystemExit("what went wrong"), 1),
        (BaseExceptionGroup("", [EXIT]), 3),
        (BaseExceptionGroup("", [BaseExceptionGroup("", [EXIT]), SystemExit(4)]), 3),
        (BaseExceptionGroup("", [EXIT, INTERRUPT]), 130),
        (BaseExceptionGroup("", [EXIT, ERROR]), 1),
        (ExceptionGroup("", [ERROR]), 1),
        (GeneratorExit(), 1),
    ],
    ids=repr,
)
def test_an_error_has_the_exit_code_that_the_interpreter_would_give_it(
    error: BaseException, code: int
) -> None:
    """Groups as what is in them, where that is all of one kind."""
    assert code_of_error(error) == code
