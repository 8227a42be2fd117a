"""ByteChannel over two pipes in memory: the promises of every channel, and those of frames."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from test_stdio_channel import FRAMING_CHECKS, TRANSPORT_CHECKS, Check, Peer

from snakepit.protocol import Cancel, Settled, encode_message, frame
from snakepit.transports import Link, MemoryStream, MemoryTransport
from snakepit.transports._byte_channel import ByteChannel
from snakepit.transports._memory import memory_pipes

PIPE_BYTES = 2**16  # as the pipes of the stdio tests


class MemoryPeer(Peer):
    """The worker's end in memory."""

    def __init__(self, end: MemoryStream) -> None:
        super().__init__(-1, -1)
        self.end = end

    async def send_bytes(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        assert self.end.write(data) == len(data), "to the host there is no bound"

    async def receive(self) -> Any:
        while not self.messages:
            await self.end.until_readable()
            self.messages += self.unpacker.feed(self.end.read(2**20))
        return self.messages.pop(0)

    async def until_end(self) -> None:
        await self.end.until_readable()
        assert self.end.read(1) == b""

    def close_write(self) -> None:
        self.end.close_write()

    def close(self) -> None:
        self.end.close()


@asynccontextmanager
async def memory_pair(pipe_bytes: int = PIPE_BYTES) -> AsyncGenerator[tuple[Any, Any]]:
    host_end, worker_end = memory_pipes(pipe_bytes)
    channel, peer = ByteChannel(host_end), MemoryPeer(worker_end)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            yield channel, peer
            tasks.cancel_scope.cancel()
    finally:
        await channel.aclose()
        peer.close()


@pytest.mark.parametrize("check", TRANSPORT_CHECKS, ids=lambda check: check.__name__)
async def test_memory_keeps_the_promises_of_a_channel(check: Check) -> None:
    with anyio.fail_after(20):
        await check(memory_pair)


@pytest.mark.parametrize("check", FRAMING_CHECKS, ids=lambda check: check.__name__)
async def test_memory_keeps_the_promises_of_frames(check: Check) -> None:
    with anyio.fail_after(20):
        await check(memory_pair)


# -- of pipes in memory alone ----------------------------------------------------------------------


async def test_a_small_message_needs_no_other_task_to_be_sent() -> None:
    async with memory_pair() as (channel, peer):
        assert channel.send_nowait(Cancel(1))
        assert peer.end.read(100) == frame(encode_message(Cancel(1)))


async def test_what_the_worker_does_not_read_waits_with_the_host() -> None:
    """The pipe has an end: what is beyond it can still be withdrawn."""
    async with memory_pair(pipe_bytes=10) as (channel, peer):
        assert channel.send_nowait(Cancel(1))
        second, third = Cancel(2), Cancel(3)
        assert channel.send_nowait(second)
        assert channel.send_nowait(third)
        await anyio.wait_all_tasks_blocked()
        assert not channel.withdraw(second), "it has begun"
        assert channel.withdraw(third)
        assert [await peer.receive(), await peer.receive()] == [Cancel(1), Cancel(2)]


async def test_a_worker_that_only_reads_no_more_is_still_heard() -> None:
    async with memory_pair() as (channel, peer):
        await peer.send(Settled(1))
        peer.end.close_read()
        assert not channel.send_nowait(Cancel(1))
        assert await channel.receive() == [Settled(1)]
        peer.close()
        with pytest.raises(anyio.EndOfStream):
            await channel.receive()


async def test_a_worker_that_hears_no_more_and_says_no_more_is_broken() -> None:
    async with memory_pair() as (channel, peer), anyio.create_task_group() as tasks:
        with anyio.fail_after(10):

            async def receive() -> None:
                with pytest.raises(anyio.BrokenResourceError):
                    await channel.receive()

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            peer.end.close_read()
            assert not channel.send_nowait(Cancel(1))


async def test_bytes_are_read_in_linear_time() -> None:
    """Taking 64 KiB from the front of 64 MiB does not move the rest each time."""
    host_end, worker_end = memory_pipes()
    worker_end.write(bytes(64 * 2**20))
    began, count = time.perf_counter(), 0
    while count < 64 * 2**20:
        count += len(host_end.read(2**16))
    assert time.perf_counter() - began < 2
    with pytest.raises(BlockingIOError):
        host_end.read(1)


def test_its_links_are_counted_and_need_no_descriptor() -> None:
    transport = MemoryTransport()
    with transport.open_link() as first, transport.open_link() as second:
        assert (first.ordinal, second.ordinal) == (1, 2)
        assert not isinstance(first, Link)
