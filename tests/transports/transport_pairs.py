"""Links with both ends in our hands, beside those that `pair_of` makes of a transport."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

from snakepit.process import close_fds
from snakepit.protocol import decode_to_worker
from snakepit.shm import Endpoint, FdSocket, ShmUnpacker, _gifts, is_carrier, open_for_worker
from snakepit.testing import BytePeer, running
from snakepit.transports import ByteChannel, ByteStream, Channel, ShmTransport
from snakepit.transports._shm_channel import ShmChannel
from snakepit.transports._stdio import PipeStream


class PipePeer(BytePeer):
    """A worker's end whose two pipes are in reach."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__(PipeStream(read_fd, write_fd))
        self.read_fd, self.write_fd = read_fd, write_fd

    def stop_hearing(self) -> None:
        """Close the pipe that it reads, not the one that it writes."""
        close_fds(self.read_fd)


@asynccontextmanager
async def small_pipes() -> AsyncGenerator[tuple[Channel, PipePeer]]:
    """Two pipes of the default size, as a user gets who has used up what pipes may take."""
    to_worker, to_host = os.pipe(), os.pipe()
    for fd in (*to_worker, *to_host):
        os.set_blocking(fd, False)
    peer = PipePeer(to_worker[0], to_host[1])
    try:
        async with running(ByteChannel(PipeStream(to_host[0], to_worker[1]))) as channel:
            yield channel, peer
    finally:
        peer._stream.close()


SHM_THRESHOLD = 2**16


class ShmPeer(BytePeer):
    """A worker's end that sends and understands references."""

    def __init__(self, stream: ByteStream, endpoint: Endpoint) -> None:
        super().__init__(stream)
        self.endpoint = endpoint
        self._unpacker = ShmUnpacker(decode_to_worker, lambda: endpoint)

    def pack(self, message: Any) -> bytes:
        return super().pack(self.endpoint.place(message) if is_carrier(message) else message)

    async def aclose(self) -> None:
        self.endpoint.close()
        self.endpoint.heap.close()
        await super().aclose()


@asynccontextmanager
async def shm_pair(budget: int = 4 * 2**20) -> AsyncGenerator[tuple[ShmChannel, ShmPeer]]:
    """Both ends of a link with shared memory, in one process; what is larger than the budget is inline.

    So it has to find room in the pipe, and nothing is given away.
    """
    transport = ShmTransport(threshold=SHM_THRESHOLD, budget=budget, worker_budget=budget)
    with patch.object(_gifts, "GIFT_BYTES_MIN", 2**62), transport.open_link() as link:
        ends = (os.dup(link.stdin), os.dup(link.stdout))
        for end in ends:
            os.set_blocking(end, False)
        endpoint = open_for_worker(FdSocket(os.dup(*link.pass_fds)))
        peer = ShmPeer(PipeStream(*ends), endpoint)
        try:
            link.worker_started()
            channel = link.connect()
            assert isinstance(channel, ShmChannel)
            async with running(channel):
                yield channel, peer
        finally:
            await peer.aclose()
            transport.close()
