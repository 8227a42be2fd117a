"""A run's figures for people: on the terminal, and as the generated part of the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks._array_scenarios import ARRAY_TABLE
from benchmarks._gate_list import GATES
from benchmarks._gates import Verdict
from benchmarks._results import Results, Table
from benchmarks._rounds import Summary, ratios

BEGIN: Final = "<!-- what follows is written by `make bench UPDATE=1` -->"
END: Final = "<!-- what came before is written by `make bench UPDATE=1` -->"


def figure(value: float, unit: str) -> str:
    """A figure with its unit, to three digits."""
    if unit == "s":
        for factor, short in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 1 or short == "µs":
                return f"{_digits(value * factor)} {short}"
    if unit == "x":
        return f"{value:.2f}"
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{_digits(value)} {unit}"


def spread(summary: Summary, unit: str) -> str:
    """The median, and the lowest and the highest where there are several."""
    middle = figure(summary.median, unit)
    if summary.low == summary.high:
        return middle
    return f"{middle} ({figure(summary.low, unit)} to {figure(summary.high, unit)})"


def table_cells(table: Table) -> list[tuple[str, str, str]]:
    """The rows of a table: who, the median, the ratio to the base with its spread."""
    base = table.rows.get(table.base or "")
    cells: list[tuple[str, str, str]] = []
    for row, figures in table.rows.items():
        ratio = "" if base is None else spread(Summary.of(ratios(figures, base)), "x")
        if row == table.base:
            ratio = "1"
        cells.append((row, _middle(table, figures), ratio))
    return cells


def table_text(table: Table) -> str:
    """The table on the terminal."""
    against = (
        f"over {table.base}, per round (lowest to highest)" if table.base in table.rows else ""
    )
    cells = [("", "median", against), *table_cells(table)]
    widths = [max(len(row[column]) for row in cells) for column in (0, 1)]
    lines = [table.title]
    lines += [f"  {a:{widths[0]}}  {b:>{widths[1]}}  {c}".rstrip() for a, b, c in cells]
    lines += [f"  left out: {row}: {why}" for row, why in table.left_out.items()]
    lines += [f"  FAILED: {row}: {why}" for row, why in table.failed.items()]
    return "\n".join(lines if len(cells) > 1 else [lines[0], *lines[2:]])


def verdicts(results: Results) -> list[Verdict]:
    """The gates and goals that this run can judge."""
    judged = (gate.judge(results) for gate in GATES)
    return [verdict for verdict in judged if verdict is not None]


def verdict_cells(verdict: Verdict) -> tuple[str, str, str, str]:
    """Gate or goal, its limit, what was found, and reached or missed."""
    gate = verdict.gate
    sign = "at least" if gate.at_least else "at most"
    return (
        f"{'goal: ' if gate.goal else ''}{gate.text}",
        f"{sign} {figure(gate.limit, gate.unit)}",
        spread(verdict.figure, gate.unit),
        "reached" if verdict.reached else "missed",
    )


def verdicts_text(results: Results) -> str:
    """The gates on the terminal."""
    lines = ["Gates and goals"]
    for verdict in verdicts(results):
        text, limit, found, outcome = verdict_cells(verdict)
        lines.append(f"  {outcome:7}  {text}: {found}, {limit}")
    return "\n".join(lines)


def page_part(results: Results, plot: str, arrays_plot: str) -> str:
    """The generated part of the page, markers included."""
    return "\n".join([BEGIN, "", *_page_lines(results, plot, arrays_plot), END])


def rewrite(page: str, part: str) -> str:
    """The page with its generated part replaced. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no generated part: its two markers are missing")
    return before + part + after


def _page_lines(results: Results, plot: str, arrays_plot: str) -> Iterator[str]:
    yield f"One run of {results.rounds} rounds: " + "; ".join(results.machine.values()) + "."
    yield from ("", f"![Each contender's cost, as a multiple of snakepit's]({plot})", "")
    if any(name.startswith(ARRAY_TABLE.format("")) for name in results.tables):
        yield from (f"![An array there and back, by its size]({arrays_plot})", "")
    yield from ("### Gates and goals", "")
    cells = [verdict_cells(verdict) for verdict in verdicts(results)]
    yield from _markdown(("what", "asked for", "found", ""), cells)
    for table in results.tables.values():
        if not table.rows:
            continue
        yield from (f"### {table.title}", "")
        if table.base in table.rows:
            yield from _markdown(("", "median", f"over {table.base}"), table_cells(table))
        else:
            yield from _markdown(("", "median"), [cells[:2] for cells in table_cells(table)])
    left_out = {
        row: why for table in results.tables.values() for row, why in table.left_out.items()
    }
    if left_out:
        yield "Left out in this run: " + ", ".join(left_out) + "."
        yield ""


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _middle(table: Table, figures: Sequence[float]) -> str:
    return figure(Summary.of(figures).median, table.unit)


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
