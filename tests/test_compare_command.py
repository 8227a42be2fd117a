"""`make compare` as a command: its verdict, its exit status, what it writes; and quick runs of the real thing."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _compare_kit import WELL

from compare import _table
from compare.__main__ import compare
from compare._contenders import EVERYONE, SNAKEPITS
from compare._scenarios import SCENARIOS

ROOT = Path(__file__).parents[1]
OURS = [contender.name for contender in SNAKEPITS]
EMPTY = f"what people wrote\n{_table.BEGIN}\n{_table.END}\n"


def compared(
    folder: Path,
    changed: dict[tuple[str, str], dict[str, Any]],
    only: tuple[str, ...] = tuple(SCENARIOS),
    contenders: tuple[str, ...] = tuple(EVERYONE),
) -> tuple[int, str]:
    """The exit status, and the page, where all is well but for this."""
    page = folder / "page.md"
    page.write_text(EMPTY, encoding="utf-8")
    options = argparse.Namespace(only=only, contenders=contenders, jobs=2, folder=folder)

    def trial(scenario: str, contender: str, folder: Path) -> dict[str, Any]:
        return changed.get((contender, scenario), WELL[scenario])

    status = compare(options, trial, {page: _table.for_readme})
    return status, page.read_text(encoding="utf-8")


def test_a_whole_run_in_which_all_is_well_writes_the_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, page = compared(tmp_path, {})
    assert status == 0
    assert f"| {OURS[0]} | survives" in page
    out = capsys.readouterr().out
    assert f"our rows read as promised: {', '.join(OURS)}\npage.md rewritten\n" in out


@pytest.mark.parametrize("ours", OURS)
def test_the_command_fails_and_writes_nothing_if_a_row_of_ours_is_wrong(
    ours: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, page = compared(tmp_path, {(ours, "keep"): {"left_s": None, "loaded": "yes"}})
    assert status == 1
    assert page == EMPTY
    out = capsys.readouterr().out
    assert f"WRONG: {ours}, keep: 'yes; its caller waits for more than 10 s'" in out
    assert "no page is rewritten: what is wrong" in out
    assert "as promised" not in out


def test_the_command_fails_and_writes_nothing_if_a_trial_failed(tmp_path: Path) -> None:
    assert compared(tmp_path, {("pebble", "gil"): {"failed": "no facts"}}) == (1, EMPTY)


def test_a_run_without_us_does_not_speak_of_our_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(tmp_path, {}, only=("kill",), contenders=("loky",)) == (0, EMPTY)
    out = capsys.readouterr().out
    assert "none of ours took part: this says nothing about our own rows" in out
    assert "no page is rewritten: this was a part of the run" in out
    assert "as promised" not in out


def test_who_could_not_take_part_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {("loky", name): {"left_out": "not installed"} for name in SCENARIOS}
    assert compared(tmp_path, gone) == (0, EMPTY)
    out = capsys.readouterr().out
    assert "MISSING: loky: not installed\nour rows read as promised" in out
    assert "no page is rewritten: loky could not take part" in out


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compare", "--folder", str(folder), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


# All of them on one transport; each other one has its turn with one of them.
@pytest.mark.parametrize(
    ("ours", "quick"),
    [
        ("snakepit stdio", ("kill", "exception", "raw", "keep")),
        ("snakepit shm", ("kill",)),
        ("snakepit grpc", ("keep",)),
    ],
)
def test_our_rows_of_the_quick_scenarios(ours: str, quick: tuple[str, ...], tmp_path: Path) -> None:
    """A part of the real run; it writes no table."""
    before = (ROOT / "README.md").read_text(encoding="utf-8")
    run = command(tmp_path, "--contenders", ours, "--only", ",".join(quick))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"our rows read as promised: {ours}\n" in run.stdout
    facts = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["facts"]
    assert {name: set(row) for name, row in facts.items()} == {ours: set(quick)}
    for scenario in quick:
        assert set(WELL[scenario]) <= set(facts[ours][scenario])
    assert (ROOT / "README.md").read_text(encoding="utf-8") == before


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    assert command(tmp_path, "--only", "nonsense").returncode == 2
    assert command(tmp_path, "--contenders", "nobody").returncode == 2
