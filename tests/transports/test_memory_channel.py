"""ByteChannel over two pipes in memory: what lies inside; its promises are in `test_conformance.py`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from snakepit.protocol import Cancel, Settled, encode_message, frame
from snakepit.testing import BytePeer, running
from snakepit.transports import ByteChannel, Channel, Link, MemoryTransport
from snakepit.transports._memory import MemoryStream, memory_pipes


class MemoryPeer(BytePeer):
    """A worker's end that is in reach."""

    def __init__(self, end: MemoryStream) -> None:
        super().__init__(end)
        self.end = end


@asynccontextmanager
async def memory_pair(pipe_bytes: int = 2**16) -> AsyncGenerator[tuple[Channel, MemoryPeer]]:
    host_end, worker_end = memory_pipes(pipe_bytes)
    async with running(ByteChannel(host_end)) as channel:
        yield channel, MemoryPeer(worker_end)


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
        peer.end.close()
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
