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
TAIL_CHARS_MAX: Final = 2**16  # in all these lines
CHUNK_BYTES: Final = 2048  # so many lines at most are logged before others may run
PIPE_BYTES: Final = 2**16  # what a pipe holds that nobody has enlarged

QUIET_S: Final = 0.1
HEAR_S: Final = 2.0
HEARD_CHARS: Final = 2**21  # a hundred stacks, each a hundred deep, are half of it

assert LINE_BYTES_MAX < TAIL_CHARS_MAX, "the last line is kept whole"

_log = logging.getLogger("snakepit.worker")


class _Listener:
    """Lines that have come since it was made, as many as there is room for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.room = HEARD_CHARS

    def take(self, line: str) -> None:
        self.room -= len(line) + 1
        if self.room >= 0:
            self.lines.append(line)


class StderrCollector:
    """Logs the lines of one worker's stderr and keeps the last of them.

    A line over `LINE_BYTES_MAX` is cut into several; at most `TAIL_LINES_MAX` are kept, and of these
    as many as have `TAIL_CHARS_MAX` characters.
    """

    def __init__(self, fd: int, worker_id: str) -> None:
        self._fd, self._worker_id = fd, worker_id
        self._generation = fork_generation()
        self._tail: deque[str] = deque()
        self._tail_chars = 0
        self._begun = b""
        self._listeners: list[_Listener] = []

    @property
    def tail(self) -> str:
        """The last lines, oldest first."""
        return "\n".join(self._tail)

    async def hear(self, ask: Callable[[], object], ended: Callable[[], bool]) -> list[str]:
        """The lines that come after this request, until none has come for `QUIET_S`.

        `collect` has to run. For `HEAR_S` at most, and up to `HEARD_CHARS` characters; not for
        longer than until the worker has `ended`. Nothing came: then nothing is returned.
        """
        listener = _Listener()
        self._listeners.append(listener)
        try:
            ask()
            with anyio.move_on_after(HEAR_S):
                heard = -1
                while not listener.lines or len(listener.lines) != heard:
                    if ended():
                        break
                    heard = len(listener.lines)
                    await anyio.sleep(QUIET_S)
        finally:
            self._listeners.remove(listener)
        return listener.lines  # noqa: ASYNC910 - each sleep is one

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
            self._tail_chars += len(text)
            while len(self._tail) > TAIL_LINES_MAX or self._tail_chars > TAIL_CHARS_MAX:
                self._tail_chars -= len(self._tail.popleft())
            for listener in self._listeners:
                listener.take(text)
            _log.info("%s: %s", self._worker_id, text, extra={"worker_id": self._worker_id})
