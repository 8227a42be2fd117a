"""Where a new session goes: to the worker that has the fewest. Pure; every operation O(1)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from snakepit.pool._seat import Seat


class Homes:
    """The workers that take sessions, in rows by how many each has."""

    def __init__(self) -> None:
        self._counts: dict[Seat[Any], int] = {}
        self._rows: dict[int, OrderedDict[Seat[Any], None]] = {}
        self._fewest = 0

    def add(self, seat: Seat[Any]) -> None:
        """A worker is there, without sessions."""
        self._put(seat, 0)

    def remove(self, seat: Seat[Any]) -> None:
        """This one takes no more; harmless if it was not there."""
        if seat in self._counts:
            self._take(seat)
            if self._counts and self._fewest not in self._rows:
                self._fewest = min(self._rows)  # looks at all, once in the life of a worker

    def fewest(self) -> Seat[Any] | None:
        """The worker with the fewest sessions; in turns, where several have as few."""
        return next(iter(self._rows[self._fewest])) if self._counts else None

    def count(self, seat: Seat[Any], change: int) -> None:
        """It has one session more, or one less."""
        assert change in (1, -1)
        if seat in self._counts:
            self._put(seat, self._take(seat) + change)

    def _take(self, seat: Seat[Any]) -> int:
        number = self._counts.pop(seat)
        row = self._rows[number]
        del row[seat]
        if not row:
            del self._rows[number]
        return number

    def _put(self, seat: Seat[Any], number: int) -> None:
        """Where the row with the fewest has just been emptied, this one is the next."""
        self._counts[seat] = number
        row = self._rows.get(number)
        if row is None:
            row = self._rows[number] = OrderedDict()
        row[seat] = None
        if number < self._fewest or self._fewest not in self._rows:
            self._fewest = number
