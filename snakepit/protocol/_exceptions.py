"""Exceptions ⇄ data: what a worker tells of an exception, and the ToolError made of it.

`describe` never raises and its result fits a frame whatever the exception holds: every text
is clipped to a named maximum. `rebuild` gives the builtin type back where there is one, so
that `except KeyError` works across the process; user classes are named, never imported.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

from msgspec import Raw

from snakepit.errors import (
    HostToolError,
    RemoteError,
    SnakepitError,
    ToolError,
    host_tool_error,
    tool_error,
)

from ._framing import FRAME_BYTES_MAX
from ._messages import NIL, ErrorData
from ._values import decode, encode

R = TypeVar("R", bound=RemoteError)

TEXT_BYTES_MAX: Final = 64 * 2**10  # message; traceback; notes; args: each
CAUSE_TEXT_BYTES_MAX: Final = 8 * 2**10  # the same, of each cause
NAME_BYTES_MAX: Final = 1024
NOTES_MAX: Final = 32
CAUSES_MAX: Final = 8
ERROR_BYTES_MAX: Final = 2**20
assert (
    4 * TEXT_BYTES_MAX + CAUSES_MAX * (4 * CAUSE_TEXT_BYTES_MAX + 4 * NAME_BYTES_MAX)
    < ERROR_BYTES_MAX
    < FRAME_BYTES_MAX
), "an error fits a frame"

# Not pathlib: it is slow to import.
_LIBRARY: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_CUT: Final = "\n[… cut …]\n"


def describe(error: BaseException, *, hide: Sequence[str] = (_LIBRARY,)) -> ErrorData:
    """The exception, its notes and its causes as data. Never raises.

    Args:
        error: any exception, also one whose `str()` raises.
        hide: path prefixes of the files whose frames are left out where the traceback begins.
    """
    chain = _chain(error)
    data: ErrorData | None = None
    for depth in range(len(chain) - 1, -1, -1):
        data = _describe_one(chain[depth], data, hide, outermost=depth == 0)
    assert data is not None, "a chain begins with the error itself"
    return data


def rebuild(data: ErrorData, *, tool: str, worker_id: str) -> ToolError:
    """The ToolError of a description, causes and notes included."""

    def make(data: ErrorData) -> ToolError:
        return tool_error(tool=tool, worker_id=worker_id, **_parts_of(data))

    return _rebuild_all(data, make, f"worker {worker_id}")


def rebuild_host_error(data: ErrorData, *, tool: str) -> HostToolError:
    """The HostToolError of a description, for the worker's side."""

    def make(data: ErrorData) -> HostToolError:
        return host_tool_error(tool=tool, **_parts_of(data))

    return _rebuild_all(data, make, "the host")


def args_of(data: ErrorData) -> tuple[Any, ...] | None:
    """The arguments of the exception; None if they could not travel, or hold what this side lacks."""
    try:
        args = decode(data.args)
    except SnakepitError:
        return None
    return args if type(args) is tuple else None


def _rebuild_all(data: ErrorData, make: Callable[[ErrorData], R], place: str) -> R:
    error = _with_notes(make(data), data)
    if data.traceback:
        error.add_note(f"Traceback in {place}:\n{data.traceback.rstrip()}")
    below, cause = error, data.cause
    for _ in range(CAUSES_MAX):
        if cause is None:
            break
        above, below = below, _with_notes(make(cause), cause)
        above.__cause__ = below
        cause = cause.cause
    return error


def _parts_of(data: ErrorData) -> dict[str, Any]:
    return {
        "type": data.type,
        "message": data.message,
        "traceback": data.traceback,
        "builtin": data.builtin,
        "args": args_of(data),
    }


def _with_notes(error: R, data: ErrorData) -> R:
    for note in data.notes:
        error.add_note(note)
    return error


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it came from, up to `CAUSES_MAX` causes."""
    chain, seen = [error], {id(error)}
    while len(chain) <= CAUSES_MAX:
        last = chain[-1]
        cause = last.__cause__
        if cause is None and not last.__suppress_context__:
            cause = last.__context__
        if cause is None or id(cause) in seen:
            break
        seen.add(id(cause))
        chain.append(cause)
    return chain


def _describe_one(
    error: BaseException, cause: ErrorData | None, hide: Sequence[str], *, outermost: bool
) -> ErrorData:
    limit = TEXT_BYTES_MAX if outermost else CAUSE_TEXT_BYTES_MAX
    kind = type(error)
    if isinstance(error, RemoteError):  # on its way through: it goes on as what it was
        name, message = error.type, error.message
    else:
        name, message = f"{kind.__module__}.{kind.__qualname__}", _message(error)
    return ErrorData(
        type=_clip(name, NAME_BYTES_MAX),
        message=_clip(message, limit),
        builtin=_builtin(kind),
        args=_args(error, limit),
        traceback=_clip(_traceback(error, hide, chain=outermost), limit),
        notes=_notes(error, limit),
        cause=cause,
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as raised:  # a __str__ of the user's, which may also exit
        return f"<its str() raised {type(raised).__name__}>"


def _builtin(kind: type[BaseException]) -> str | None:
    """The name of the nearest builtin class that it is."""
    for base in kind.__mro__:
        if base.__module__ == "builtins" and getattr(builtins, base.__name__, None) is base:
            return str(base.__name__)
    return None


def _args(error: BaseException, limit: int) -> Raw:
    try:
        args: Any = error.args
        if isinstance(error, OSError) and error.filename is not None and len(args) == 2:
            # OSError takes the names out of args; its constructor wants them there.
            args = (*args, error.filename)
            if error.filename2 is not None:
                args = (*args, None, error.filename2)
        body, buffers = encode(args, buffer_threshold=limit)
    except BaseException:  # they do not travel, for whatever reason: the message does
        return NIL
    return body if not buffers and len(memoryview(body)) <= limit else NIL


def _notes(error: BaseException, limit: int) -> tuple[str, ...]:
    try:
        notes = getattr(error, "__notes__", ())
    except BaseException:  # a property of the user's
        notes = ()
    if not isinstance(notes, (list, tuple)):
        return ()
    kept: list[str] = []
    for note in notes[:NOTES_MAX]:
        if isinstance(note, str) and limit > 0:
            kept.append(_clip(note, limit))
            limit -= len(kept[-1].encode()) + len(_CUT)
    return tuple(kept)


def _traceback(error: BaseException, hide: Sequence[str], *, chain: bool) -> str:
    import traceback

    try:
        shown = _without_leading(error.__traceback__, hide)
        formatter = traceback.TracebackException(type(error), error, shown, compact=True)
        return "".join(formatter.format(chain=chain))
    except BaseException as raised:  # deep recursion, or a user's class that refuses to be shown
        return f"{type(error).__qualname__}: <its traceback cannot be shown: {type(raised).__name__}>\n"


def _without_leading(shown: TracebackType | None, hide: Sequence[str]) -> TracebackType | None:
    """The traceback without our own frames at its start; whole if there are no others."""
    prefixes, here = tuple(hide), shown
    while here is not None and here.tb_frame.f_code.co_filename.startswith(prefixes):
        here = here.tb_next
    return shown if here is None else here


def _clip(text: str, bytes_max: int) -> str:
    """The text in at most that many bytes of UTF-8, head and tail kept, surrogates escaped."""
    if len(text) > bytes_max:
        text = text[: bytes_max // 2] + _CUT + text[-bytes_max // 2 :]
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) > bytes_max:
        half = (bytes_max - len(_CUT.encode())) // 2
        head, tail = raw[:half].decode("utf-8", "ignore"), raw[-half:].decode("utf-8", "ignore")
        return head + _CUT + tail
    return raw.decode()
