"""Ctrl+C at a chosen step of what the main thread runs, and not at one by chance."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import snakepit

POOL = Path(snakepit.__file__).parent / "pool"
STEPS_MAX = 500


class CtrlC:
    """One SIGINT to this process, at step `at` after `begin`.

    A step is the beginning of a function, or of a line, in this thread, in the given modules of the pool
    or in contextlib's class for blocks of this kind. `where`: where it came, "" if it has not.
    """

    def __init__(self, at: int, modules: tuple[str, ...], kind: str) -> None:
        self._left = at
        self._files = {str(POOL / f"{module}.py") for module in modules}
        self._methods = f"_{kind}ContextManager.__"
        self.where = ""

    def begin(self) -> None:
        """Count what is begun, or gone on with, from here."""
        self._before = sys.gettrace()
        sys.settrace(self._step)

    def end(self) -> None:
        """Give back to who traced before, as the measuring of coverage does."""
        sys.settrace(self._before)

    def _step(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if self.where or not (code.co_filename in self._files or self._is_around(code)):
            return None
        # What is raised as a generator goes on would get past its handlers, as no signal's handler does.
        goes_on = event == "call" and frame.f_lineno != code.co_firstlineno
        if event in ("call", "line") and not goes_on:
            self._left -= 1
            if self._left == 0:
                self.where = f"{code.co_name} in line {frame.f_lineno} of {code.co_filename}"
                signal.raise_signal(signal.SIGINT)
        return self._step

    def _is_around(self, code: CodeType) -> bool:
        return code.co_filename == contextlib.__file__ and code.co_qualname.startswith(
            self._methods
        )


def each_step(*modules: str, kind: str) -> Iterator[CtrlC]:
    """At the first step, at the second, … until one has not come any more."""
    for at in range(1, STEPS_MAX):
        interrupt = CtrlC(at, modules, kind)
        yield interrupt
        if not interrupt.where:
            assert at > 1, "nothing was met"
            return
    raise AssertionError(f"more than {STEPS_MAX} steps")
