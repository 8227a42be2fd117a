"""What a program has come to, as an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from signal import SIGINT
from types import TracebackType

from snakepit.scripts._ending import SIGNAL_CODES_FROM

FAILED_CODE = 1
_HERE = str(Path(__file__).parent)


def is_exit_code(value: object) -> bool:
    """May main return this? Not a bool: nobody knows whether True means that all is well."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def code_of_error(error: BaseException) -> int:
    """The exit code that the interpreter gives to a program that raises this, groups included."""
    leaves = list(_leaves(error))
    if all(isinstance(leaf, KeyboardInterrupt | SystemExit) for leaf in leaves):
        for leaf in leaves:
            if isinstance(leaf, KeyboardInterrupt):
                return SIGNAL_CODES_FROM + SIGINT
        code = getattr(leaves[0], "code", None)
        if code is None:
            return 0
        return code if isinstance(code, int) else FAILED_CODE
    return FAILED_CODE


def tell(error: BaseException) -> None:
    """Show what the interpreter would show at its end: a traceback, the text of an exit, nothing."""
    leaves = list(_leaves(error))
    with suppress(Exception):  # nobody reads our stderr any more
        if not all(isinstance(leaf, KeyboardInterrupt | SystemExit) for leaf in leaves):
            error.__traceback__ = _of_the_program(error.__traceback__)
            sys.excepthook(type(error), error, error.__traceback__)
        elif code_of_error(error) == FAILED_CODE:
            code = getattr(leaves[0], "code", None)
            if not isinstance(code, int | None):
                print(code, file=sys.stderr)  # noqa: T201 - as `sys.exit(text)` does


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _of_the_program(traceback: TracebackType | None) -> TracebackType | None:
    """Without our own frames at its beginning."""
    found = traceback
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_HERE):
        found = found.tb_next
    return found or traceback
