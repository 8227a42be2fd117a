"""What a host leaves behind: the dead of it are reaped, as an init does, and the living are counted.

The process that looks on has one child of its own, the host. All others that it has were adopted, when
those that had started them ended. What a contender's host has started itself is a child of the host, and
nobody else can reap that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from compare._attempt import Watched, pid_in
from compare._scenarios import BUSY, COUNTED_AFTER_S, ENDED_S_MAX
from snakepit.procfs import children_of, descendants_of

LOOK_S: Final = 0.05


def reap_adopted(host: subprocess.Popen[bytes]) -> None:
    """Reap the dead but the host: some pools wait until there is no process of the number any more."""
    for child in children_of(os.getpid()):
        if child.is_dead and child.pid != host.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)


def kill_and_count(
    host: subprocess.Popen[bytes],
    folder: Path,
    counted_after_s: Sequence[float] = COUNTED_AFTER_S,
    ended_s_max: float = ENDED_S_MAX,
) -> dict[str, Any]:
    """End the host as the kernel does when memory is short, and see who is left, and for how long."""
    pids = {pid_in(path) for name in BUSY for path in folder.glob(f"{name}-*")}
    workers = [Watched(pid) for pid in pids]
    host.kill()
    host.wait()  # reaped: some ask whether there is a process of this number
    killed_at = time.monotonic()
    left: list[int] = []
    others: list[int] = []
    ended_s = None
    while len(left) < len(counted_after_s) or ended_s is None:
        reap_adopted(host)
        after_s = time.monotonic() - killed_at
        living = sum(worker.lives() for worker in workers)
        if not living and ended_s is None:
            ended_s = round(after_s, 1)
        if len(left) < len(counted_after_s) and after_s >= counted_after_s[len(left)]:
            left.append(living)
            below = descendants_of(os.getpid())
            others.append(sum(process.pid not in pids for process in below))
            if not below:  # nobody comes back
                missing = len(counted_after_s) - len(left)
                left, others = left + [0] * missing, others + [0] * missing
        elif after_s >= ended_s_max:
            break
        time.sleep(LOOK_S)
    return {"workers": left, "others": others, "ended_s": ended_s}


assert COUNTED_AFTER_S[-1] < ENDED_S_MAX
