"""Small real processes for the tests of `snakepit.process`."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import anyio

from snakepit.process import WorkerProcess

ENV = {"PATH": os.environ["PATH"]}
STUBBORN = "trap '' TERM QUIT; echo ready; while :; do sleep 100; done"


class Child:
    """A process, the pipe that it prints to, and the one that it reads."""

    def __init__(self, process: WorkerProcess, stdout: int, stdin: int) -> None:
        self.process, self._stdout, self._stdin = process, stdout, stdin
        self._begun = b""
        self.exited = anyio.Event()

    async def line(self) -> str:
        """The next line that it prints: the sign that it has come so far."""
        while b"\n" not in self._begun:
            await anyio.wait_readable(self._stdout)
            chunk = os.read(self._stdout, 4096)
            assert chunk, "it has ended"
            self._begun += chunk
        line, _, self._begun = self._begun.partition(b"\n")
        return line.decode()

    async def watch(self) -> None:
        """Set `exited` once it has ended."""
        await self.process.wait_exit()
        self.exited.set()

    def close_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1


@contextmanager
def started(
    argv: Sequence[str], *, env: dict[str, str] = ENV, cwd: str | None = None
) -> Generator[Child]:
    """Start it, and hand out a `Child`; killed and reaped at the end."""
    child_stdin, stdin = os.pipe()
    stdout, child_stdout = os.pipe()
    child = None
    try:
        try:
            process = WorkerProcess.start(
                argv, stdin=child_stdin, stdout=child_stdout, env=env, cwd=cwd
            )
        finally:
            os.close(child_stdin)
            os.close(child_stdout)
        with process:
            child = Child(process, stdout, stdin)
            yield child
    finally:
        os.close(stdout)
        if child is None:
            os.close(stdin)
        else:
            child.close_stdin()


@contextmanager
def shell(script: str) -> Generator[Child]:
    """A shell that runs the script."""
    with started(["sh", "-c", script]) as child:
        yield child


@contextmanager
def python(source: str) -> Generator[Child]:
    """A bare interpreter that runs the source."""
    with started([sys.executable, "-I", "-S", "-c", source]) as child:
        yield child
