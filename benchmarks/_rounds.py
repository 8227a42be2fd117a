"""Rounds, in which contenders take turns, and what is made of their figures. Pure.

This machine is shared, and its speed changes from second to second. So nobody is measured for
long at a stretch: within a round everybody has a few short turns, one after the other, and two
contenders are compared by the ratio of their figures within one round. What is told is the
median of these ratios, and the lowest and the highest as their spread.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

Turn = Callable[[], float]


class FailedError(Exception):
    """A contender should have been able to do this, and was not."""


@frozen
class Summary:
    """A median and its spread over the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Summary:
        """Sum up the figures of the rounds, one each."""
        return cls(min(figures), statistics.median(figures), max(figures))


def play(
    turns: Mapping[str, Turn], *, rounds: int, turns_each: int, failed: dict[str, str]
) -> dict[str, list[float]]:
    """Let everybody have `turns_each` turns in each round; a round's figure is their median.

    Who begins changes from turn to turn, so that nobody always follows the same neighbour. Whose
    turn raises FailedError has no row, and is added to `failed`; the others go on.
    """
    names = list(turns)
    figures: dict[str, list[float]] = {name: [] for name in names}
    begins = 0
    for _ in range(rounds if names else 0):
        taken: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(turns_each):
            for name in names[begins:] + names[:begins]:
                if name in failed:
                    continue
                try:
                    taken[name].append(turns[name]())
                except FailedError as error:
                    failed[name] = str(error)
            begins = (begins + 1) % len(names)
        for name in names:
            if name not in failed:
                figures[name].append(statistics.median(taken[name]))
    return {name: row for name, row in figures.items() if name not in failed}


def ratios(figures: Sequence[float], *others: Sequence[float]) -> list[float]:
    """Round by round, the figure over the lowest of the others' in that round."""
    best = [min(theirs) for theirs in zip(*others, strict=True)]
    return [mine / other for mine, other in zip(figures, best, strict=True)]
