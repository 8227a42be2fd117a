"""`ToolError`, which is also the builtin type that the tool raised, and so rebuilds itself."""

from __future__ import annotations

import builtins
from typing import Any

from snakepit.errors._errors import SnakepitError


class ToolError(SnakepitError):
    """The tool raised; it has run. Retry only if the tool is idempotent and the cause may pass.

    Where the tool raised a builtin `Exception` type (or a subclass of one), this error is an
    instance of that type too, so `except FileNotFoundError` works across the process; then
    `errno`, `filename` and the like are set, and `args` are those of the original.
    The worker's traceback is in `traceback` and in a note.

    Fields: `tool`, `type` (qualified name of the exception), `message` (its `str()`),
    `traceback` (formatted, as text), `worker_id`.
    """

    _builtin: str | None = None  # of the builtin type that this class is as well
    _original_args: tuple[Any, ...] = ()  # what that type was made of

    def __init__(
        self,
        tool: str,
        type: str,  # noqa: A002 - the name of the public field
        message: str,
        traceback: str = "",
        worker_id: str = "",
    ) -> None:
        super().__init__(tool, type, message, traceback, worker_id)
        self._fill(tool, type, message, traceback, worker_id)

    def _fill(self, tool: str, name: str, message: str, traceback: str, worker_id: str) -> None:
        self.tool: str = tool
        self.type: str = name
        self.message: str = message
        self.traceback: str = traceback
        self.worker_id: str = worker_id

    def __str__(self) -> str:
        name = self.type.removeprefix("builtins.")
        return f"{name}: {self.message}" if self.message else name

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.tool, self.type, self.message, self.traceback, self.worker_id)
        state = {"notes": list(getattr(self, "__notes__", ()))}
        if self._builtin is None:
            return (type(self), fields, state)
        return (_rebuild, (self._builtin, self._original_args, fields), state)

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        for note in (state or {}).get("notes", ()):
            self.add_note(note)


# Types whose meaning belongs to the interpreter's own control flow, or whose instances
# cannot be rebuilt from data: a tool that raises one arrives as a plain ToolError.
_PLAIN = (StopIteration, StopAsyncIteration, BaseExceptionGroup)
_dual_types: dict[str, type[ToolError]] = {}


def _dual_type(builtin: str | None) -> type[ToolError]:
    """The subclass of ToolError that is also `builtin`; ToolError itself where there is none."""
    if builtin is None:
        return ToolError
    known = _dual_types.get(builtin)
    if known is None:
        base = getattr(builtins, builtin, None)
        eligible = (
            isinstance(base, type) and issubclass(base, Exception) and not issubclass(base, _PLAIN)
        )
        if not eligible or base is Exception:
            return ToolError
        assert isinstance(base, type)
        name = base.__name__  # IOError is OSError
        attributes = {
            "__doc__": ToolError.__doc__,
            "__module__": ToolError.__module__,
            "_builtin": name,
        }
        known = _dual_types.setdefault(name, type(f"Tool{name}", (ToolError, base), attributes))
    return known


def _rebuild(
    builtin: str | None, args: tuple[Any, ...], fields: tuple[str, str, str, str, str]
) -> ToolError:
    kind = _dual_type(builtin)
    if kind is ToolError:
        return ToolError(*fields)
    base: Any = kind.__bases__[1]
    try:
        error = kind.__new__(kind, *args)
    except TypeError:  # MemoryError's own refuses subclasses that have another base
        error = BaseException.__new__(kind, *args)
    try:
        base.__init__(error, *args)
        if isinstance(error, BlockingIOError) and len(args) == 3 and isinstance(args[2], int):
            # The count of written characters, which subclasses take for a file name.
            error.filename, error.characters_written, error.args = None, args[2], args
    except Exception:
        # The arguments of the remote exception do not fit its builtin's constructor
        # (a subclass with a signature of its own): the message alone is kept.
        error.args = args
    error._fill(*fields)
    error._original_args = args
    return error


def tool_error(
    *,
    tool: str,
    type: str,  # noqa: A002 - as the field
    message: str,
    traceback: str,
    worker_id: str,
    builtin: str | None = None,
    args: tuple[Any, ...] | None = None,
) -> ToolError:
    """Build the ToolError for a remote exception; `builtin` names the nearest builtin base.

    `args` are the remote arguments, None where they could not travel.
    """
    fields = (tool, type, message, traceback, worker_id)
    return _rebuild(builtin, (message,) if args is None else args, fields)
