"""What a scenario is given: how the run was asked for. And what it gives: a table."""

from __future__ import annotations

from functools import partial
from typing import Final

from attrs import evolve, field, frozen

from benchmarks._patience import Patience
from benchmarks._results import Table
from benchmarks._rounds import Turn, play
from benchmarks._subjects import Company

FLOOR: Final = "floor"
TURNS_EACH: Final = 5
CALLERS: Final = 64
ROUNDS: Final = 7  # the fewest that gates are judged by


@frozen
class Plan:
    """How a run was asked for.

    `scale`: everything takes this much more or less time than usual. `only`: beginnings of names
    of contenders; empty: all take part. `patience`: of the whole run, with disturbed turns.
    """

    rounds: int = ROUNDS
    scale: float = 1.0
    only: tuple[str, ...] = field(default=(), converter=tuple)
    patience: Patience = field(factory=Patience)

    def longer(self, times: int) -> Plan:
        """The same with more rounds, where two are compared that differ by less than one round's luck."""
        return evolve(self, rounds=times * self.rounds) if self.rounds >= ROUNDS else self

    def wanted(self, *names: str) -> list[str]:
        """Those of them that shall take part."""
        return [name for name in names if not self.only or name.startswith((FLOOR, *self.only))]

    def seconds(self, seconds: float) -> float:
        """That much time, in this run."""
        return seconds * self.scale

    def count(self, count: int) -> int:
        """So many, in this run: fewer where the scale is below 1, never more."""
        return max(2, round(count * min(1.0, self.scale)))

    def turns(
        self, company: Company, measure: str, *, seconds: float, **arguments: object
    ) -> dict[str, Turn]:
        """A turn for each of the company: so many seconds of that measurement."""
        return {
            name: partial(subject.measure, measure, seconds=self.seconds(seconds), **arguments)
            for name, subject in company.subjects.items()
        }

    def play(
        self, turns: dict[str, Turn], company: Company, turns_each: int = TURNS_EACH
    ) -> dict[str, list[float]]:
        """The rounds of this run."""
        patient: dict[str, Turn] = {
            name: partial(self.patience.take, turn) for name, turn in turns.items()
        }
        return play(patient, rounds=self.rounds, turns_each=turns_each, failed=company.failed)


def make_table(
    name: str,
    title: str,
    rows: dict[str, list[float]],
    company: Company,
    *,
    unit: str = "s",
    base: str | None = None,
) -> Table:
    """The table of a scenario, with who is missing there."""
    return Table(name, title, unit, rows, base, dict(company.left_out), dict(company.failed))
