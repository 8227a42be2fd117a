"""How often the kernel has ended processes of our cgroup for want of memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from snakepit.process._cgroups import memory_groups


def oom_kills() -> int | None:
    """A counter that never falls; None where there is none to be read."""
    path = _counter_file()
    return None if path is None else parse_oom_kills(path)


def parse_oom_kills(path: Path) -> int | None:
    """The line `oom_kill N` of `memory.events` (cgroup 2) or `memory.oom_control` (1)."""
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


@cache
def _counter_file() -> Path | None:
    for version, root, group in memory_groups():
        name = "memory.oom_control" if version == 1 else "memory.events"
        for path in (group / name, root / name):
            if parse_oom_kills(path) is not None:
                return path
    return None
