"""ByteChannel over two pipes: what is true of pipes alone, and of what lies inside the channel.

What every channel promises is in `test_conformance.py`.
"""

from __future__ import annotations

import fcntl
import os
import termios
from array import array
from functools import partial
from itertools import pairwise

import anyio
import pytest
from _backends import trio_only
from transport_pairs import small_pipes

from snakepit.protocol import Cancel, Part, Settled, encode_message, frame
from snakepit.testing._probes import Yields, large_call, must_checkpoint
from snakepit.transports import ByteChannel, Channel
from snakepit.transports._byte_channel import READ_BYTES_MAX, READS_MAX
from snakepit.transports._stdio import PipeStream


def pipes_of(channel: Channel) -> PipeStream:
    assert isinstance(channel, ByteChannel)
    assert isinstance(channel._stream, PipeStream)
    return channel._stream


async def test_closing_closes_both_pipes() -> None:
    async with small_pipes() as (channel, _peer):
        stream = pipes_of(channel)
        fds = (stream._read_fd, stream._write_fd)
        await channel.aclose()
        for fd in fds:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)


async def test_run_returns_when_its_channel_is_closed() -> None:
    """Whether it waits for something to send, or for room."""
    for message in (None, large_call(1)):
        async with small_pipes() as (opened, _peer), anyio.create_task_group() as tasks:
            channel = ByteChannel(pipes_of(opened))  # one whose `run` does not run yet
            ended = anyio.Event()

            async def run(channel: Channel = channel, ended: anyio.Event = ended) -> None:
                await channel.run()
                ended.set()

            tasks.start_soon(run)
            if message is not None:
                assert channel.send_nowait(message)
            await anyio.wait_all_tasks_blocked()
            await channel.aclose()
            with anyio.fail_after(5):
                await ended.wait()


async def test_a_second_receiver_is_refused_at_a_checkpoint() -> None:
    """It may stand in a loop that tries again, and must not have the loop for itself."""
    async with small_pipes() as (channel, _peer), anyio.create_task_group() as tasks:
        tasks.start_soon(channel.receive)
        await anyio.wait_all_tasks_blocked()
        await must_checkpoint(channel.receive, "a second receiver")
        tasks.cancel_scope.cancel()


async def test_send_nowait_tells_at_once_that_the_peer_is_gone() -> None:
    async with small_pipes() as (channel, peer):
        await peer.aclose()
        assert not channel.send_nowait(Cancel(1))


async def test_a_flood_from_the_peer_lets_others_run() -> None:
    """A peer that writes as fast as we read does not have the loop for itself."""
    async with small_pipes() as (channel, peer):
        stream = pipes_of(channel)
        fcntl.fcntl(peer.write_fd, fcntl.F_SETPIPE_SZ, 2**20)
        flood = frame(encode_message(Part(1, memoryview(bytes(2**20 - 2**16)))))
        assert os.write(peer.write_fd, flood) == len(flood)
        receiving = Yields(channel.receive, partial(bytes_in, stream._read_fd))
        with anyio.fail_after(10), anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_when_empty, scope, stream._read_fd)
                await receiving
    read_at_a_time = [a - b for a, b in pairwise([len(flood), *receiving.seen])]
    assert sum(read_at_a_time) == len(flood)
    assert max(read_at_a_time) <= READS_MAX * READ_BYTES_MAX


async def cancel_when_empty(scope: anyio.CancelScope, pipe: int) -> None:
    while bytes_in(pipe):
        await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    scope.cancel()


def bytes_in(pipe: int) -> int:
    count = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


async def test_a_small_message_needs_no_other_task_to_be_sent() -> None:
    """The fast path: nothing waits, the pipe has room."""
    async with small_pipes() as (channel, peer):
        assert channel.send_nowait(Cancel(1))
        assert os.read(peer.read_fd, 100) == frame(encode_message(Cancel(1)))


async def test_a_peer_that_only_reads_no_more_is_still_heard() -> None:
    """Its last words count, though nothing can reach it."""
    async with small_pipes() as (channel, peer):
        await peer.send(Settled(1))
        peer.stop_hearing()
        assert not channel.send_nowait(Cancel(1))
        assert await channel.receive() == [Settled(1)]
        await peer.aclose()
        with pytest.raises(anyio.EndOfStream):
            await channel.receive()


async def test_a_peer_that_hears_no_more_and_says_no_more_is_broken() -> None:
    """Else it would swallow call after call."""
    async with small_pipes() as (channel, peer), anyio.create_task_group() as tasks:
        with anyio.fail_after(10):

            async def receive() -> None:
                with pytest.raises(anyio.BrokenResourceError):
                    await channel.receive()

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            peer.stop_hearing()
            assert not channel.send_nowait(Cancel(1))


async def test_a_peer_that_hears_no_more_is_heard_to_its_end() -> None:
    """A worker that has died leaves both pipes behind; what it said before counts."""
    async with small_pipes() as (channel, peer):
        with anyio.fail_after(10):
            peer.stop_hearing()
            assert not channel.send_nowait(Cancel(1))
            for number in range(3):
                await peer.send(Settled(number))
                assert await channel.receive() == [Settled(number)]
            with pytest.raises(anyio.BrokenResourceError):
                await channel.receive()
            await peer.send(Settled(4))
            assert await channel.receive() == [Settled(4)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # from 3.12 on
async def test_a_forked_child_of_the_host_writes_to_no_file_that_is_not_the_channels() -> None:
    """The channel's descriptors are closed there, and their numbers given to others."""
    async with small_pipes() as (channel, peer):
        stream = pipes_of(channel)
        other_end, other = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                os.dup2(other, stream._write_fd)
                code = int(channel.send_nowait(Cancel(1)))
                os.fstat(stream._write_fd)
            finally:
                os._exit(code)
        os.close(other)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert os.read(other_end, 100) == b""
        os.close(other_end)
        assert channel.send_nowait(Cancel(2))
        assert await peer.receive() == Cancel(2)


@trio_only  # asyncio does not let a forked child run its loop
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # from 3.12 on
async def test_in_a_forked_child_of_the_host_a_channel_is_broken() -> None:
    async with small_pipes() as (channel, peer):
        await peer.send(Settled(1))
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                await channel.receive()
            except anyio.BrokenResourceError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with anyio.fail_after(10):
            assert await channel.receive() == [Settled(1)]
