"""What a run found: tables of figures, one row a contender, one figure a round. Plain data."""

from __future__ import annotations

from typing import Any, Final

from attrs import asdict, field, frozen

UNITS: Final = ("s", "MiB")


@frozen
class Table:
    """One measurement. Its figures cost something: the lower, the better.

    `name`: as the gates know it. `unit`: "s" or "MiB". `base`: the row that the others are
    compared with, round by round. `left_out`: rows that are not there, and why. `failed`: rows
    that should be there, and why they are not.
    """

    name: str
    title: str
    unit: str
    rows: dict[str, list[float]]
    base: str | None = None
    left_out: dict[str, str] = field(factory=dict)
    failed: dict[str, str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        assert self.unit in UNITS, self.unit


@frozen
class Results:
    """A whole run. `machine`: where it ran, and with what. `failed`: scenarios that broke off."""

    rounds: int
    machine: dict[str, str]
    tables: dict[str, Table] = field(factory=dict)
    failed: dict[str, str] = field(factory=dict)

    def row(self, table: str, row: str) -> list[float] | None:
        """A row's figures; None where it was not measured."""
        found = self.tables.get(table)
        return None if found is None else found.rows.get(row)

    def failures(self) -> dict[str, str]:
        """All that should have worked and did not."""
        rows = {
            f"{table.title}: {row}": why
            for table in self.tables.values()
            for row, why in table.failed.items()
        }
        return {**self.failed, **rows}

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Results:
        """From what `as_data` gave."""
        tables = {name: Table(**table) for name, table in data["tables"].items()}
        return cls(**{**data, "tables": tables})
