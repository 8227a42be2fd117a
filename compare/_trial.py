"""One scenario with one contender: `python -m compare._trial SCENARIO CONTENDER`, facts on stdout.

This process adopts whatever its host leaves behind, so at the end everything below it is the
contender's, and is killed, and what it had named in shared memory is removed: with it end those who
would have done that. It touches nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import psutil

from compare._attempt import START_S_MAX, Watched, pid_in
from compare._scenarios import BUSY, COUNTED_AFTER_S
from snakepit.procfs import Process, adopt_orphans, descendants_of, kill_descendants

SHARED: Final = Path("/dev/shm")  # noqa: S108
TRIAL_S_MAX: Final = 120.0  # for a host to tell its facts


def main() -> None:
    """Look on, and clean up."""
    scenario, contender = sys.argv[1:3]
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        argv = [sys.executable, "-m", "compare._host", scenario, contender, folder]
        # What workers print is not what this process has to say.
        host = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=2, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
        try:
            facts = look_on(host, scenario, Path(folder))
        finally:
            named = named_in_shared_memory(descendants_of(os.getpid()))
            host.kill()
            host.wait()
            kill_descendants(os.getpid())
            for path in named:
                path.unlink(missing_ok=True)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
    print(json.dumps(facts))


def named_in_shared_memory(processes: Iterable[Process]) -> set[Path]:
    """Semaphores above all: what these processes have in their memory, or have named after themselves."""
    named: set[Path] = set()
    for process in processes:
        named.update(SHARED.glob(f"*-{process.pid}-*"))
        with contextlib.suppress(psutil.Error):
            paths = (Path(each.path) for each in psutil.Process(process.pid).memory_maps())
            named.update(path for path in paths if path.parent == SHARED)
    return named


def look_on(host: subprocess.Popen[bytes], scenario: str, folder: Path) -> dict[str, Any]:
    """Wait for the facts, or find them."""
    deadline = time.monotonic() + TRIAL_S_MAX
    facts = folder / "facts.json"
    while not facts.exists():
        if scenario == "orphans" and (folder / "ready").exists():
            return kill_and_count(host, folder)
        if time.monotonic() > deadline:
            return {"failed": f"no facts after {TRIAL_S_MAX:g} s"}
        if host.poll() is not None and not facts.exists():
            return {"failed": f"the host has ended with {host.returncode}"}
        time.sleep(0.02)
    found: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    return found


def kill_and_count(host: subprocess.Popen[bytes], folder: Path) -> dict[str, Any]:
    """End the host as the kernel does when memory is short, and see who is left, and for how long."""
    pids = [pid_in(path) for name in BUSY for path in folder.glob(f"{name}-*")]
    workers = [Watched(pid) for pid in pids]
    host.kill()
    host.wait()  # reaped: some ask whether there is a process of this number
    killed_at = time.monotonic()
    left, others = [], []
    for after_s in COUNTED_AFTER_S:
        time.sleep(max(0.0, killed_at + after_s - time.monotonic()))
        left.append(sum(worker.lives() for worker in workers))
        below = descendants_of(os.getpid())
        others.append(sum(process.pid not in pids for process in below))
        if not below:  # nobody comes back
            missing = len(COUNTED_AFTER_S) - len(left)
            left, others = left + [0] * missing, others + [0] * missing
            break
    return {"workers": left, "others": others}


assert START_S_MAX < TRIAL_S_MAX

if __name__ == "__main__":
    main()
