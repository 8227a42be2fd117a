"""The demo runs as a newcomer runs it, and does not say that all is well when it is not."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sklearn", "rich")),
    reason="needs scikit-learn and rich",
)


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.digits", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "COLUMNS": "120", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=230,
        check=False,
    )


def table_of(output: str) -> dict[str, list[str]]:
    """The closing table: what → expected, seen, mark."""
    rows = [re.split(r"\s*[│|]\s*", line)[1:-1] for line in output.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) == 4}


@pytest.mark.timeout(240)
def test_the_demo_sees_what_it_expects() -> None:
    result = run_demo("--large-mb=16")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    table = table_of(result.stdout)
    assert {mark for _, _, mark in table.values()} == {"ok"}
    assert table["digits classified"][1] == "1797"
    assert table["workers with the same model"][1] == "2"
    assert int(table["questions of the worker"][1]) > 0
    assert table["questions, same session"][1] == "0"
    assert table["questions, next session"][1] == table["questions of the worker"][1]
    assert table["unclear digits labelled wrong"][1] == "0"
    assert table["workers of one session"][1] == "1"
    assert table["large arrays seen wrong"][1] == "0"
    assert table["bytes copied, in shared memory"][1] == "0"
    assert table["copies of it, from the heap"][1] == "1"
    ways = re.findall(r"\d+ MiB (.*?) +\d+\.\d ms to a worker and back", result.stdout)
    assert ways == ["in shared memory", "from the heap", "through a pipe"]
    assert table["WorkerDiedError"][1].endswith("signal 9")
    assert table["workers replaced"][1] == "2"
    assert table["processes left"][1] == "0"
    assert "WorkerDiedError(worker_id=" in result.stdout
    assert re.search(r"epoch +2 +loss", result.stdout)
    assert "classifying" in result.stdout
    assert "1797/1797" in result.stdout


@pytest.mark.timeout(240)
def test_the_demo_fails_when_something_is_not_as_expected() -> None:
    result = run_demo("--scenes=1", "--expect-accuracy=1.1")
    assert result.returncode == 1, result.stdout + result.stderr
    table = table_of(result.stdout)
    wrong = [what for what, (_, _, mark) in table.items() if mark == "WRONG"]
    assert wrong == ["held-out accuracy"]
    assert table["processes left"] == ["0", "0", "ok"]
