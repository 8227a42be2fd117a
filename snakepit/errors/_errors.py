"""Every error but ToolError: typed, with fields; `args` equal the constructor's signature."""

from __future__ import annotations

STDERR_LINES_SHOWN = 20
VALUE_CHARS_SHOWN = 200


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
        value = repr(self.value)
        if len(value) > VALUE_CHARS_SHOWN:
            value = f"{value[: VALUE_CHARS_SHOWN // 2]}…{value[-VALUE_CHARS_SHOWN // 2 :]}"
        return f"{self.option}={value} is not possible: {self.allowed}"


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
    """No such tool; the call never ran. Also raised in a worker that asks for an unknown host tool.

    Fields: `tool`, `near` (similar names that exist), `side` ("worker" or "host": who lacks it).
    """

    def __init__(self, tool: str, near: tuple[str, ...] = (), side: str = "worker") -> None:
        super().__init__(tool, near, side)
        self.tool: str = tool
        self.near: tuple[str, ...] = near
        self.side: str = side

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(map(repr, self.near))}?" if self.near else ""
        if self.side == "host":
            return f"the host offers no tool {self.tool!r} to this call{hint}"
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


class WorkerDiedError(SnakepitError):
    """The worker died, or was given up, during the call.

    If `started` the call may have run: retry only what is idempotent. Fields: `worker_id`,
    `pid`, `exit_code` (None if a signal or unknown), `signal` (its number, or None), `reason`,
    `started`, `stderr_tail` (the last 100 lines the worker wrote, of these the last 65,536 characters
    at most), `certificate` (what is known of the death).
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
        text += "; the call had started" if self.started else "; no call had started"
        return text + _tail(self.stderr_tail)


class CallQuarantinedError(SnakepitError):
    """Too many workers have died during this very call, so it was not run again.

    The same call is the same tool with the same arguments, as they are encoded: in another order, or
    with a default given, they are others. It did not run this time; only if `started`
    had it begun, on a worker that died, and was to be repeated as it is idempotent. Do not retry it
    before `retry_after`; mend the tool, or what it is given, or set
    `CrashBarrier(quarantine_after=None)` where it is not the call's fault.

    Fields: `tool`, `kills` (how many workers have died of it), `retry_after` (seconds until it may run
    again), `started`, `certificate` (of the last of these deaths).
    """

    def __init__(
        self,
        tool: str,
        kills: int,
        retry_after: float,
        started: bool = False,  # noqa: FBT001, FBT002 - args equal the signature
        certificate: str = "",
    ) -> None:
        super().__init__(tool, kills, retry_after, started, certificate)
        self.tool: str = tool
        self.kills: int = kills
        self.retry_after: float = retry_after
        self.started: bool = started
        self.certificate: str = certificate

    def __str__(self) -> str:
        again = "again" if self.started else "this time"
        text = (
            f"tool {self.tool!r} was not run with these arguments {again}: {self.kills} workers in a "
            f"row have died during it (CrashBarrier.quarantine_after); it may run in "
            f"{self.retry_after:.0f} s"
        )
        return f"{text}; last death: {self.certificate}" if self.certificate else text


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


class _TimeUpError(SnakepitError, TimeoutError):
    """A call's time was spent, seconds of it."""

    def __init__(self, tool: str, timeout: float) -> None:
        super().__init__(tool, timeout)
        self.tool: str = tool
        self.timeout: float = timeout


class CallTimeoutError(_TimeUpError):
    """The call's time was spent while it ran; it was stopped. It may have had effects.

    If its worker had to be ended for it, `__cause__` is the `WorkerDiedError` of that one, which shows
    where it stood. Fields: `tool`, `timeout` (seconds).
    """

    def __str__(self) -> str:
        return f"tool {self.tool!r} did not finish within {self.timeout:g} s and was stopped"


class QueueTimeoutError(_TimeUpError):
    """The call's time was spent while it waited for a worker; it never ran, retrying is safe.

    Fields: `tool`, `timeout` (seconds).
    """

    def __str__(self) -> str:
        return f"tool {self.tool!r} waited {self.timeout:g} s for a worker and never ran"


class PoolSaturatedError(SnakepitError):
    """The queue is full, or as many sessions are open as may be; the call never ran.

    Retry later, or bound your own concurrency; for sessions, end those that nobody needs.

    Fields: `message`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message: str = message


class ReentrancyError(PoolSaturatedError):
    """The call could only wait for itself: all workers that could run it wait for it to end.

    The call never ran. It comes from calls that a host tool makes for a tool that waits for it, or
    from a call inside a stream that nobody reads meanwhile. Use a larger pool, another pool, or make
    the call elsewhere. Fields: `message`, `chain` (the calls that wait, outermost first, then this one).
    """

    def __init__(self, message: str, chain: tuple[str, ...] = ()) -> None:
        super(PoolSaturatedError, self).__init__(message, chain)
        self.message: str = message
        self.chain: tuple[str, ...] = chain

    def __str__(self) -> str:
        return f"{self.message}: {' → '.join(self.chain)}" if self.chain else self.message


class PoolClosedError(SnakepitError):
    """The pool is closed or closing. A call that waited never ran; a running one was stopped.

    If its worker had to be ended for it, `__cause__` is the `WorkerDiedError` of that one. Fields: `message`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message: str = message


class SessionLostError(SnakepitError):
    """The session's worker is gone, and with it what it kept for the session.

    The call never ran. Begin anew: open the session again and rebuild its state. The call that ran
    when the worker died gets `WorkerDiedError`, or, if it was stopped, the error for that. `__cause__`
    tells how the worker ended. Fields: `session_id`, `worker_id`.
    """

    def __init__(self, session_id: str, worker_id: str) -> None:
        super().__init__(session_id, worker_id)
        self.session_id: str = session_id
        self.worker_id: str = worker_id

    def __str__(self) -> str:
        return f"session {self.session_id!r} is lost: its worker {self.worker_id} is gone"


class _SessionRefusedError(SnakepitError):
    """A session takes no call now, for this reason."""

    def __init__(self, session_id: str, reason: str) -> None:
        super().__init__(session_id, reason)
        self.session_id: str = session_id
        self.reason: str = reason


class SessionBusyError(_SessionRefusedError):
    """The session's worker cannot begin a call now (`strict_fail_fast`), or it is open already.

    The call never ran; retry later, or elsewhere. Fields: `session_id`, `reason`.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} {self.reason}"


class SessionNotFoundError(_SessionRefusedError):
    """There is no such session, or no more: it has ended, or its time was up.

    The call did not run, or was stopped because its session was ended. Open the session anew.
    Fields: `session_id`, `reason`.
    """

    def __str__(self) -> str:
        return f"there is no session {self.session_id!r}: it {self.reason}"


def _tail(stderr_tail: str) -> str:
    lines = stderr_tail.splitlines()[-STDERR_LINES_SHOWN:]
    return (
        "\n  its last lines on stderr:\n" + "\n".join(f"  | {line}" for line in lines)
        if lines
        else ""
    )
