"""Links with both ends in our hands, beside those that `pair_of` makes of a transport."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from snakepit.process import close_fds
from snakepit.testing import BytePeer, running
from snakepit.transports import ByteChannel, Channel
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
