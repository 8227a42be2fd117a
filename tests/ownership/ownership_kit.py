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

import pytest
from _leaks import is_alive

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE_S = 30.0
WORKER_NETS = ("pdeathsig", "eof", "pidfd")  # by which a worker notices that its host is gone
NO_WORKERS = ("busy", "forked", "held")


NAMESPACE = ("unshare", "-Urpf", "--mount-proc", "--kill-child")


def has_namespaces() -> bool:
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    not has_namespaces(), reason="needs unprivileged user namespaces"
)


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
        line = self.read_line()
        return 0 if line == "None" else int(line)

    def read_line(self) -> str:
        """What it prints next."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().strip()
        assert line, "the host has ended"
        return line

    def tell_to_end(self) -> None:
        """It ends in the way it was told."""
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        """Have it end, and wait for that."""
        self.tell_to_end()
        self.popen.wait(PATIENCE_S)

    def pids(self, name: str = "*") -> list[int]:
        """Of everything that workers are, or have started; of a kind, by its name."""
        return [
            pid_of(path)
            for path in self._files(name)
            if path.name.partition("-")[0] not in NO_WORKERS
        ]

    def kill_bystanders(self) -> list[int]:
        """Children of the host that are nobody's worker, and had to live on; say which."""
        pids = [pid_of(path) for name in ("forked", "held") for path in self._files(name)]
        alive = [pid for pid in pids if is_alive(pid)]
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        assert alive == pids
        return alive

    def _files(self, name: str) -> list[Path]:
        return list(self.folder.glob(f"{name}-*"))


def run_well(
    argv: Sequence[str | Path], *, env: dict[str, str], cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which has to be a good one."""
    run = subprocess.run(
        argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return run


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
        for path in started.folder.glob("*-*"):
            try:
                os.kill(pid_of(path), signal.SIGKILL)
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
