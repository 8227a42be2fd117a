"""How many CPUs there are."""

from __future__ import annotations

import os

from snakepit.procfs._table import read_file


def usable_cpus() -> int:
    """CPUs this process may use: its affinity, cut down to its cgroup's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        count = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, count if quota is None else min(count, int(quota)))


def _cgroup_quota() -> float | None:
    try:
        limit, period = read_file("/sys/fs/cgroup/cpu.max").split()[:2]
        return None if limit == b"max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None
