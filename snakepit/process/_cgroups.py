"""The control groups that account for the memory of this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

OWN_GROUPS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def memory_groups() -> Iterator[tuple[int, Path, Path]]:
    """Of each hierarchy with memory in it: its version, its root, and the folder of our group.

    In a cgroup namespace our path is relative to what is mounted: then the root is our group's folder,
    and the other one need not be there.
    """
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, where = line.split(":", 2)
        if "memory" in controllers.split(","):
            version, root = 1, ROOT / "memory"
        elif controllers == "":
            version, root = 2, ROOT
        else:
            continue
        yield version, root, root / where.lstrip("/")
