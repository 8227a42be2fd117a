"""Values that one reader takes, one after the other, of which some are read in a thread.

asyncio can cut off the wait for a thread, and the thread goes on. A reader whose `asyncio.timeout` is
shorter than the copy of the next item would begin it anew each time, and never have it. So what has
begun is kept, and whoever asks for the same item next gets what comes of it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from snakepit._loops import this_loop
from snakepit.protocol import TakesLongError

if TYPE_CHECKING:
    from msgspec import Raw

    from snakepit.pool._codec import Codec
    from snakepit.protocol import Buffers


class LongRead:
    """One value, read once, in a thread."""

    def __init__(self, codec: Codec, read: partial[Any]) -> None:
        self._codec, self._read = codec, read
        self._loop = this_loop()
        self._lock = threading.Lock()
        self._has_begun = self._has_ended = False
        self._ended = anyio.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    async def value(self) -> Any:  # noqa: ASYNC910 - at once if it is there
        """The value, or what came in its place. One task at a time; cancelled, it goes on."""
        if not self._has_begun:
            await self._codec.in_thread(partial(self._run))
        if not self._has_ended:  # it runs in another thread, of a reader who has left
            await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._value  # noqa: ASYNC910 - as above

    def _run(self) -> None:
        with self._lock:
            if self._has_begun:
                return
            self._has_begun = True
        try:
            self._value = self._read()
        except BaseException as error:
            self._error = error
        self._has_ended = True
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon(self._ended.set)


class Values:
    """Reads for one reader."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._next: tuple[object, LongRead] | None = None  # what a reader has begun to take

    async def take(self, of: object, body: Raw, buffers: Buffers) -> Any:  # noqa: ASYNC910 - only for a thread
        """The value of this item. Cancelled, it stays. Raises as `decode_value`."""
        if self._next is None or self._next[0] is not of:
            try:
                return self._codec.read(body, buffers)  # noqa: ASYNC910 - as above
            except TakesLongError:
                self._next = of, LongRead(self._codec, self._codec.reader_of(body, buffers))
        try:
            value = await self._next[1].value()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException:
            self._next = None
            raise
        self._next = None
        return value
