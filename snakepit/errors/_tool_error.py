"""`ToolError` and `HostToolError`: also the builtin type that was raised, and so rebuild themselves."""

from __future__ import annotations

import builtins
from typing import Any

from snakepit.errors._errors import SnakepitError


class RemoteError(SnakepitError):
    """What a `ToolError` and a `HostToolError` have in common: an exception of the other side."""

    _builtin: str | None = None  # of the builtin type that this class is as well
    _original_args: tuple[Any, ...] = ()  # what that type was made of

    tool: str
    type: str
    message: str
    traceback: str

    def _fields(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _fill(self, *fields: str) -> None:
        raise NotImplementedError

    def __str__(self) -> str:
        name = self.type.removeprefix("builtins.")
        return f"{name}: {self.message}" if self.message else name

    def __reduce__(self) -> tuple[Any, ...]:
        fields = self._fields()
        state = {"notes": list(getattr(self, "__notes__", ()))}
        if self._builtin is None:
            return (type(self), fields, state)
        root = HostToolError if isinstance(self, HostToolError) else ToolError
        return (_rebuild, (root, self._builtin, self._original_args, fields), state)

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        for note in (state or {}).get("notes", ()):
            self.add_note(note)


class ToolError(RemoteError):
    """The tool raised; it has run. Retry only if the tool is idempotent and the cause may pass.

    Where the tool raised a builtin `Exception` type (or a subclass of one), this error is an
    instance of that type too, so `except FileNotFoundError` works across the process; then
    `errno`, `filename` and the like are set, and `args` are those of the original.
    The worker's traceback is in `traceback` and in a note.

    Fields: `tool`, `type` (qualified name of the exception), `message` (its `str()`),
    `traceback` (formatted, as text), `worker_id`.
    """

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

    def _fields(self) -> tuple[str, ...]:
        return (self.tool, self.type, self.message, self.traceback, self.worker_id)

    def _fill(self, *fields: str) -> None:
        tool, kind, message, traceback, worker_id = fields
        self.tool: str = tool
        self.type: str = kind
        self.message: str = message
        self.traceback: str = traceback
        self.worker_id: str = worker_id


class HostToolError(RemoteError):
    """Raised in the worker where a tool has called a host tool, and that raised; it has run.

    Like `ToolError` it is an instance of the builtin type, too. A tool that lets it pass fails with
    what the host tool raised. Fields: `tool` (the host tool), `type`, `message`, `traceback`.
    """

    def __init__(
        self,
        tool: str,
        type: str,  # noqa: A002 - the name of the public field
        message: str,
        traceback: str = "",
    ) -> None:
        super().__init__(tool, type, message, traceback)
        self._fill(tool, type, message, traceback)

    def _fields(self) -> tuple[str, ...]:
        return (self.tool, self.type, self.message, self.traceback)

    def _fill(self, *fields: str) -> None:
        tool, kind, message, traceback = fields
        self.tool: str = tool
        self.type: str = kind
        self.message: str = message
        self.traceback: str = traceback


# Types whose meaning belongs to the interpreter's own control flow, or whose instances
# cannot be rebuilt from data: a tool that raises one arrives as a plain ToolError.
_PLAIN = (StopIteration, StopAsyncIteration, BaseExceptionGroup)
_dual_types: dict[tuple[type[RemoteError], str], type[RemoteError]] = {}


def _dual_type(root: type[RemoteError], builtin: str | None) -> type[RemoteError]:
    """The subclass of the root that is also `builtin`; the root itself where there is none."""
    if builtin is None:
        return root
    known = _dual_types.get((root, builtin))
    if known is None:
        base = getattr(builtins, builtin, None)
        eligible = (
            isinstance(base, type) and issubclass(base, Exception) and not issubclass(base, _PLAIN)
        )
        if not eligible or base is Exception:
            return root
        assert isinstance(base, type)
        name = base.__name__  # IOError is OSError
        attributes = {"__doc__": root.__doc__, "__module__": root.__module__, "_builtin": name}
        title = root.__name__.removesuffix("Error") + name
        known = _dual_types.setdefault((root, name), type(title, (root, base), attributes))
    return known


def _rebuild(
    root: type[RemoteError], builtin: str | None, args: tuple[Any, ...], fields: tuple[str, ...]
) -> RemoteError:
    kind = _dual_type(root, builtin)
    if kind is root:
        return root(*fields)
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
    error = _rebuild(ToolError, builtin, (message,) if args is None else args, fields)
    assert isinstance(error, ToolError)
    return error


def host_tool_error(
    *,
    tool: str,
    type: str,  # noqa: A002 - as the field
    message: str,
    traceback: str,
    builtin: str | None = None,
    args: tuple[Any, ...] | None = None,
) -> HostToolError:
    """The same for an exception of a host tool."""
    fields = (tool, type, message, traceback)
    error = _rebuild(HostToolError, builtin, (message,) if args is None else args, fields)
    assert isinstance(error, HostToolError)
    return error
