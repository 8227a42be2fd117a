"""A worker that is condemned at the very moment at which it says that it is ready."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from snakepit import Adapter, Channel, Link, open_pool, tool
from snakepit.pool._seat import Phase
from snakepit.protocol import Ready, ToHost
from snakepit.transports import StdioTransport
from snakepit.transports._byte_channel import ByteChannel
from snakepit.transports._stdio import PipeStream, StdioLink


class Echo(Adapter):
    @tool
    def echo(self, text: str) -> str:
        return text


class HookedTransport(StdioTransport):
    """Does something between the coming of a worker's Ready and the pool's seeing it."""

    def __init__(self) -> None:
        self.when_ready: Callable[[], None] = lambda: None

    def open_link(self) -> Link:
        transport = self

        class HookedChannel(ByteChannel):
            async def receive(self) -> list[ToHost]:
                messages = await super().receive()
                if any(isinstance(message, Ready) for message in messages):
                    transport.when_ready()
                return messages

        class HookedLink(StdioLink):
            def connect(self) -> Channel:
                super().connect()
                return HookedChannel(PipeStream(self._read_fd, self._write_fd))

        return HookedLink()


async def test_a_pool_that_closes_as_its_worker_gets_ready_closes_quietly() -> None:
    """Whoever was woken by the message cannot be cancelled any more; the seat only goes right."""
    transport = HookedTransport()
    with anyio.fail_after(20):
        async with open_pool(Echo, size=1, min_ready=0, transport=transport) as pool:
            seat = pool._core.slots[0].worker.seat
            transport.when_ready = pool._core.close
            await pool._core.closing.wait()
    assert seat.phase is Phase.GONE
