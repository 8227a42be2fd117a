"""How much memory this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

OWN_GROUPS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


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
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, where = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, name = ROOT / "memory", "memory.limit_in_bytes"
        elif controllers == "":
            root, name = ROOT, "memory.max"
        else:
            continue
        # In a cgroup namespace the path is relative to what is mounted: then the root has our limit.
        group = root / where.lstrip("/")
        yield from (one / name for one in (group, *group.parents) if one.is_relative_to(root))
