"""`ZeroCopy.copy_results`: results that whoever gets them may write."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import Raw

from snakepit.protocol import Buffers, decode_value
from snakepit.shm import private_copy

COPY_BYTES_MAX: Final = 4 * 2**20  # copied on the loop; more is copied in a thread
THREADS_MAX: Final = 2  # memory is no faster for more


class WritableResults:
    """Decodes what workers answer into values of the caller's own."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(THREADS_MAX)

    async def value_of(self, body: Raw, buffers: Buffers) -> Any:
        """The value. Always a checkpoint; what came is still there if this is cancelled.

        Raises as `decode_value`.
        """
        decode = partial(decode_value, body, buffers, copy=private_copy)
        if sum(len(b) for b in buffers if type(b) is not bytearray) > COPY_BYTES_MAX:
            return await anyio.to_thread.run_sync(decode, limiter=self._limiter)
        await anyio.lowlevel.checkpoint()
        return decode()
