"""Every test named in the maps exists, and every id of the originals' features has a row."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAPS = [ROOT / "tests" / "README.md", ROOT / "docs" / "parity.md", ROOT / "docs" / "guarantees.md"]
MENTION = re.compile(r"`(?:tests/)?((?:[\w-]+/)*test_\w+\.py)(?:::(\w+(?:::\w+)?))?`")
FEATURE_COUNT = 290
STATUSES = ("works (", "planned", "differs (", "decided against (")


@cache
def names_in(path: Path) -> frozenset[str]:
    """Test functions of a file, as pytest names them after the path; found without importing."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, functions):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}::{f.name}" for f in node.body if isinstance(f, functions)}
    return frozenset(names)


def unknown_tests(text: str) -> list[str]:
    unknown = []
    for file, name in MENTION.findall(text):
        path = ROOT / "tests" / file
        if not path.is_file() or (name and name not in names_in(path)):
            unknown.append(f"{file}::{name}" if name else file)
    return unknown


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.name)
def test_every_test_named_in_a_map_exists(path: Path) -> None:
    assert unknown_tests(path.read_text(encoding="utf-8")) == []


def test_the_checker_finds_what_is_missing() -> None:
    text = (
        "`test_map.py::test_nothing` `tests/test_no_file.py` `test_map.py::names_in` `test_map.py`"
    )
    assert unknown_tests(text) == ["test_map.py::test_nothing", "test_no_file.py"]


def parity_rows() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (A-[^|]+?) \|.*\| ([^|]+?) \|$", text, re.MULTILINE)
    assert len(rows) > 50
    return rows


def test_every_feature_has_exactly_one_parity_row() -> None:
    seen: list[int] = []
    for ids, _ in parity_rows():
        for part in ids.split(", "):
            first, _, last = part.replace("A-", "").partition("–")
            seen += range(int(first), int(last or first) + 1)
    assert sorted(seen) == list(range(1, FEATURE_COUNT + 1))


def test_every_parity_row_has_a_known_status() -> None:
    wrong = [(ids, status) for ids, status in parity_rows() if not status.startswith(STATUSES)]
    assert wrong == []
