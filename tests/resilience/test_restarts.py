"""The restart budget: at once after a useful life, later and later after fruitless ones, then never."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.resilience import RestartBudget
from snakepit.resilience._restarts import BACKOFF_FIRST_S, BACKOFF_MAX_S

FRUITFUL, FRUITLESS = True, False


@pytest.mark.parametrize(
    ("lives", "delays"),
    [
        ([], []),
        ([FRUITFUL] * 4, [0, 0, 0, 0]),
        ([FRUITLESS], [0]),
        ([FRUITLESS] * 6, [0, 0.1, 0.2, 0.4, 0.8, None]),
        ([FRUITLESS, FRUITLESS, FRUITFUL, FRUITLESS, FRUITLESS], [0, 0.1, 0, 0, 0.1]),
        ([FRUITFUL, FRUITLESS], [0, 0]),
    ],
)
def test_the_delays_before_the_next_start(lives: list[bool], delays: list[float | None]) -> None:
    """All within the window, with five restarts allowed."""
    budget = RestartBudget(max_restarts=5, window_s=60)
    found = [budget.ended(float(now), fruitful=life) for now, life in enumerate(lives)]
    assert found == pytest.approx(delays) if None not in delays else found == delays


def test_without_restarts_the_first_fruitless_start_is_the_end() -> None:
    assert RestartBudget(max_restarts=0, window_s=60).ended(1.0, fruitful=False) is None


def test_a_useful_life_is_never_the_end() -> None:
    budget = RestartBudget(max_restarts=0, window_s=60)
    assert [budget.ended(1.0, fruitful=True) for _ in range(100)] == [0.0] * 100


def test_fruitless_starts_outside_the_window_do_not_count() -> None:
    """The window is half open: a start exactly `window` ago is out of it."""
    budget = RestartBudget(max_restarts=1, window_s=10)
    assert budget.ended(0.0, fruitful=False) is not None
    assert budget.ended(10.0, fruitful=False) is not None
    assert budget.ended(19.9, fruitful=False) is None


def test_the_backoff_has_a_maximum_however_long_it_goes_on() -> None:
    """A worker that dies at once, slowly enough for its budget, may do so for years."""
    budget = RestartBudget(max_restarts=5, window_s=10)
    delays = [budget.ended(5.0 * n, fruitful=False) for n in range(3000)]
    assert delays[-1] == BACKOFF_MAX_S
    assert None not in delays


def test_the_start_that_just_ended_counts_however_small_the_window() -> None:
    """Also where `now - window` is `now`, in floating point."""
    for max_restarts, expected in [(0, None), (1, 0.0)]:
        budget = RestartBudget(max_restarts=max_restarts, window_s=1e-9)
        assert budget.ended(1e12, fruitful=False) == expected


@settings(max_examples=300, deadline=None)
@given(
    max_restarts=st.integers(0, 6),
    window_s=st.sampled_from([1e-12, 0.5, 10.0, 60.0]),
    lives=st.lists(st.tuples(st.sampled_from([0.0, 0.3, 4.0, 30.0]), st.booleans()), max_size=40),
)
def test_the_budget_against_its_definition(
    max_restarts: int, window_s: float, lives: list[tuple[float, bool]]
) -> None:
    budget = RestartBudget(max_restarts=max_restarts, window_s=window_s)
    now, in_a_row = 1e6, 0
    fruitless: list[float] = []
    for elapsed, fruitful in lives:
        now += elapsed
        delay = budget.ended(now, fruitful=fruitful)
        if fruitful:
            in_a_row = 0
            assert delay == 0.0
            continue
        in_a_row += 1
        recent = 1 + sum(when > now - window_s for when in fruitless)
        fruitless.append(now)
        if recent > max_restarts:
            assert delay is None
            return
        expected = 0.0 if in_a_row == 1 else BACKOFF_FIRST_S * 2 ** (in_a_row - 2)
        assert delay == pytest.approx(min(expected, BACKOFF_MAX_S))
