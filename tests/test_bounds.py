"""The watch of the machine: a breach of a bound is found, and lateness of the machine is none."""

from __future__ import annotations

import time

import _bounds
import pytest
from _bounds import Machine, takes_at_most, watched_machine


def test_a_breach_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bounds, "SLACK_S", 0.01)
    monkeypatch.setattr(_bounds, "LATE_FACTOR", 0.0)
    with pytest.raises(AssertionError, match=r"0\.02 s is promised"), takes_at_most(0.02):
        time.sleep(0.1)


def test_what_the_block_raises_is_raised() -> None:
    with pytest.raises(LookupError), takes_at_most(0):
        raise LookupError


def test_a_late_machine_is_allowed_for() -> None:
    machine = Machine()
    on_time_s = machine.allows(1.0)
    machine.late_s = 0.5
    assert on_time_s == 1.0 + _bounds.SLACK_S
    assert machine.allows(1.0) == on_time_s + _bounds.LATE_FACTOR * 0.5


def test_lateness_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a nap of no time each moment is late."""
    monkeypatch.setattr(_bounds, "NAP_S", 0.0)
    with watched_machine() as machine:
        while not machine.late_s:
            time.sleep(0.001)
