"""`docs/transports.md` lists every check with the promise that its docstring makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from snakepit.testing import FRAMING_CHECKS, TRANSPORT_CHECKS
from snakepit.testing._check import promise

TEXT = (Path(__file__).parents[2] / "docs" / "transports.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("title", "checks"),
    [
        ("### On messages, every transport", TRANSPORT_CHECKS),
        ("### On frames, byte transports", FRAMING_CHECKS),
    ],
)
def test_the_table_lists_the_checks_and_their_promises(title: str, checks: Any) -> None:
    section = TEXT.partition(title)[2].partition("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == [(check.__name__, promise(check)) for check in checks]
