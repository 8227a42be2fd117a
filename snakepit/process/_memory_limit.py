"""How much memory this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from snakepit.process._cgroups import memory_groups


def memory_limit() -> int:
    """Bytes: the machine's, cut down to the limits of our cgroup and of those that it is in."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _limit_files():
        try:
            limit = min(limit, int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # "max": there is none
            pass
    return limit


def _limit_files() -> Iterator[Path]:
    for version, root, group in memory_groups():
        name = "memory.limit_in_bytes" if version == 1 else "memory.max"
        yield from (one / name for one in (group, *group.parents) if one.is_relative_to(root))
