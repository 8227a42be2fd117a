"""`pool.stream`: the items of one call, under a credit window."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio
import anyio.lowlevel

from snakepit.errors import ConfigError
from snakepit.pool._ancestry import OpenStream, reads_now, recheck
from snakepit.pool._attending import block_of
from snakepit.pool._long_read import Values
from snakepit.protocol import Credit, decode_value

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._codec import Codec
    from snakepit.pool._core import PoolCore
    from snakepit.protocol import Item


T = TypeVar("T")

WINDOW_MAX: Final = 2**16


class Stream(AsyncIterator[T]):
    """The items, in the order in which the tool yielded them.

    At most `window` items are under way unread, and the tool waits with the next one in its
    hands: a slow reader slows it down. One task reads at a time.
    """

    def __init__(self, call: PendingCall, codec: Codec) -> None:
        self._call = call
        self._codec = codec
        self._values = Values(codec)
        self._owed = 0  # items taken whose credit has not been given back yet
        self._reading = anyio.ResourceGuard("reading")
        self._closed = False

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        """The next item. Always a checkpoint; cancelling loses no item.

        Raises: what the call failed with, after the items that came before it; CallTimeoutError at
        once; anyio.BusyResourceError: another task reads; anyio.ClosedResourceError: after the block.
        """
        with self._reading:
            if self._closed:
                raise anyio.ClosedResourceError
            call = self._call
            await anyio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise anyio.ClosedResourceError
                if call.given_up:
                    await call.until_settled()
                    call.outcome_of_stream()
                if call.items:
                    item = call.items.popleft()
                    if item.buffers or self._codec.own:
                        return cast("T", await self._read(item))
                    self._give_credit()
                    return cast("T", decode_value(item.body))
                if call.settled:
                    call.outcome_of_stream()
                    raise StopAsyncIteration
                if call.link is None:
                    await call.changed()
                else:
                    await self._changed()

    def close(self) -> None:
        """Refuse further reading; called when the block is left."""
        self._closed = True

    async def _read(self, item: Item) -> Any:  # noqa: ASYNC910 - there was a checkpoint
        """The item's value. Cancelled, the item stays the next one."""
        try:
            value = await self._values.take(item, item.body, item.buffers)
        except anyio.get_cancelled_exc_class():
            self._call.items.appendleft(item)
            raise
        except BaseException:
            self._give_credit()
            raise
        self._give_credit()
        return value

    async def _changed(self) -> None:  # noqa: ASYNC910 - its loop waits again
        """Wait, for a call that was made for others: who waits may have to be refused."""
        call = self._call
        call.awaited = True
        try:
            recheck(call)
            if not call.given_up:
                await call.changed()
        finally:
            call.awaited = False

    def _give_credit(self) -> None:
        self._owed += 1
        if self._owed >= (self._call.window + 1) // 2 and self._call.worker is not None:
            reads_now(self._call)
            self._call.credit += self._owed
            self._call.worker.tell(Credit(self._call.id, self._owed))
            self._owed = 0


@asynccontextmanager
async def open_stream(core: PoolCore, call: PendingCall) -> AsyncGenerator[Stream[Any]]:
    """The block in which a stream is read. The call is over, and its tasks are, when it is left."""
    stream: Stream[Any] = Stream(call, core.codec)
    async with block_of(core, call):
        try:
            with OpenStream(core, call):
                yield stream
        finally:
            stream.close()
            if call.session is not None:
                core.sessions.stream_left(call.session)
            if not call.settled:
                core.give_up(call)
            call.items.clear()  # no more come, and nobody reads them
            if not call.settled:
                await call.until_settled()  # noqa: ASYNC102 - until_settled shields itself
                call.check_stopped()


def check_window(window: object) -> None:
    """Raise ConfigError for what is no window."""
    whole = isinstance(window, int) and not isinstance(window, bool)
    if not whole or not 1 <= cast("int", window) <= WINDOW_MAX:
        raise ConfigError("window", window, f"a whole number from 1 to {WINDOW_MAX}")
