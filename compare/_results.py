"""What a run has found: facts of each scenario with each contender, and what they say in the table."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib import metadata
from typing import Any, Final

from attrs import field, frozen

from compare._contenders import EVERYONE, SNAKEPITS
from compare._scenarios import SCENARIOS, Facts

LEFT_OUT: Final = "left_out"
FAILED: Final = "failed"


@frozen
class Results:
    """`facts`: by contender, then by scenario; also why one could not take part, or failed."""

    date: str
    machine: str
    facts: dict[str, dict[str, Facts]] = field(factory=dict)

    @classmethod
    def begin(cls) -> Results:
        """None yet, from this machine, today."""
        today = datetime.datetime.now(tz=datetime.UTC).strftime("%-d %B %Y")
        return cls(
            today,
            f"{platform.python_implementation()} {platform.python_version()}, "
            f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs",
        )

    def add(self, contender: str, scenario: str, facts: Facts) -> None:
        """Keep what one trial has found."""
        self.facts.setdefault(contender, {})[scenario] = facts

    def cell(self, contender: str, scenario: str) -> str:
        """A cell of the table."""
        facts = self.facts.get(contender, {}).get(scenario)
        if facts is None or LEFT_OUT in facts:
            return "–"
        return "failed" if FAILED in facts else SCENARIOS[scenario].cell(facts)

    def remarks(self, contender: str, scenario: str) -> str:
        """What there is to say beside it."""
        facts = self.facts.get(contender, {}).get(scenario, {LEFT_OUT: ""})
        return "" if {LEFT_OUT, FAILED} & set(facts) else SCENARIOS[scenario].remarks(facts)

    def problems(self) -> list[str]:
        """Trials that failed, and what in our own rows does not read as it has to."""
        found = [
            f"{contender}, {scenario}: {facts[FAILED]}"
            for contender, row in self.facts.items()
            for scenario, facts in row.items()
            if FAILED in facts
        ]
        for ours in SNAKEPITS:
            for scenario in self.facts.get(ours.name, {}):
                cell, wanted = self.cell(ours.name, scenario), SCENARIOS[scenario].wanted
                if not re.fullmatch(wanted, cell):
                    found.append(f"{ours.name}, {scenario}: {cell!r} in place of {wanted!r}")
        return found

    def verdict(self) -> list[str]:
        """What the facts say of our own rows. Of those that took part: a choice may leave all of them out."""
        if problems := self.problems():
            return [f"WRONG: {problem}" for problem in problems]
        ours = [contender.name for contender in SNAKEPITS if contender.name in self.facts]
        if not ours:
            return ["none of ours took part: this says nothing about our own rows"]
        return [f"our rows read as promised: {', '.join(ours)}"]

    def missing(self) -> dict[str, str]:
        """Who could not take part, and why."""
        return {
            contender: facts[LEFT_OUT]
            for contender, row in self.facts.items()
            for facts in row.values()
            if LEFT_OUT in facts
        }

    def why_unwritten(self) -> str:
        """Why this is nothing to be published; nothing, if it is."""
        if self.problems():
            return "what is wrong is no table to be published"
        if missing := self.missing():
            return f"{', '.join(missing)} could not take part"
        return "" if self.is_whole() else "this was a part of the run"

    def is_whole(self) -> bool:
        """Did everybody take part in everything?"""
        return all(
            LEFT_OUT not in self.facts.get(contender, {}).get(scenario, {LEFT_OUT: ""})
            for contender in EVERYONE
            for scenario in SCENARIOS
        )

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"date": self.date, "machine": self.machine, "facts": self.facts}


def version_of(contender: str) -> str:
    """The version of its distribution, or that of Python."""
    name = EVERYONE[contender].distribution
    if name is None:
        return f"Python {platform.python_version()}"
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name}, not installed"
