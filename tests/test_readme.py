"""The first example of the README runs as shown and prints what the README says."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def first_example() -> tuple[str, str]:
    """The first python block, and the text block that follows it."""
    found = re.search(
        r"^```python\n(.*?)^```$.*?^```text\n(.*?)^```$",
        README.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert found is not None, "the README shows a python block and then its output as text"
    return found[1], found[2]


def test_the_example_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    source, expected = first_example()
    script = tmp_path / "example.py"
    script.write_text(source, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == expected
