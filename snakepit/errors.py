"""Every error that snakepit raises: typed, with fields, picklable.

Each class says whether the call may have run and whether to retry. `args` equal the
constructor's signature, so an error crosses a process as it is; `ToolError` rebuilds itself,
because it is also the builtin type that the tool raised.
"""

from __future__ import annotations

import builtins
from typing import Any

__all__ = [
    "CallTimeoutError",
    "ConfigError",
    "InvalidParamsError",
    "PoolBrokenError",
    "PoolClosedError",
    "PoolSaturatedError",
    "ProtocolError",
    "QueueTimeoutError",
    "SerializationError",
    "SnakepitError",
    "ToolCancelled",
    "ToolError",
    "ToolNotFoundError",
    "WorkerDiedError",
    "WorkerStartError",
    "tool_error",
]

STDERR_LINES_SHOWN = 20


class SnakepitError(Exception):
    """The root of every error of this library."""


class ToolCancelled(BaseException):
    """Raised inside a sync tool whose call was cancelled, where it stands.

    A `BaseException`, so that `except Exception` in a tool does not swallow it. Clean up in
    `finally` and let it pass; a tool that does not stop loses its worker.
    """


class ConfigError(SnakepitError, ValueError):
    """An option is wrong. Nothing was started; fix the option.

    Fields: `option` (its name), `value` (what was given), `allowed` (what may be given).
    """

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(option, value, allowed)
        self.option: str = option
        self.value: object = value
        self.allowed: str = allowed

    def __str__(self) -> str:
        return f"{self.option}={self.value!r} is not possible: {self.allowed}"


class SerializationError(SnakepitError, TypeError):
    """A value cannot travel between host and worker.

    For an argument the call never ran; for a result the tool has run to its end. Retrying the
    same value fails again. Fields: `message`, `where` (path inside the value, `""` = the value itself).
    """

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message, where)
        self.message: str = message
        self.where: str = where

    def __str__(self) -> str:
        return f"{self.message} (at {self.where})" if self.where else self.message


class ProtocolError(SnakepitError):
    """The other side broke the protocol. Its worker is condemned; a call on it may have run."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message: str = message


class ToolNotFoundError(SnakepitError, LookupError):
    """No such tool; the call never ran. Fields: `tool`, `near` (similar names that exist)."""

    def __init__(self, tool: str, near: tuple[str, ...] = ()) -> None:
        super().__init__(tool, near)
        self.tool: str = tool
        self.near: tuple[str, ...] = near

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(map(repr, self.near))}?" if self.near else ""
        return f"the workers of this pool have no tool {self.tool!r}{hint}"


class InvalidParamsError(SnakepitError, TypeError):
    """The arguments do not fit the tool; found before it ran. Fix the call; do not retry it.

    Fields: `tool`, `message`.
    """

    def __init__(self, tool: str, message: str) -> None:
        super().__init__(tool, message)
        self.tool: str = tool
        self.message: str = message

    def __str__(self) -> str:
        return f"tool {self.tool!r}: {self.message}"


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
        attributes = {"__doc__": ToolError.__doc__, "__module__": __name__, "_builtin": name}
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


class WorkerDiedError(SnakepitError):
    """The worker died, or was given up, during the call.

    If `started` the call may have run: retry only what is idempotent. Fields: `worker_id`,
    `pid`, `exit_code` (None if a signal or unknown), `signal` (its number, or None), `reason`,
    `started`, `stderr_tail` (last lines the worker wrote), `certificate` (what is known of the death).
    """

    def __init__(
        self,
        worker_id: str,
        pid: int | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        reason: str = "died",
        started: bool = True,  # noqa: FBT001, FBT002 - args equal the signature
        stderr_tail: str = "",
        certificate: str = "",
    ) -> None:
        super().__init__(
            worker_id, pid, exit_code, signal, reason, started, stderr_tail, certificate
        )
        self.worker_id: str = worker_id
        self.pid: int | None = pid
        self.exit_code: int | None = exit_code
        self.signal: int | None = signal
        self.reason: str = reason
        self.started: bool = started
        self.stderr_tail: str = stderr_tail
        self.certificate: str = certificate

    def __str__(self) -> str:
        process = "" if self.pid is None else f" (pid {self.pid})"
        text = f"worker {self.worker_id}{process} {self.reason}"
        if self.certificate:
            text += f"; {self.certificate}"
        text += "; the call had started" if self.started else "; the call had not started"
        return text + _tail(self.stderr_tail)


class WorkerStartError(SnakepitError):
    """A worker could not start; no call ran on it.

    Fields: `worker_id`, `reason`, `exit_code`, `signal`, `stderr_tail`, `traceback` (the
    worker's own, "" where it got no further than the interpreter).
    """

    def __init__(
        self,
        worker_id: str,
        reason: str,
        exit_code: int | None = None,
        signal: int | None = None,
        stderr_tail: str = "",
        traceback: str = "",
    ) -> None:
        super().__init__(worker_id, reason, exit_code, signal, stderr_tail, traceback)
        self.worker_id: str = worker_id
        self.reason: str = reason
        self.exit_code: int | None = exit_code
        self.signal: int | None = signal
        self.stderr_tail: str = stderr_tail
        self.traceback: str = traceback

    def __str__(self) -> str:
        text = f"worker {self.worker_id} could not start: {self.reason}"
        if self.traceback:
            text += f"\n{self.traceback.rstrip()}"
        return text + _tail(self.stderr_tail)


class PoolBrokenError(SnakepitError):
    """No worker is left that may be restarted. The call did not run, or its worker died for good.

    Open a new pool once the cause is mended. Fields: `message`, `certificate` (of the last death).
    """

    def __init__(self, message: str, certificate: str = "") -> None:
        super().__init__(message, certificate)
        self.message: str = message
        self.certificate: str = certificate

    def __str__(self) -> str:
        return (
            f"{self.message}\nlast death: {self.certificate}" if self.certificate else self.message
        )


class CallTimeoutError(SnakepitError, TimeoutError):
    """The call's time was spent while it ran; it was stopped. It may have had effects.

    Fields: `tool`, `timeout` (seconds).
    """

    def __init__(self, tool: str, timeout: float) -> None:
        super().__init__(tool, timeout)
        self.tool: str = tool
        self.timeout: float = timeout

    def __str__(self) -> str:
        return f"tool {self.tool!r} did not finish within {self.timeout:g} s and was stopped"


class QueueTimeoutError(SnakepitError, TimeoutError):
    """The call's time was spent while it waited for a worker; it never ran, retrying is safe.

    Fields: `tool`, `timeout` (seconds).
    """

    def __init__(self, tool: str, timeout: float) -> None:
        super().__init__(tool, timeout)
        self.tool: str = tool
        self.timeout: float = timeout

    def __str__(self) -> str:
        return f"tool {self.tool!r} waited {self.timeout:g} s for a worker and never ran"


class PoolSaturatedError(SnakepitError):
    """The queue is full; the call never ran. Retry later, or bound your own concurrency.

    Fields: `message`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message: str = message


class PoolClosedError(SnakepitError):
    """The pool is closed or closing. A call that waited never ran; a running one was stopped.

    Fields: `message`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message: str = message


def _tail(stderr_tail: str) -> str:
    lines = stderr_tail.splitlines()[-STDERR_LINES_SHOWN:]
    return (
        "\n  its last lines on stderr:\n" + "\n".join(f"  | {line}" for line in lines)
        if lines
        else ""
    )
