"""What every contender looks like to the scenarios: a function, awaited on trio, run in a worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, TypeAlias

import trio

Run: TypeAlias = Callable[..., Awaitable[Any]]
Stops: TypeAlias = Literal["a call", "the pool", "nothing"]


class Contender(ABC):
    """A way to run functions in worker processes, and its best documented way to stop one.

    `distribution`: where its version is found, None for the standard library. `how`: for the
    documentation, how a call is stopped. `stops`: what that ends. `death`: the error, or what that is
    one of, by which it tells that a call's worker has died; none if it does not tell.
    """

    name: str
    distribution: str | None = None
    stops: Stops = "a call"
    how: str
    death: str = ""

    @abstractmethod
    def open(self, workers: int) -> AbstractAsyncContextManager[Run]:
        """Workers that run functions: `await run(func, *args)`. Cancelling stops the call, if it can.

        ImportError: it is not installed.
        """


class FuturesContender(Contender):
    """One whose calls are `concurrent.futures.Future`s, awaited without a thread for each."""

    @abstractmethod
    def submit(self, workers: int, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Begin a call, in a pool that is made with the first one; return its future."""

    @abstractmethod
    def stop(self, future: Any) -> None:
        """Stop the call, in the best way that there is. May block."""

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Run]:
        async def run(func: Callable[..., Any], *args: Any) -> Any:
            future = self.submit(workers, func, args)
            return await until_done(future, self.stop)

        yield run  # nothing is closed: the host's process ends with the scenario


async def until_done(future: Any, stop: Callable[[Any], None]) -> Any:
    """The future's value. If cancelled, stop its call first."""
    token, done = trio.lowlevel.current_trio_token(), trio.Event()
    future.add_done_callback(lambda _: token.run_sync_soon(done.set))
    try:
        await done.wait()
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(stop, future, abandon_on_cancel=True)
        raise
    return future.result()
