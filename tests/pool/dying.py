"""Tools that end their worker, each in its way, right after their last words."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from adapters import log_line, touch, wait_for

from snakepit import Adapter, context, tool


def _exit_as_c_does() -> None:
    ctypes.CDLL(None).exit(6)  # which runs what was left to be done at the exit


# How, and with which exit code or signal.
WAYS: dict[str, tuple[Callable[[], object], int | None, int | None]] = {
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), None, signal.SIGKILL),
    "SIGSEGV": (lambda: ctypes.string_at(0), None, signal.SIGSEGV),
    "abort": (os.abort, None, signal.SIGABRT),
    "_exit": (lambda: os._exit(5), 5, None),
    "_exit without an error": (lambda: os._exit(0), 0, None),
    "exit of C": (_exit_as_c_does, 6, None),
}


class Dying(Adapter):
    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def die(self, how: str) -> None:
        context().progress(1, 2, "about to die")
        WAYS[how][0]()

    @tool
    def count_and_die(self, stop: int, how: str) -> Iterator[int]:
        yield from range(stop)
        WAYS[how][0]()

    @tool
    def wait_and_die(self, started: str, release: str, how: str) -> None:
        touch(started)
        wait_for(release)
        WAYS[how][0]()

    @tool
    def die_of(self, how: str, ballast: bytes) -> int:
        WAYS[how][0]()
        return len(ballast)

    @tool
    def die_if(self, mark: str, how: str) -> str:
        if Path(mark).exists():
            WAYS[how][0]()
        return "it lives"

    @tool
    def wait(self, started: str, release: str) -> None:
        touch(started)
        wait_for(release)

    @tool
    def note(self, log: str, text: str) -> None:
        log_line(log, text)

    @tool
    def learn(self, word: str) -> list[str]:
        """What the session has learnt by now."""
        words: list[str] = context().session.setdefault("words", [])
        words.append(word)
        return words

    @tool
    def hold(self, started: str, release: str) -> list[str]:
        """What the session has learnt, once it may go on."""
        Path(started).touch()
        wait_for(release)
        found: list[str] = context().session["words"]
        return found

    @tool
    def echo(self, value: Any = None) -> Any:
        return value
