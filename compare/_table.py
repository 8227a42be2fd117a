"""The results as text: on the terminal, in the README, and as the generated part of `docs/compare.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from compare._contenders import EVERYONE
from compare._results import Results, version_of
from compare._scenarios import SCENARIOS

BEGIN: Final = "<!-- what follows is written by `make compare` -->"
END: Final = "<!-- what came before is written by `make compare` -->"


def rows_of(results: Results) -> list[list[str]]:
    """The table: a head, and a row for each contender that took part."""
    scenarios = [name for name in SCENARIOS if any(name in row for row in results.facts.values())]
    head = ["", *(SCENARIOS[name].title for name in scenarios)]
    return [
        head,
        *(
            [contender, *(results.cell(contender, scenario) for scenario in scenarios)]
            for contender in EVERYONE
            if contender in results.facts
        ),
    ]


def on_terminal(results: Results) -> str:
    """A block for each contender: the table is too wide for a terminal."""
    head, *rows = rows_of(results)
    width = max(map(len, head))
    return "\n".join(
        "\n".join(
            [
                contender,
                *(
                    f"  {title:{width}}  {cell}"
                    for title, cell in zip(head[1:], cells, strict=True)
                ),
            ]
        )
        for contender, *cells in rows
    )


def for_readme(results: Results) -> str:
    """The generated part of the README, markers included."""
    versions = dict.fromkeys(version_of(name) for name in EVERYONE if name in results.facts)
    ran = f"Run on {results.date} with {', '.join(versions)}."
    return "\n".join([BEGIN, "", *markdown(rows_of(results)), "", ran, "", END])


def for_page(results: Results) -> str:
    """The generated part of the page, markers included."""
    names = [name for name in EVERYONE if name in results.facts]
    lines = [
        *(BEGIN, "", f"Run on {results.date}: {results.machine}.", ""),
        *markdown(rows_of(results)),
        *("", "What else was seen:", ""),
        *markdown([["", *_remarked()], *([n, *_remarks(results, n)] for n in names)]),
        *("", "What ran, and how a call is stopped in it:", ""),
        *markdown(
            [["", "version", "a call is stopped by", "which ends"]]
            + [[n, version_of(n), EVERYONE[n].how, EVERYONE[n].stops] for n in names]
        ),
        *("", END),
    ]
    return "\n".join(lines)


def rewrite(page: str, part: str) -> str:
    """The page with its generated part replaced. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no generated part: its two markers are missing")
    return before + part + after


def markdown(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """A table whose first row is its head."""
    head, *others = rows
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in others:
        yield "| " + " | ".join(row) + " |"


def _remarked() -> list[str]:
    return ["kill", "cancel", "grandchild", "orphans", "keep", "gil"]


def _remarks(results: Results, contender: str) -> list[str]:
    return [results.remarks(contender, scenario) for scenario in _remarked()]
