"""Where the figures come from: the machine, its software, and who else used it meanwhile."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from typing import Final

import psutil

_LIBRARIES: Final = (
    *("anyio", "trio", "msgspec", "trio-parallel", "loky", "pebble"),
    *("numpy", "pyarrow", "ray", "distributed", "grpclib", "betterproto2", "grpcio", "protobuf"),
)


def describe_machine() -> dict[str, str]:
    """What the figures depend on."""
    versions = []
    for library in _LIBRARIES:
        try:
            versions.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{os.cpu_count()} CPUs, {_processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(versions),
    }


class Onlooker:
    """Watches how much of the CPUs went to others: a busy machine makes wide spreads."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all, self._ours = _cpu_seconds()

    def others(self) -> str:
        """What processes that are none of ours used since it looks on, in CPUs."""
        everybody, ours = _cpu_seconds()
        used = (everybody - self._all) - (ours - self._ours)
        cpus = max(0.0, used / (time.monotonic() - self._began))
        return f"others used {cpus:.1f} of the CPUs meanwhile"


def queued_s() -> float:
    """How long this thread has been able to run while others had the CPUs; 0 where that is not told."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


def _cpu_seconds() -> tuple[float, float]:
    """CPU time of the machine, time that its own host took away included; and ours."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
    mine = os.times()
    ours = mine.user + mine.system + mine.children_user + mine.children_system
    return sum(times) - idle, ours


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.partition(":")[2].strip() for line in info if line[:10] == "model name"]
        return names[0]
    except (OSError, IndexError):
        return platform.machine()
