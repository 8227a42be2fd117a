"""`memory`: frames over two queues of bytes in this process, for workers that are tasks of it.

The bytes are those that a pipe would carry, so a value that has come through here is what it would be
from another process: copied, decoded, of the same type and writability. What the host writes
waits in a pipe of bounded size until the worker reads it, as with real pipes; the other
direction needs no bound, since credits limit what a worker may send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from snakepit.protocol import Buffer
from snakepit.transports._base import BaseLink, Channel, Transport
from snakepit.transports._byte_channel import ByteChannel, ByteStream

if TYPE_CHECKING:
    from snakepit.transports._faults import FaultPlan

PIPE_BYTES: Final = 2**20  # what `stdio` asks the kernel for


class BytePipe:
    """One direction: bytes go in at one end and come out at the other, on one event loop."""

    def __init__(self, bytes_max: int | None = None) -> None:
        self._bytes_max = bytes_max
        self._bytes = bytearray()
        self._writer_closed = self._reader_closed = self._woken = False
        self._reader_waits: anyio.Event | None = None
        self._writer_waits: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._bytes)

    def read(self, count_max: int) -> bytes:
        """As `ByteStream.read`."""
        held = self._bytes
        if not held:
            if self._reader_closed or not self._writer_closed:
                raise BlockingIOError
            return b""
        if len(held) <= count_max:
            chunk = bytes(held)
            held.clear()
        else:
            with memoryview(held) as view:
                chunk = bytes(view[:count_max])
            del held[:count_max]
        if (waits := self._writer_waits) is not None:
            waits.set()
        return chunk

    def write(self, data: Buffer) -> int:
        """As `ByteStream.write`."""
        if self._reader_closed or self._writer_closed:
            raise BrokenPipeError("nobody reads any more")
        if self._bytes_max is not None:
            room = self._bytes_max - len(self._bytes)
            if room <= 0 and len(data):
                raise BlockingIOError
            if room < len(data):
                data = memoryview(data)[:room]
        self._bytes += data
        if (waits := self._reader_waits) is not None:
            waits.set()
        return len(data)

    async def until_readable(self) -> None:
        """As `ByteStream.until_readable`."""
        self._woken = False
        if self._bytes or self._writer_closed or self._reader_closed:
            await anyio.lowlevel.checkpoint()
        else:
            self._reader_waits = anyio.Event()
            try:
                await self._reader_waits.wait()
            finally:
                self._reader_waits = None
        if self._reader_closed or self._woken:
            raise anyio.ClosedResourceError

    async def until_writable(self) -> None:
        """As `ByteStream.until_writable`."""
        full = self._bytes_max is not None and len(self._bytes) >= self._bytes_max
        if not full or self._reader_closed or self._writer_closed:
            await anyio.lowlevel.checkpoint()
        else:
            self._writer_waits = anyio.Event()
            try:
                await self._writer_waits.wait()
            finally:
                self._writer_waits = None
        if self._writer_closed:
            raise anyio.ClosedResourceError

    def wake_reader(self) -> None:
        """Let the reader that waits look again."""
        if self._reader_waits is not None:
            self._woken = True
            self._reader_waits.set()

    def close_reader(self) -> None:
        """Nobody reads any more; what nobody has read is gone."""
        self._reader_closed = True
        self._bytes.clear()
        self._wake_both()

    def close_writer(self) -> None:
        """Nothing more comes after what is in the pipe."""
        self._writer_closed = True
        self._wake_both()

    def _wake_both(self) -> None:
        for waits in (self._reader_waits, self._writer_waits):
            if waits is not None:
                waits.set()


class MemoryStream(ByteStream):
    """One end of two pipes. Both ends, the host's and the worker's, are of this kind."""

    def __init__(self, incoming: BytePipe, outgoing: BytePipe) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def read(self, count_max: int) -> bytes:
        return self._incoming.read(count_max)

    def write(self, data: Buffer) -> int:
        return self._outgoing.write(data)

    async def until_readable(self) -> None:
        await self._incoming.until_readable()

    async def until_writable(self) -> None:
        await self._outgoing.until_writable()

    def wake_reader(self) -> None:
        self._incoming.wake_reader()

    def close_read(self) -> None:
        """Hear no more: what the other end writes fails from now on."""
        self._incoming.close_reader()

    def close_write(self) -> None:
        """Say no more: the other end reads what there is, and then the end."""
        self._outgoing.close_writer()

    def close(self) -> None:
        self.close_read()
        self.close_write()


def memory_pipes(bytes_max: int = PIPE_BYTES) -> tuple[MemoryStream, MemoryStream]:
    """The host's end and the worker's. `bytes_max`: what the host may write ahead of the worker."""
    to_worker, to_host = BytePipe(bytes_max), BytePipe()
    return MemoryStream(to_host, to_worker), MemoryStream(to_worker, to_host)


class MemoryLink(BaseLink):
    """Two pipes in memory. `worker_end` is for whoever plays the worker.

    `ordinal`: it is the how-manieth link of its transport, from 1 on.
    """

    def __init__(self, ordinal: int, faults: FaultPlan | None = None) -> None:
        self.ordinal: int = ordinal
        self.faults: FaultPlan | None = faults
        host_end, worker_end = memory_pipes()
        self._host_end: MemoryStream = host_end
        self.worker_end: MemoryStream = worker_end

    def connect(self) -> Channel:
        return ByteChannel(self._host_end)

    def close(self) -> None:
        self._host_end.close()
        self.worker_end.close()


class MemoryTransport(Transport):
    """Workers as tasks of this process, for tests: `open_pool(adapter, transport="memory")`.

    `faults` is asked about every message between host and workers, and may delay it, put garbage
    in its place, or end or silence the worker: see `snakepit.testing`.
    """

    name = "memory"

    def __init__(self, *, faults: FaultPlan | None = None) -> None:
        self._faults = faults
        self._links = 0

    def open_link(self) -> MemoryLink:
        self._links += 1
        return MemoryLink(self._links, self._faults)
