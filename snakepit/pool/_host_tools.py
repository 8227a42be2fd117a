"""Host tools: functions of the host that its workers' tools may call, and nothing else.

How they are called is in `_host_calls.py`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar, overload

from attrs import frozen

from snakepit.errors import ConfigError, InvalidParamsError
from snakepit.pool._settings import is_utf8
from snakepit.pool._tools import TOOL_NAME_MAX, ToolSpec
from snakepit.worker._annotations import signature_of
from snakepit.worker._schema import schema_of

F = TypeVar("F", bound=Callable[..., Any])


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
        it. A plain one runs on the event loop, which waits for it, in the task of its caller if that does
        nothing but wait: keep it short, or make it async and use `anyio.to_thread`. What is offered by a session is for its calls alone, ends with it, and wins over
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
