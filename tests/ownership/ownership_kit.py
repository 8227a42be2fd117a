"""Hosts in processes of their own, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _leaks import is_alive

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE_S = 30.0


def env_for_hosts() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(HERE), str(HERE.parent)])
    return os.environ | {"PYTHONPATH": path}


class Host:
    """A running `host_program`."""

    def __init__(self, folder: Path, popen: subprocess.Popen[str]) -> None:
        self.folder, self.popen = folder, popen

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait_ready(self) -> int:
        """Wait until all its calls run; the pid of its guardian, 0 if it has none."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().strip()
        assert line, "the host has ended"
        return 0 if line == "None" else int(line)

    def end(self) -> None:
        """Have it end, in the way it was told."""
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        self.popen.wait(PATIENCE_S)

    def pids(self, name: str = "*") -> list[int]:
        """Of everything that was started; of a kind, by its name."""
        return [pid_of(path) for path in self.folder.glob(f"{name}-*") if "busy" not in path.name]


def pid_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


@contextmanager
def host(folder: Path, *, wrapper: Sequence[str] = (), **options: Any) -> Generator[Host]:
    """Start one; whatever is left of it is killed at the end."""
    command = [*wrapper, sys.executable, str(HERE / "host_program.py"), str(folder)]
    popen = subprocess.Popen(
        [*command, json.dumps(options)],
        env=env_for_hosts(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    started = Host(folder, popen)
    try:
        yield started
    finally:
        popen.kill()
        popen.wait()
        for stream in (popen.stdin, popen.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass
        for pid in started.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def wait_until(condition: Callable[[], Any], what: Callable[[], object] = str) -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.005)


def wait_gone(numbers: Sequence[int]) -> None:
    assert numbers
    wait_until(
        lambda: not any(map(is_alive, numbers)),
        lambda: [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in numbers if is_alive(pid)],
    )
