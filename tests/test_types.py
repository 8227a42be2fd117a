"""mypy and pyright infer what `tests/types/` says, and find what it says is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STATED = ROOT / "tests" / "types" / "typed_calls.py"
# Would the checkers notice? Each line here contradicts STATED in one way.
WRONG = [
    ('assert_type(await pool.call(Words.count, text="a"), int)', "int)", "str)"),
    ("assert_type(await anext(letters_too), bytes)", "bytes)", "Any)"),
    ("await pool.call(Words.count, 3)  # type: ignore[call-overload]", "3", '"a"'),
    ("snakepit.progress(3)  # type: ignore[call-overload]", "3)", "[3])"),
]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, set[int]]:
    """What is to be checked, and the lines that must be errors there."""
    lines = STATED.read_text(encoding="utf-8").splitlines()
    wrong = set()
    for line, old, new in WRONG:
        [number] = [number for number, one in enumerate(lines) if one.strip() == line]
        lines[number] = lines[number].replace(old, new, 1)
        wrong.add(number + 1)
    contradicted = tmp_path_factory.mktemp("types") / "contradicted_calls.py"
    contradicted.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {STATED: set(), contradicted: wrong}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": path},
    )


def named(files: dict[Path, set[int]]) -> dict[str, set[int]]:
    return {path.name: lines for path, lines in files.items()}


def test_mypy_infers_what_is_stated(files: dict[Path, set[int]]) -> None:
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--show-absolute-path"]
    ran = run(*command, *map(str, files))
    # By their names: mypy remembers a file it has seen before with the folder that it was in then.
    found: dict[str, set[int]] = {path.name: set() for path in files}
    for path, number in re.findall(r"^(.+?):(\d+): error:", ran.stdout, re.MULTILINE):
        found[Path(path).name].add(int(number))
    assert found == named(files), ran.stdout + ran.stderr


def test_pyright_infers_what_is_stated(files: dict[Path, set[int]]) -> None:
    ran = run("pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, files))
    report = json.loads(ran.stdout)
    found: dict[str, set[int]] = {path.name: set() for path in files}
    for one in report["generalDiagnostics"]:
        if one["severity"] == "error":
            found[Path(one["file"]).name].add(one["range"]["start"]["line"] + 1)
    assert found == named(files), ran.stdout
