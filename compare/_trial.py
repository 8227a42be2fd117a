"""One scenario with one contender: `python -m compare._trial SCENARIO CONTENDER`, facts on stdout.

This process adopts whatever its host leaves behind, and reaps it once it is dead. So at the end
everything below it is the contender's, and is killed, and what it had named in shared memory is removed:
with it end those who would have done that. It touches nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from compare._attempt import START_S_MAX
from compare._orphans import kill_and_count, reap_adopted
from snakepit.procfs import Process, adopt_orphans, descendants_of, kill_descendants

SHARED: Final = Path("/dev/shm")  # noqa: S108
TRIAL_S_MAX: Final = 120.0  # for a host to tell its facts


def main() -> None:
    """Have it happen, and say what was seen."""
    scenario, contender = sys.argv[1:3]
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        argv = [sys.executable, "-m", "compare._host", scenario, contender, folder]
        facts = trial(scenario, argv, Path(folder))
    print(json.dumps(facts))


def trial(scenario: str, argv: Sequence[str], folder: Path) -> dict[str, Any]:
    """Start this host, look on, and clean up. For a process that has no other children."""
    adopt_orphans()
    # What workers print is not what this process has to say.
    host = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=2, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    named: set[Path] = set()
    try:
        facts = look_on(host, scenario, folder)
        if facts is None:
            named = named_in_shared_memory(descendants_of(os.getpid()))
            facts = kill_and_count(host, folder)
        return facts
    finally:
        named |= named_in_shared_memory(descendants_of(os.getpid()))
        host.kill()
        host.wait()
        kill_descendants(os.getpid())
        for path in named:
            path.unlink(missing_ok=True)
        reap_adopted(host)


def named_in_shared_memory(processes: Iterable[Process]) -> set[Path]:
    """Semaphores above all: what these processes have in their memory, or have named after themselves.

    By the number of the file: who makes a semaphore has it mapped under a name that is gone by then.
    """
    named: set[Path] = set()
    mapped: set[int] = set()
    for process in processes:
        named.update(SHARED.glob(f"*-{process.pid}-*"))
        with contextlib.suppress(OSError):  # it has ended
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
            areas = (line.split(maxsplit=5) for line in maps.splitlines())
            mapped.update(int(area[4]) for area in areas if area[-1].startswith(f"{SHARED}/"))
    with contextlib.suppress(FileNotFoundError), os.scandir(SHARED) as entries:
        named.update(Path(entry.path) for entry in entries if entry.inode() in mapped)
    return named


def look_on(host: subprocess.Popen[bytes], scenario: str, folder: Path) -> dict[str, Any] | None:
    """Wait for the facts; None where the host is ready to be killed and they are still to be found."""
    deadline = time.monotonic() + TRIAL_S_MAX
    facts = folder / "facts.json"
    while not facts.exists():
        reap_adopted(host)
        if scenario == "orphans" and (folder / "ready").exists():
            return None
        if time.monotonic() > deadline:
            return {"failed": f"no facts after {TRIAL_S_MAX:g} s"}
        if host.poll() is not None and not facts.exists():
            return {"failed": f"the host has ended with {host.returncode}"}
        time.sleep(0.02)
    found: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    return found


assert START_S_MAX < TRIAL_S_MAX

if __name__ == "__main__":
    main()
