"""What a tool may know of the call it serves: `context()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from snakepit._trace_context import headers_of
from snakepit.errors import ToolCancelled

if TYPE_CHECKING:
    from snakepit.worker._host_calls import HostCalls
    from snakepit.worker._job import Job
    from snakepit.worker._progress import Reporter

# None in the hooks, which belong to no call.
current_context: ContextVar[CallContext | None] = ContextVar("snakepit_call", default=None)


class CallContext:
    """The call that runs now, seen from inside the tool.

    `call_id`: the number of the call on this worker. `tool`: the tool's name. `deadline`: when
    the caller stops waiting, on the clock of `time.monotonic()` in this process, or None; advice,
    since only the host decides that time is up. `session_id`: of the session that the call belongs
    to, or None.
    """

    __slots__ = (
        "_host_calls",
        "_job",
        "_reporter",
        "_state",
        "call_id",
        "deadline",
        "session_id",
        "tool",
    )

    def __init__(
        self,
        job: Job,
        reporter: Reporter,
        host_calls: HostCalls,
        state: dict[Any, Any] | None = None,
    ) -> None:
        self._job, self._reporter, self._host_calls, self._state = job, reporter, host_calls, state
        self.session_id: str | None = job.message.session
        self.call_id: int = job.id
        self.tool: str = job.tool
        self.deadline: float | None = job.deadline

    @property
    def session(self) -> dict[Any, Any]:
        """What this worker keeps for this session; whatever its next calls shall find goes there.

        It is dropped when the session ends, and never travels. A call without a session has a dict of
        its own, which ends with it; so a tool need not ask whether there is a session.
        """
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def trace_context(self) -> dict[str, str]:
        """The trace that the call is part of, as headers `traceparent` and perhaps `tracestate`, which W3C defines.

        Empty where the caller named none. OpenTelemetry takes it as it is:

            with tracer.start_as_current_span("predict", context=extract(context().trace_context)):
        """
        return headers_of(self._job.message.trace)

    @property
    def cancelled(self) -> bool:
        """True once the caller has given this call up."""
        return self._job.cancelled

    def check_cancelled(self) -> None:
        """Raise `ToolCancelled` if the caller has given this call up. Call it in long loops.

        Async tools need it only between awaits: an await raises their loop's own cancellation.
        """
        if self._job.cancelled:
            self._job.interrupted = True
            raise ToolCancelled("this call was cancelled")

    def call_host(self, name: str, params: Mapping[str, Any] | None = None) -> Any:
        """Have the host run one of its host tools, and wait for its value. For sync tools.

        It runs in the caller's own process, with what `pool.host_tool` has offered there and
        nothing else. The wait ends with the call: `ToolCancelled`.

        Raises: HostToolError: the host tool raised; also the builtin type that it raised.
            ToolNotFoundError, InvalidParamsError, SerializationError: it was not run, or its value cannot
            travel. RuntimeError: in an async tool, which would block its loop, or when the call is over.
        """
        return self._host_calls.call(self._job, name, params)

    async def acall_host(self, name: str, params: Mapping[str, Any] | None = None) -> Any:
        """As `call_host`, for async tools; any number of them at once.

        Cancelling it cancels the host tool, and does not wait for its end; the call's caller does.
        """
        return await self._host_calls.acall(self._job, name, params)

    @property
    def host_tools(self) -> HostTools:
        """The host's tools by name, as in `context().host_tools["name"](**params)`.

        In a sync tool this is `call_host`, in an async one it is to be awaited.
        """
        return HostTools(self)

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell the caller how far this call is; `on_progress` of `pool.execute` hears it.

        Works in tools of every kind, and in threads and tasks of theirs. Cheap enough for an inner
        loop: an update is sent at most every 20 ms, the first one at once, then the latest, and
        the last one before the outcome. Once the call is cancelled or over it does nothing.

        Args:
            done: how much is done, in whatever unit; finite and not below 0.
            total: of how much, in the same unit; None: nobody knows.
            message: a line of text; cut after 1000 characters.

        Raises: TypeError, ValueError: these are no such numbers, or no text.
        """
        self._reporter.report(self._job, done, total, message)


class HostTools:
    """`context().host_tools`: nobody asks the host for a name before it is called."""

    __slots__ = ("_context",)

    def __init__(self, context: CallContext) -> None:
        self._context = context

    def __getitem__(self, name: str) -> Callable[..., Any]:
        call = self._context.acall_host if self._context._job.is_async else self._context.call_host

        def host_tool(**params: Any) -> Any:
            return call(name, params)

        return host_tool


def context() -> CallContext:
    """The context of the call that is running.

    Raises: RuntimeError: outside a tool, or in a thread that a tool started (pass it what it
    needs, or run it in `contextvars.copy_context()`).
    """
    found = current_context.get()
    if found is None:
        raise RuntimeError(
            "context() works inside a tool's call; a thread that a tool starts must be "
            "given the context, or run in contextvars.copy_context()"
        )
    return found
