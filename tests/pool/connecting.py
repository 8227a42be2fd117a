"""Workers that nobody's pool has started, for the tests of `connect`; and what they serve."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters import log_line, touch
from keeping import Keeping

from snakepit import ToolCancelled, context, tool

HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(HERE.parents[1]), str(HERE), str(HERE.parent)])


class Connected(Keeping):
    """Sync tools."""

    @tool
    def refuse(self, log: str, release: str) -> None:
        """Swallow every cancellation until the file `release` is there."""
        log_line(log, "begun")
        while not os.path.exists(release):
            try:
                while not os.path.exists(release):
                    self.sleep(os.devnull, 0.01)
            except ToolCancelled:
                log_line(log, "swallowed")
        log_line(log, "ended")

    @tool
    def refuse_and_yield(self, log: str, release: str) -> Iterator[int]:
        yield 0
        self.refuse(log, release)

    @tool
    def ask(self, name: str, params: dict[str, Any] | None = None) -> Any:
        return context().call_host(name, params)

    @tool(on_cancel="cooperative")
    def ask_and_log(self, name: str, log: str) -> None:
        """Ask, and tell how it ended."""
        try:
            context().call_host(name)
        except BaseException as error:
            log_line(log, type(error).__name__)

    @tool
    def wait_for_child(self, started: str, log: str) -> None:
        """Begin a process that ends by itself soon; on cancellation, tell how it ended."""
        with subprocess.Popen(["sleep", "0.8"]) as process:
            touch(started)
            try:
                self.sleep(os.devnull, 1000)
            except ToolCancelled:
                log_line(log, str(process.wait()))
                raise

    @tool
    def trace(self) -> dict[str, str]:
        return context().trace_context

    @tool
    def collect(self, items: Iterator[Any]) -> list[Any]:
        return list(items)

    @tool
    def tell(self, started: str) -> None:
        context().progress(1, 2, "half")
        touch(started)


@contextmanager
def worker(*arguments: str, adapter: str = "connecting:Connected") -> Generator[str]:
    """A worker by itself, from when it serves; yields what it says of where. Ended by SIGTERM, with 0."""
    with starting(*arguments, adapter=adapter) as process:
        yield told(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


@contextmanager
def starting(
    *arguments: str, adapter: str = "connecting:Connected"
) -> Generator[subprocess.Popen[str]]:
    """The same, sooner, and ended by SIGKILL."""
    argv = [sys.executable, "-m", "snakepit.worker", "--adapter", adapter, *arguments]
    env = os.environ | {"PYTHONPATH": PATHS}
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> str:
    """Where it serves, as it says; waits until it does."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("snakepit worker: serves"), line + process.stderr.read()
    return line.partition(" on ")[2].strip()
