"""The input of `pool.map`: one item at a time, from an iterable of either kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from typing import Any, Final

import anyio
import anyio.to_thread

_END: Final = object()


class Input(ABC):
    """An iterator that one task takes from, and closes."""

    @abstractmethod
    async def next(self) -> Any:
        """The next item; a checkpoint if the iterator's is. Raises: StopAsyncIteration; what that does."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the iterator, if it can be closed."""


def open_input(params: object) -> Input:
    """Begin to iterate. Raises TypeError for what cannot be, or is surely a mistake."""
    if isinstance(params, Mapping | str | bytes | bytearray):
        raise TypeError(
            f"map takes an iterable of params, one mapping for each call, not a {_kind(params)}"
        )
    if isinstance(params, AsyncIterable):
        return AsyncInput(aiter(params))
    if isinstance(params, Iterable):
        return PlainInput(iter(params))
    raise TypeError(f"map takes an iterable or an async iterable of params, not a {_kind(params)}")


def open_input_in_threads(params: object) -> AsyncIterator[Any]:
    """For blocking code: each item is made in a thread, so the event loop never waits for it."""
    if isinstance(params, AsyncIterable) and not isinstance(params, Iterable):
        raise TypeError(f"blocking code cannot map over a {_kind(params)}, an async iterable")
    plain = open_input(params)
    assert isinstance(plain, PlainInput)
    return InThreads(plain.iterator)


def length_of(params: object) -> int | None:
    """How many items there will be, if that is known."""
    return len(params) if isinstance(params, Sized) else None


class PlainInput(Input):
    """A plain iterator: it runs on the event loop, as the rest of its caller's code does."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator: Iterator[Any] = iterator

    async def next(self) -> Any:  # noqa: ASYNC910 - who takes from it yields now and then
        item = next(self.iterator, _END)
        if item is _END:
            raise StopAsyncIteration
        return item  # noqa: ASYNC910 - as above

    async def aclose(self) -> None:  # noqa: ASYNC910 - closing need not wait
        _close(self.iterator)


class AsyncInput(Input):
    """An async iterator."""

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        self._iterator = iterator

    async def next(self) -> Any:
        return await anext(self._iterator)

    async def aclose(self) -> None:  # noqa: ASYNC910 - as above
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


class InThreads(AsyncIterator[Any]):
    """A plain iterator whose items are made in threads, one after the other."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    async def __anext__(self) -> Any:
        item = await anyio.to_thread.run_sync(next, self._iterator, _END)
        if item is _END:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Let a generator's `finally` run."""
        with anyio.CancelScope(shield=True):  # as long as the generator's own clean-up
            await anyio.to_thread.run_sync(_close, self._iterator)


def _close(iterator: Iterator[Any]) -> None:
    # A file has a `close` too; that is its owner's business.
    if isinstance(iterator, Generator):
        iterator.close()


def _kind(value: object) -> str:
    return type(value).__qualname__
