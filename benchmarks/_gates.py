"""How figures are judged: gates, and the goals beyond them. `_gate_list.py` has them. Pure."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from benchmarks._results import Results
from benchmarks._rounds import Summary, ratios

Figures = Callable[[Results], list[float] | None]


@frozen
class Gate:
    """One figure and its limit; `goal`: it is hoped for, not asked for."""

    text: str
    figures: Figures
    limit: float
    unit: str = "x"
    at_least: bool = False
    goal: bool = False

    def judge(self, results: Results) -> Verdict | None:
        """None: it was not measured in this run."""
        figures = self.figures(results)
        if not figures:
            return None
        summary = Summary.of(figures)
        found = summary.median
        return Verdict(self, summary, found >= self.limit if self.at_least else found <= self.limit)


@frozen
class Verdict:
    """A gate and what was measured; it is judged by the median."""

    gate: Gate
    figure: Summary
    reached: bool


def cost(table: str, row: str, *others: str) -> Figures:
    """What the row costs, as a multiple of the best of the others, round by round."""

    def figures(results: Results) -> list[float] | None:
        mine = results.row(table, row)
        theirs = [found for other in others if (found := results.row(table, other))]
        return ratios(mine, *theirs) if mine and len(theirs) == len(others) else None

    return figures


def above(table: str, row: str, other: str) -> Figures:
    """How many milliseconds the row costs more than the other, round by round."""

    def figures(results: Results) -> list[float] | None:
        mine, theirs = results.row(table, row), results.row(table, other)
        if not mine or not theirs:
            return None
        return [1e3 * (a - b) for a, b in zip(mine, theirs, strict=False)]

    return figures


def speed(table: str, row: str, *others: str) -> Figures:
    """How much faster the row is than the best of the others, round by round."""

    def figures(results: Results) -> list[float] | None:
        found = cost(table, row, *others)(results)
        return None if found is None else [1 / ratio for ratio in found]

    return figures


def rate(table: str, row: str) -> Figures:
    """Calls per second."""

    def figures(results: Results) -> list[float] | None:
        found = results.row(table, row)
        return None if found is None else [1 / seconds for seconds in found]

    return figures


def median(table: str, row: str) -> Figures:
    """The row's own figures."""
    return lambda results: results.row(table, row)


def worst(table: str, *rows: str) -> Figures:
    """The highest figure of these rows, with no other to compare with."""

    def figures(results: Results) -> list[float] | None:
        found = [figure for row in rows for figure in results.row(table, row) or ()]
        return [max(found)] if found else None

    return figures
