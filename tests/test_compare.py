"""What the facts of `make compare` say in its tables, and which of them our own rows must not say."""

import re
from pathlib import Path
from typing import Any

import pytest
from _compare_kit import WELL, all_well

from compare import _table
from compare._contenders import EVERYONE, SNAKEPITS
from compare._results import version_of
from compare._scenarios import SCENARIOS, STOPPED_S_MAX
from snakepit import Stop

ROOT = Path(__file__).parents[1]
OURS = SNAKEPITS[0].name
WAITS = "its caller waits for more than 10 s"
# Facts that are not what we promise, and what the table says of them.
ILL = [
    ("kill", {"neighbour": "killed"}, "killed / usable"),
    ("kill", {"pool": "unusable"}, "survives / unusable"),
    (
        "kill",
        {"told": "nothing", "truthful": False},
        "survives / usable; its caller waits for ever",
    ),
    (
        "kill",
        {"told": "TypeError", "truthful": False},
        "survives / usable; its caller gets TypeError",
    ),
    ("kill", {"told": "a value", "truthful": False}, "survives / usable; its caller gets a value"),
    ("cancel", {"computing": True}, "no"),
    ("cancel", {"neighbour": "killed"}, "with the whole pool"),
    ("cancel", {"pool": "unusable"}, "yes, pool unusable"),
    ("cancel", {"left_s": None}, f"yes; {WAITS}"),
    ("cancel", {"left_s": 7.25}, "yes; its caller leaves after 7.2 s"),
    ("grandchild", {"lives": True}, "leaked"),
    ("grandchild", {"stops": "the pool"}, "killed with the whole pool"),
    ("grandchild", {"left_s": None}, f"killed; {WAITS}"),
    ("exception", {"told": "TypeError"}, "TypeError / usable"),
    ("exception", {"told": "nothing"}, "the caller waits for ever / usable"),
    ("orphans", {"workers": [1, 0, 0]}, "1 / 0 / 0"),
    ("orphans", {"workers": [1, 0, 0], "others": [1, 0, 0]}, "1 / 0 / 0"),
    ("orphans", {"others": [1, 1, 1]}, "0 / 0 / 0; helpers 1 / 1 / 1"),
    ("orphans", {"others": [1, 0, 0]}, "0 / 0 / 0; helpers 1 / 0 / 0"),
    ("raw", {"told": "BrokenWorkerProcess"}, "BrokenWorkerProcess"),
    ("raw", {"pool": "unusable"}, "pool unusable"),
    ("keep", {"loaded": "no"}, "no"),
    ("keep", {"loaded": "the call goes on"}, "the call goes on"),
    ("keep", {"left_s": None}, f"yes; {WAITS}"),
    ("gil", {"ended_s": None}, "no"),
    ("gil", {"neighbour": "killed"}, "with the whole pool"),
    ("gil", {"left_s": None}, f"yes; {WAITS}"),
    ("gil", {"left_s": 5.1}, "yes; its caller leaves after 5.1 s"),
]


def test_rows_that_read_as_promised_are_no_problem() -> None:
    results = all_well()
    assert set(WELL) == set(SCENARIOS)
    assert results.problems() == []
    assert results.is_whole()


def test_callers_of_ours_have_what_is_promised_and_two_seconds_for_a_slow_machine() -> None:
    """`cancel_grace + term_grace`, docs/guarantees.md, "When a call is left"."""
    assert Stop().cancel_grace + Stop().term_grace + 2 == STOPPED_S_MAX
    results = all_well()
    for scenario in ("cancel", "grandchild", "keep", "gil"):
        results.facts[OURS][scenario]["left_s"] = STOPPED_S_MAX
    assert results.problems() == []


@pytest.mark.parametrize(("scenario", "otherwise", "cell"), ILL)
def test_our_own_row_has_to_read_as_promised_and_nobody_elses(
    scenario: str, otherwise: dict[str, Any], cell: str
) -> None:
    results = all_well()
    results.facts["pebble"][scenario] |= otherwise
    assert results.cell("pebble", scenario) == cell
    assert results.problems() == []
    results.facts[OURS][scenario] |= otherwise
    [problem] = results.problems()
    assert problem.startswith(f"{OURS}, {scenario}: {cell!r} in place of ")


def test_a_trial_that_failed_is_a_problem_whosever_it_is() -> None:
    results = all_well()
    results.facts["pebble"]["gil"] = {"failed": "no facts"}
    assert results.problems() == ["pebble, gil: no facts"]
    assert results.cell("pebble", "gil") == "failed"


def test_who_is_not_installed_leaves_a_gap_and_the_run_is_not_whole() -> None:
    results = all_well()
    results.facts["loky"] = {name: {"left_out": "not installed"} for name in SCENARIOS}
    assert results.cell("loky", "kill") == "–"
    assert results.problems() == []
    assert not results.is_whole()
    assert results.missing() == {"loky": "not installed"}


def test_when_orphans_end_is_told() -> None:
    results = all_well()
    assert results.remarks(OURS, "orphans") == "the last worker ends after 0.1 s"
    results.facts["loky"]["orphans"] = {"workers": [2] * 3, "others": [1] * 3, "ended_s": None}
    assert results.remarks("loky", "orphans") == (
        "a worker lives after 90 s; helpers left: 1 / 1 / 1"
    )


def test_the_tables_have_a_row_for_each_contender_and_keep_what_people_wrote() -> None:
    results = all_well()
    for name, part in (
        ("README.md", _table.for_readme(results)),
        ("docs/compare.md", _table.for_page(results)),
    ):
        page = (ROOT / name).read_text(encoding="utf-8")
        new = _table.rewrite(page, part)
        assert new.partition(_table.BEGIN)[0] == page.partition(_table.BEGIN)[0]
        assert new.partition(_table.END)[2] == page.partition(_table.END)[2]
        assert _table.rewrite(new, part) == new
        cells = (
            "survives / usable | yes | killed | original / usable | 0 / 0 / 0 | immune | yes | yes"
        )
        for contender in EVERYONE:
            assert f"| {contender} | {cells} |" in new
            assert version_of(contender) in new
        assert "1 May 2030" in new
    assert "1 May 2030: a machine" in new
    assert "it ends after 3.10 s; the caller leaves after 3.12 s" in new
    assert f"| loky | {version_of('loky')} |" in new
    with pytest.raises(ValueError, match="markers"):
        _table.rewrite("a page", part)


def test_what_the_readme_and_the_page_show_is_what_we_promise() -> None:
    """The tables that are checked in come from a run of the real thing."""
    for name in ("README.md", "docs/compare.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for ours in SNAKEPITS:
            row = re.search(rf"^\| {ours.name} \| (.*) \|$", text, re.MULTILINE)
            assert row, f"{name} has no row for {ours.name}: make compare"
            cells = row[1].split(" | ")
            for cell, scenario in zip(cells, SCENARIOS.values(), strict=True):
                assert re.fullmatch(scenario.wanted, cell)
        assert re.search(r"^Run on \d+ \w+ 20\d\d", text, re.MULTILINE)
        for contender in EVERYONE.values():
            if contender.distribution:
                assert re.search(rf"\b{contender.distribution} \d", text)
