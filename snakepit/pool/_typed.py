"""`call` and `call_stream`: a tool called by its method, typed as the method declares it.

The overloads tell a method from a function by its first parameter: a method of an `Adapter` takes
one, and nobody passes it. The coroutine ones come before these, for what they return would fit them.

A tool that streams is not for `call`, and to type checkers what `call` gives for it is nothing that can be
awaited. That overload would also fit a tool that returns Any; so one comes before it that fits no other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from snakepit.pool._methods import as_call
from snakepit.pool._stream import Stream
from snakepit.worker import Adapter

A = TypeVar("A", bound=Adapter)
P = ParamSpec("P")
T = TypeVar("T")


class OnlyAny:
    """No tool returns this; so where it is wanted, only Any fits."""


class Streams:
    """What type checkers see in `call` of a tool that streams: `call_stream` is for these."""


class TypedCalls(ABC):
    """The typed half of a pool's face."""

    @abstractmethod
    async def _execute(self, tool: str, params: Mapping[str, Any]) -> Any:
        """Call a tool by its name."""

    @abstractmethod
    def _stream(
        self, tool: str, params: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Stream[Any]]:
        """Call a streaming tool by its name."""

    @overload
    async def call(
        self,
        method: Callable[Concatenate[A, P], OnlyAny],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Any: ...
    @overload
    async def call(
        self, method: Callable[P, OnlyAny], /, *args: P.args, **kwargs: P.kwargs
    ) -> Any: ...
    @overload
    def call(  # type: ignore[overload-overlap]
        self,
        method: Callable[Concatenate[A, P], Iterator[Any] | AsyncIterator[Any]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Streams: ...
    @overload
    def call(  # type: ignore[overload-overlap]
        self,
        method: Callable[P, Iterator[Any] | AsyncIterator[Any]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Streams: ...
    @overload
    async def call(
        self,
        method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    async def call(
        self,
        method: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    async def call(
        self, method: Callable[Concatenate[A, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def call(  # type: ignore[misc]
        self, method: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call the tool that this method is: `await pool.call(MyAdapter.predict, text="hi")`.

        Arguments and result are typed as the method declares them, that of an async one as what it
        returns. Positional arguments get their names from its signature. Options go by `bind`.

        Args:
            method: a method of the adapter's class, taken from the class, or a tool of a module.
            *args: arguments in the method's order, without `self`.
            **kwargs: arguments by name.

        Raises: as `execute`; TypeError: this is no tool.
        """
        return await self._execute(*as_call(method, args, kwargs))

    @overload
    def call_stream(
        self,
        method: Callable[Concatenate[A, P], AsyncIterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractAsyncContextManager[Stream[T]]: ...
    @overload
    def call_stream(
        self,
        method: Callable[P, AsyncIterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractAsyncContextManager[Stream[T]]: ...
    @overload
    def call_stream(
        self,
        method: Callable[Concatenate[A, P], Iterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractAsyncContextManager[Stream[T]]: ...
    @overload
    def call_stream(
        self,
        method: Callable[P, Iterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractAsyncContextManager[Stream[T]]: ...
    def call_stream(
        self, method: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[Stream[Any]]:
        """Call the streaming tool that this method is: `async with pool.call_stream(A.words, ...)`.

        As `call`; the chunks have the type that the generator yields. Further as `stream`.
        """
        return self._stream(*as_call(method, args, kwargs))
