"""How much memory a worker has."""

from __future__ import annotations

import psutil


def resident_mb(pid: int) -> float | None:
    """Resident memory of the process in MiB; None if it is gone."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.Error:
        return None
