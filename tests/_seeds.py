"""A run ends with how many seeds the simulation was run from, and what they met."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

seeds = 0
endings: Counter[str] = Counter()
map_endings: Counter[str] = Counter()
session_endings: Counter[str] = Counter()
faults: Counter[str] = Counter()
behaviours: Counter[str] = Counter()


def add(world: Any) -> None:
    """Count a simulation that is over."""
    global seeds
    seeds += 1
    endings.update(outcome.kind for outcome in world.outcomes.values())
    faults.update(type(fault).__name__ for _, fault in world.faults.happened)
    map_endings.update(world.map_endings)
    session_endings.update(world.session_endings)
    behaviours.update(world.calls[n].order["how"] for n in world.runs if n in world.calls)


def line() -> str:
    calls, wrongs = sum(endings.values()), sum(faults.values())
    maps, sessions = sum(map_endings.values()), sum(session_endings.values())
    return (
        f"{seeds:,} seeds: {calls:,} calls, {maps:,} maps, {sessions:,} sessions, {wrongs:,} faults; "
        "make simulate goes on"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if seeds:
        terminalreporter.section("simulation")
        terminalreporter.line(line())
