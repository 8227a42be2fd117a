"""What a worker, its tools, their C libraries and their children print: line by line, bounded."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Final

import anyio

from snakepit.process._fork_guard import fork_generation

LINE_BYTES_MAX: Final = 8192
TAIL_LINES_MAX: Final = 100
CHUNK_BYTES: Final = 2048  # so many lines at most are logged before others may run
PIPE_BYTES: Final = 2**16  # what a pipe holds that nobody has enlarged

QUIET_S: Final = 0.1
HEAR_S: Final = 2.0

_log = logging.getLogger("snakepit.worker")


class StderrCollector:
    """Logs the lines of one worker's stderr and keeps the last of them.

    A line over `LINE_BYTES_MAX` is cut into several; at most `TAIL_LINES_MAX` are kept.
    """

    def __init__(self, fd: int, worker_id: str) -> None:
        self._fd, self._worker_id = fd, worker_id
        self._generation = fork_generation()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES_MAX)
        self._begun = b""
        self._listeners: list[list[str]] = []

    @property
    def tail(self) -> str:
        """The last lines, oldest first."""
        return "\n".join(self._tail)

    async def hear(self, ask: Callable[[], object]) -> list[str]:
        """The lines that come after this request, until none has come for `QUIET_S`.

        `collect` has to run. Nothing in `HEAR_S`: then nothing is returned.
        """
        lines: list[str] = []
        self._listeners.append(lines)
        try:
            ask()
            with anyio.move_on_after(HEAR_S):
                heard = -1
                while not lines or len(lines) != heard:
                    heard = len(lines)
                    await anyio.sleep(QUIET_S)
        finally:
            # By identity: two that have heard the same are equal.
            self._listeners = [other for other in self._listeners if other is not lines]
        return lines  # noqa: ASYNC910 - each sleep is one

    async def collect(self) -> None:  # noqa: ASYNC910 - only at the end of the stream
        """Read until every writer has closed the pipe. Cancelling loses nothing that was read."""
        while self._read_available():
            await anyio.wait_readable(self._fd)

    def finish(self) -> None:
        """Take what is in the pipe now, the last line even if it has no end.

        At most what a pipe holds: a process that has left the group may still be writing.
        """
        self._read_available(PIPE_BYTES)
        if self._begun:
            self._keep(self._begun)
            self._begun = b""

    def _read_available(self, bytes_max: int = CHUNK_BYTES) -> bool:
        """Read what is there; False at the end of the stream. Bounded, to stay fair."""
        if self._generation != fork_generation():
            return False  # the descriptor is closed here, its number perhaps somebody else's
        for _ in range(0, bytes_max, CHUNK_BYTES):
            try:
                chunk = os.read(self._fd, CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._split(chunk)
        return True

    def _split(self, chunk: bytes) -> None:
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        if not _log.isEnabledFor(logging.INFO):
            del lines[:-TAIL_LINES_MAX]  # nobody would see them
        for line in lines:
            self._keep(line)
        while len(self._begun) > LINE_BYTES_MAX:
            self._keep(self._begun[:LINE_BYTES_MAX])
            self._begun = self._begun[LINE_BYTES_MAX:]

    def _keep(self, line: bytes) -> None:
        for start in range(0, len(line) or 1, LINE_BYTES_MAX):
            # Not "backslashreplace": a MiB that is no text would hold the loop for 0.6 s.
            text = line[start : start + LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r")
            self._tail.append(text)
            for listener in self._listeners:
                listener.append(text)
            _log.info("%s: %s", self._worker_id, text, extra={"worker_id": self._worker_id})
