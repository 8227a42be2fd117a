"""How long what a call has started gets between SIGTERM and SIGKILL."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from _bounds import takes_at_most

from snakepit.procfs import Process
from snakepit.worker import _offspring
from snakepit.worker._offspring import Offspring, now

DEAF = ["sh", "-c", "trap '' TERM; echo; while :; do sleep 1000; done"]


@contextmanager
def child(command: list[str]) -> Generator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            if command is DEAF:
                assert process.stdout is not None
                process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it was ready to wait for what had got SIGTERM."""
    found: list[float] = []
    wait_dead = _offspring.wait_dead

    def noted(processes: list[Process], timeout_s: float) -> object:
        found.append(timeout_s)
        return wait_dead(processes, timeout_s)

    monkeypatch.setattr(_offspring, "wait_dead", noted)
    return found


@pytest.mark.parametrize(
    ("grace_s", "polite_s"), [(60.0, 0.2), (0.8, 0.2), (0.4, 0.1), (0.04, 0.01), (0.0, 0.0)]
)
def test_a_fifth_of_a_second_and_at_most_a_quarter_of_the_grace(
    grace_s: float, polite_s: float, waits: list[float]
) -> None:
    begun = now()
    with takes_at_most(polite_s), child(DEAF) as process:
        Offspring().end_since(begun, grace_s)
        assert process.wait(5) == -signal.SIGKILL
    assert waits == [pytest.approx(polite_s)]


def test_who_obeys_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_offspring, "POLITE_S", 60.0)
    begun = now()
    with takes_at_most(0), child(["sleep", "1000"]) as process:
        Offspring().end_since(begun, 1000.0)
        assert process.wait(5) == -signal.SIGTERM


def test_what_begins_after_the_last_look_is_known_for_another_ones_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is reaped once its parent is gone, and is no zombie of the worker for ever."""
    offspring, begun = Offspring(), now()
    monkeypatch.setattr(offspring, "look", lambda: None)
    with child(["sh", "-c", "sleep 1000 & echo; wait"]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (below,) = _offspring.descendants_of(process.pid)
        offspring.end_since(begun, 60.0)
        assert process.wait(5) == -signal.SIGTERM
    assert offspring._grandchildren == {(below.pid, below.start)}
