"""`call` and `call_stream` for blocking code; why there are so many overloads is told in `_typed.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from snakepit.pool._methods import as_call
from snakepit.pool._typed import OnlyAny, Streams
from snakepit.worker import Adapter

A = TypeVar("A", bound=Adapter)
P = ParamSpec("P")
T = TypeVar("T")


class SyncTypedCalls(ABC):
    """The typed half of a blocking pool's face."""

    @abstractmethod
    def _execute(self, tool: str, params: Mapping[str, Any]) -> Any:
        """Call a tool by its name."""

    @abstractmethod
    def _stream(
        self, tool: str, params: Mapping[str, Any]
    ) -> AbstractContextManager[Iterator[Any]]:
        """Call a streaming tool by its name."""

    @overload
    def call(
        self,
        method: Callable[Concatenate[A, P], OnlyAny],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Any: ...
    @overload
    def call(self, method: Callable[P, OnlyAny], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def call(
        self,
        method: Callable[Concatenate[A, P], Iterator[Any] | AsyncIterator[Any]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Streams: ...
    @overload
    def call(
        self,
        method: Callable[P, Iterator[Any] | AsyncIterator[Any]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Streams: ...
    @overload
    def call(
        self,
        method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    def call(
        self,
        method: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    def call(
        self, method: Callable[Concatenate[A, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the tool that this method is: `pool.call(MyAdapter.predict, text="hi")`; see `Pool.call`.

        Arguments and result are typed as the method declares them, that of an async one as what it
        returns. Options go by `execute`.

        Args:
            method: a method of the adapter's class, taken from the class, or a tool of a module.
            *args: arguments in the method's order, without `self`.
            **kwargs: arguments by name.

        Raises: as `execute`; TypeError: this is no tool.
        """
        return self._execute(*as_call(method, args, kwargs))

    @overload
    def call_stream(
        self,
        method: Callable[Concatenate[A, P], AsyncIterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractContextManager[Iterator[T]]: ...
    @overload
    def call_stream(
        self,
        method: Callable[P, AsyncIterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractContextManager[Iterator[T]]: ...
    @overload
    def call_stream(
        self,
        method: Callable[Concatenate[A, P], Iterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractContextManager[Iterator[T]]: ...
    @overload
    def call_stream(
        self,
        method: Callable[P, Iterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractContextManager[Iterator[T]]: ...
    def call_stream(
        self, method: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> AbstractContextManager[Iterator[Any]]:
        """Call the streaming tool that this method is: `with pool.call_stream(A.words, ...) as chunks`.

        As `call`; the chunks have the type that the generator yields. Further as `stream`.
        """
        return self._stream(*as_call(method, args, kwargs))
