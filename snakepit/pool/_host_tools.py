"""Host tools: functions of the host that its workers' tools may call, and nothing else.

A host tool runs as a task of the call that caused it (`_attending.py`): in its caller's context, under
its scopes, until its deadline. It is cancelled with it, and when the worker gives the host call up.
"""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from attrs import frozen

from snakepit.errors import (
    ConfigError,
    InvalidParamsError,
    PoolSaturatedError,
    ProtocolError,
    ToolNotFoundError,
)
from snakepit.pool._attending import start_for
from snakepit.pool._settings import is_utf8
from snakepit.pool._tools import TOOL_NAME_MAX, ToolSpec
from snakepit.protocol import (
    HostCall,
    HostCancel,
    HostFailure,
    HostReply,
    decode_value,
    describe,
    encode_value,
)
from snakepit.worker._annotations import signature_of
from snakepit.worker._schema import schema_of

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore
    from snakepit.pool._worker import Worker

F = TypeVar("F", bound=Callable[..., Any])

HOST_CALLS_MAX: Final = 1000  # of one call at a time


@frozen
class HostTool:
    """A function that workers may call, by this name."""

    name: str
    function: Callable[..., Any]
    description: str
    signature: inspect.Signature | None

    def check(self, params: object) -> None:
        """Raises InvalidParamsError for params that the function does not take."""
        if type(params) is not dict:
            raise InvalidParamsError(self.name, "params must be a dict of argument names")
        if self.signature is not None:
            try:
                self.signature.bind(**params)
            except TypeError as error:
                raise InvalidParamsError(self.name, str(error)) from None


class HostTools(dict[str, HostTool]):
    """The host tools of a pool, or of a session, by name."""

    def add(
        self, function: Callable[..., Any], name: str | None, description: str | None
    ) -> ToolSpec:
        """Offer a function. Raises ConfigError, TypeError."""
        tool = _make(function, name, description)
        if tool.name in self:
            raise ConfigError("name", tool.name, "there is a host tool of this name already")
        self[tool.name] = tool
        parameters = schema_of(signature_of(function))
        return ToolSpec(tool.name, tool.description, parameters, streaming=False)


class HostToolCalls(ABC):
    """The half of a face that offers host tools."""

    @abstractmethod
    def _offer(self, func: Callable[..., Any], name: str | None, description: str | None) -> None:
        """Let workers call this function."""

    @overload
    def host_tool(
        self, func: F, /, *, name: str | None = None, description: str | None = None
    ) -> F: ...
    @overload
    def host_tool(
        self, func: None = None, /, *, name: str | None = None, description: str | None = None
    ) -> Callable[[F], F]: ...
    def host_tool(
        self,
        func: F | None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> F | Callable[[F], F]:
        """Let workers call this function: `@pool.host_tool`, or `@pool.host_tool(name="ask")`.

        Tools call it by `context().call_host(name, params)`. An async one runs in the task group of
        the call that caused it, with that caller's context variables and deadline, and is cancelled with
        it. A plain one runs on the event loop, which waits for it: keep it short, or make it async and
        use `anyio.to_thread`. What is offered by a session is for its calls alone, ends with it, and wins over
        the pool's of the same name.

        Args:
            func: a function or coroutine function. Its arguments come by name.
            name: what workers call it; None: the function's own name.
            description: for people; None: the first paragraph of its docstring.

        Raises: ConfigError: there is one of this name, or it has none. TypeError: this cannot be called so.
        """

        def offer(function: F) -> F:
            self._offer(function, name, description)
            return function

        return offer if func is None else offer(func)


def begin_host_call(core: PoolCore, worker: Worker, message: HostCall) -> None:
    """A worker asks for a host tool. Raises ProtocolError."""
    call = worker.seat.calls.get(message.call)
    if call is None:
        raise ProtocolError(f"call {message.call}, which called the host, is not on this worker")
    if call.settled or call.given_up:
        return  # it does not know yet
    key = (worker.id, message.id)
    if call.host_calls is None:
        call.host_calls = {}
    if key in call.host_calls or message.id < 1:
        raise ProtocolError(f"host call {message.id} came twice, or is no number of one")
    if len(call.host_calls) >= HOST_CALLS_MAX:
        problem = f"{HOST_CALLS_MAX} host calls of call {call.id} are under way already"
        worker.tell(HostFailure(message.id, "tool", describe(PoolSaturatedError(problem))))
        return
    run = partial(_serve, core, worker, call, message)
    call.host_calls[key] = start_for(core, call, run, f"host tool {message.tool!r}")


def cancel_host_call(worker: Worker, message: HostCancel) -> None:
    """The worker gives a host call up; it may have been answered meanwhile."""
    call = worker.seat.calls.get(message.call)
    if call is not None and call.host_calls is not None:
        attendant = call.host_calls.pop((worker.id, message.id), None)
        if attendant is not None:
            attendant.cancel()


async def _serve(  # noqa: ASYNC910 - as the function
    core: PoolCore, worker: Worker, call: PendingCall, message: HostCall
) -> None:
    """The task of one host call."""
    reply: HostReply | HostFailure
    kind = "serialization"
    try:
        try:
            params = decode_value(message.body, message.buffers)
            kind = "not_found"
            tool = _find(core, call, message.tool)
            kind = "params"
            tool.check(params)
            kind = "tool"
            value = tool.function(**params)
            if inspect.isawaitable(value):
                value = await value
            kind = "serialization"
            reply = HostReply(message.id, *encode_value(value))
        except Exception as error:
            reply = HostFailure(message.id, kind, describe(error))
    finally:
        assert call.host_calls is not None
        waits = call.host_calls.pop((worker.id, message.id), None) is not None
    if waits and call.worker is worker and not (call.settled or call.given_up):
        worker.tell(reply)


def _find(core: PoolCore, call: PendingCall, name: str) -> HostTool:
    offers: list[Mapping[str, HostTool]] = [core.host_tools]
    if call.session is not None and call.session.host_tools is not None:
        offers.insert(0, call.session.host_tools)
    for offer in offers:
        if name in offer:
            return offer[name]
    known = [known for offer in offers for known in offer]
    raise ToolNotFoundError(name, tuple(difflib.get_close_matches(name, known)), "host")


def _make(function: Any, name: str | None, description: str | None) -> HostTool:
    if not callable(function):
        raise TypeError(f"a host tool is a function, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is a generator; a host tool returns one value")
    if name is None:
        name = getattr(function, "__name__", None)
        if name is None:
            raise ConfigError("name", name, f"{function!r} does not know its name: give it one")
    if not isinstance(name, str) or not 1 <= len(name) <= TOOL_NAME_MAX or not is_utf8(name):
        raise ConfigError("name", name, f"text of 1 to {TOOL_NAME_MAX} characters, valid UTF-8")
    if description is None:
        description = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # one of C's that does not tell
        signature = None
    for one in () if signature is None else signature.parameters.values():
        if one.kind is one.POSITIONAL_ONLY and one.default is one.empty:
            raise TypeError(f"{function!r} takes {one.name!r} by position; params come by name")
    return HostTool(name, function, description, signature)
