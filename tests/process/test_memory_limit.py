"""What the groups of a process let it have of the machine's memory; the files are made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snakepit.process import _cgroups, memory_limit

GIB = 2**30
SMALL, LARGE = GIB // 8, GIB // 4
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": f"{SMALL}\n"}, SMALL),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/\n", {}, MACHINE),
        ("", {"memory.max": f"{SMALL}\n"}, MACHINE),
        ("0::/a/b\n", {"a/b/memory.max": f"{SMALL}\n", "a/memory.max": f"{LARGE}\n"}, SMALL),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{SMALL}\n"}, SMALL),
        ("0::/elsewhere\n", {"memory.max": f"{SMALL}\n"}, SMALL),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": f"{SMALL}\n"}, SMALL),
        ("4:cpu:/a\n", {"a/memory.max": f"{SMALL}\n"}, MACHINE),
    ],
)
def test_the_memory_of_a_process_is_what_its_groups_let_it_have(
    groups: str, files: dict[str, str], limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, root = tmp_path / "own", tmp_path / "root"
    own.write_text(groups)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(_cgroups, "OWN_GROUPS", own)
    monkeypatch.setattr(_cgroups, "ROOT", root)
    assert memory_limit() == limit


def test_without_groups_it_is_the_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cgroups, "OWN_GROUPS", tmp_path / "none")
    assert memory_limit() == MACHINE
