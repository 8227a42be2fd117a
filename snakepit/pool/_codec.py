"""Values of calls, written and read: on the loop, or in a thread where that takes long.

Views of memory take no time, however large they are. What is copied does, as `bytes` and, with
`ZeroCopy.copy_results`, arrays are; and so does looking at each string of an Arrow table, or making
Arrow data of a pandas frame. Whoever finds that it does gives up at once, and a thread begins anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import Raw

from snakepit.protocol import Buffers, Copy, Places, TakesLongError, decode_value, encode_arguments
from snakepit.shm import private_bytes, private_copy

COPY_BYTES_MAX: Final = 4 * 2**20  # copied on the loop; more is copied in a thread
THREADS_MAX: Final = 2  # memory is no faster for more

T = TypeVar("T")
Answer: TypeAlias = tuple[Raw, Buffers]  # the value of a result
Arguments: TypeAlias = tuple[Raw, Buffers, Sequence[AsyncIterable[Any]]]


class Codec:
    """Writes and reads for one pool. `own`: arrays and memoryviews are to be the caller's, who may write them.

    `uses_threads`: False where time is virtual, which must not go on while a thread works.
    """

    def __init__(self, *, own: bool, uses_threads: bool) -> None:
        self.own: bool = own
        self.work_max: int | None = COPY_BYTES_MAX if uses_threads else None
        self._limiter = anyio.CapacityLimiter(THREADS_MAX)

    async def write(self, params: dict[str, Any], places: Places | None) -> Arguments:
        """Arguments that took more than `work_max`. Raises as `encode_arguments`."""
        arguments = await self.in_thread(partial(encode_arguments, params, places))
        await anyio.lowlevel.checkpoint_if_cancelled()
        return arguments

    @property
    def _copy(self) -> Copy | None:
        return private_copy if self.own else None

    async def value_of(self, body: Raw, buffers: Buffers) -> Any:  # noqa: ASYNC910 - only for a thread
        """The value. Raises as `decode_value`."""
        try:
            return self.read(body, buffers)  # noqa: ASYNC910 - as above
        except TakesLongError:
            pass
        return await self.in_thread(self.reader_of(body, buffers))

    def read(self, body: Raw, buffers: Buffers) -> Any:
        """The value. Raises TakesLongError if a thread should do it, and as `decode_value`."""
        work_max = None if sum(map(len, buffers)) <= COPY_BYTES_MAX else self.work_max
        return decode_value(body, buffers, copy=self._copy, work_max=work_max)

    def reader_of(self, body: Raw, buffers: Buffers) -> partial[Any]:
        """The same for a thread, with all the time that it takes."""
        return partial(decode_value, body, buffers, copy=self._copy, make=private_bytes)

    async def read_arguments(self, body: Raw, buffers: Buffers) -> Any:
        """What a worker sends as arguments, of which is known that it takes long."""
        return await self.in_thread(partial(decode_value, body, buffers, make=private_bytes))

    def takes_long(self, result: Answer | None) -> bool:
        """Is this to be read in a thread, whatever is in it?"""
        if self.work_max is None or result is None:
            return False
        return sum(map(len, result[1])) > self.work_max

    async def in_thread(self, job: partial[T]) -> T:
        """Do what takes long. Cancelled, it goes on, and so does the wait for it, unless asyncio cuts that off."""
        return await anyio.to_thread.run_sync(job, limiter=self._limiter)
