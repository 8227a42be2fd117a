"""What a message carries is copied into shared memory before it is sent: where there is room, in a thread.

What finds no room waits for some, though no longer than the pipe would take; then it is given away, or
goes through the pipe.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from snakepit.protocol import Buffer, Loose, ToWorker
from snakepit.shm import Block, Endpoint, Gift, Key, is_carrier, make_gift

COPY_BYTES_MAX: Final = 4 * 2**20  # copied where the call is made; more is copied in a thread
LOOSE_COST: Final = 4  # a byte of an array that is not contiguous, in bytes of one that is
PIPE_S_PER_BYTE: Final = 2e-9  # a wait for room in the arena is no longer than the pipe would take
LOOK_AGAIN_S: Final = 0.002
OLD_LEASE_S: Final = 60.0

_log = logging.getLogger("snakepit.transports")


class Copies:
    """The copies of one link, one after the other."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._limiter = anyio.CapacityLimiter(1)
        self._waited_in_vain_at = -1

    def make_now(self, message: ToWorker) -> dict[Key, Block | Gift] | None:
        """Copy what lies in no segment, if there is room and it takes no time; else None."""
        strangers = self._endpoint.strangers(message)
        if sum(map(_cost, strangers.values())) > COPY_BYTES_MAX:
            return None
        blocks: dict[Key, Block | Gift] = {}
        for key, buffer in strangers.items():
            block = self._endpoint.heap.take_warm(key[1])
            if block is None:
                return None
            try:
                self._endpoint.fill(block, buffer)
            except Exception:
                return None  # it fails again where that harms this message alone
            blocks[key] = block
        return blocks

    async def make(self, message: Any) -> dict[Key, Block | Gift]:
        """The same, however long it takes: to where there is room, else into a segment to be given away.

        Raises what keeps a value from being written, as MemoryError.
        """
        blocks: dict[Key, Block | Gift] = {}
        if not is_carrier(message):
            await anyio.lowlevel.checkpoint()
        elif self._endpoint.is_up:
            await self._make_each(self._endpoint.strangers(message), blocks)
        else:
            await anyio.lowlevel.checkpoint()
            for buffer in message.buffers:
                if isinstance(buffer, Loose):
                    await self.in_thread(partial(buffer.in_a_row), len(buffer))
        return blocks

    async def _make_each(  # noqa: ASYNC910 - each copy is one, and so is the lack of any
        self, strangers: dict[Key, Buffer | Loose], blocks: dict[Key, Block | Gift]
    ) -> None:
        if not strangers:
            await anyio.lowlevel.checkpoint()
        for key, buffer in strangers.items():
            block = await self._room(key[1])
            if block is not None:
                # Taken out there: a thread may keep what it was called with until it is called again.
                job = [(block, buffer)]
                await self.in_thread(partial(self._fill, job), key[1])
                blocks[key] = block
            elif (gift := await self.in_thread(partial(make_gift, buffer), key[1])) is not None:
                blocks[key] = gift
            elif isinstance(buffer, Loose):
                await self.in_thread(partial(buffer.in_a_row), key[1])

    async def in_thread(self, function: partial[Any], size: int) -> Any:
        """Call it, in a thread if it has much to do. Always a checkpoint."""
        if size <= COPY_BYTES_MAX // 4:
            await anyio.lowlevel.checkpoint()
            return function()
        return await anyio.to_thread.run_sync(function, limiter=self._limiter)

    def _fill(self, job: list[tuple[Block, Buffer | Loose]]) -> None:
        self._endpoint.fill(*job.pop())

    async def _room(self, size: int) -> Block | None:  # noqa: ASYNC910 - the copy follows, which is one
        """A block; waits for one while the budget is spent, but not long, nor in vain twice."""
        heap = self._endpoint.heap
        block = heap.take_warm(size)
        if block is not None:
            return block  # noqa: ASYNC910 - as above
        until = anyio.current_time() + size * PIPE_S_PER_BYTE
        while True:
            # However little is asked for: a slab may have to be made, or garbage collected.
            block = await anyio.to_thread.run_sync(heap.take, size, limiter=self._limiter)
            heap.speak()
            if block is not None or heap.freed_blocks == self._waited_in_vain_at:
                return block
            if size > heap.arena.budget or anyio.current_time() >= until:
                self._waited_in_vain_at = heap.freed_blocks
                self._warn(size)
                return None
            await anyio.sleep(LOOK_AGAIN_S)

    def _warn(self, size: int) -> None:
        """Once: who holds on to shared memory makes large values slow for everybody."""
        heap = self._endpoint.heap
        age = heap.oldest_lease_s or 0.0
        if age > OLD_LEASE_S and not heap.has_warned:
            heap.has_warned = True
            _log.warning(
                "no room for %d bytes in the shared memory of %d: a worker has looked at an "
                "argument for %.0f s; values are given away meanwhile, or go through the pipes, which "
                "is slower (see ZeroCopy.budget_mb)",
                size,
                heap.arena.budget,
                age,
            )


def _cost(buffer: Buffer | Loose) -> int:
    """How long it takes to write, in bytes that lie in a row."""
    return len(buffer) * (LOOSE_COST if isinstance(buffer, Loose) else 1)
