"""ByteChannel over two pipes: what every channel promises, and what frames on bytes promise.

Each check is a function of `open_pair`, so that other transports can be put to it as well.
"""

from __future__ import annotations

import fcntl
import os
import termios
import tracemalloc
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest
from _backends import trio_only
from msgspec import Raw

from snakepit.errors import ProtocolError
from snakepit.protocol import (
    FRAME_BYTES_MAX,
    NIL,
    PART_BYTES_MAX,
    Call,
    Cancel,
    ErrorData,
    Failure,
    Packer,
    Part,
    Result,
    Settled,
    Unpacker,
    decode_to_worker,
    encode_message,
    encode_value,
    frame,
)
from snakepit.transports import Channel
from snakepit.transports._byte_channel import READ_BYTES_MAX, READS_MAX, ByteChannel
from snakepit.transports._stdio import PipeStream

LINK_ERRORS = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
SIZES = [0, 1, 65_535, 65_536, PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 3 * 2**20]


class Peer:
    """The worker's end, as raw as can be: frames, or any bytes at all."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self.packer, self.unpacker = Packer(), Unpacker(decode_to_worker)
        self.messages: list[Any] = []

    async def send(self, *messages: Any) -> None:
        for message in messages:
            await self.send_bytes(self.packed(message))

    def packed(self, message: Any) -> bytes:
        whole = self.packer.pack(message)
        if whole is not None:
            return whole
        return b"".join(h + bytes(d or b"") for h, d in self.packer.pack_parts(message))

    async def send_bytes(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self.write_fd, left) :]
            except BlockingIOError:
                await anyio.wait_writable(self.write_fd)

    async def receive(self) -> Any:
        while not self.messages:
            await anyio.wait_readable(self.read_fd)
            self.messages += self.unpacker.feed(os.read(self.read_fd, 2**20))
        return self.messages.pop(0)

    async def until_end(self) -> None:
        await anyio.wait_readable(self.read_fd)
        assert os.read(self.read_fd, 1) == b""

    def close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        self.close_write()
        if self.read_fd >= 0:
            os.close(self.read_fd)
            self.read_fd = -1


Pair = tuple[Channel, Peer]
OpenPair = Callable[[], AbstractAsyncContextManager[Pair]]
Check = Callable[[OpenPair], Awaitable[None]]

TRANSPORT_CHECKS: list[Check] = []
FRAMING_CHECKS: list[Check] = []


@asynccontextmanager
async def stdio_pair() -> AsyncGenerator[Pair]:
    """A channel whose `run` runs, and its peer; pipes of the default size."""
    to_worker, to_host = os.pipe(), os.pipe()
    fds = (*to_worker, *to_host)
    for fd in fds:
        os.set_blocking(fd, False)
    channel, peer = (
        ByteChannel(PipeStream(to_host[0], to_worker[1])),
        Peer(to_worker[0], to_host[1]),
    )
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            yield channel, peer
            tasks.cancel_scope.cancel()
    finally:
        await channel.aclose()
        peer.close()


# -- helpers ---------------------------------------------------------------------------------------


def body(size: int) -> Raw:
    return encode_value(bytes(size), buffer_threshold=2**40)[0]


def large_call(number: int, size: int = 3 * 2**20) -> Call:
    return Call(number, "large", NIL, (bytes([number]) * size,))


def text_of(message: Any) -> Any:
    """A message as something that can be compared, whatever holds its bytes."""
    parts = tuple(bytes(memoryview(b)) for b in getattr(message, "buffers", ()))
    return (type(message), message.id, bytes(memoryview(getattr(message, "body", b""))), parts)


async def receive_all(channel: Channel, count: int) -> list[Any]:
    messages: list[Any] = []
    while len(messages) < count:
        messages += await channel.receive()
    assert len(messages) == count
    return messages


class Yields:
    """Awaits an operation; notes something each time that it lets others run."""

    def __init__(
        self, operation: Callable[[], Awaitable[object]], look: Callable[[], object] = lambda: None
    ) -> None:
        self.operation, self.look = operation, look
        self.seen: list[Any] = []

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self.operation().__await__()
        advance: Callable[[], Any] = lambda: next(inner)
        while True:
            try:
                yielded = advance()
            except (StopIteration, *LINK_ERRORS):
                return
            self.seen.append(self.look())
            try:
                value = yield yielded
                advance = partial(inner.send, value)
            except BaseException as error:
                advance = partial(inner.throw, error)


async def is_a_checkpoint(operation: Callable[[], Awaitable[object]]) -> bool:
    """Whether it lets others run, and lets itself be cancelled, whatever it has to say then."""
    if not await is_cancelled_by_a_cancelled_scope(operation):
        return False
    yields = Yields(operation)
    await yields
    return yields.seen != []


async def is_cancelled_by_a_cancelled_scope(operation: Callable[[], Awaitable[object]]) -> bool:
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await operation()
        except LINK_ERRORS:
            pass
    return scope.cancelled_caught


# -- on messages: every transport ------------------------------------------------------------------


@TRANSPORT_CHECKS.append
async def check_messages_of_every_size_arrive_unchanged(open_pair: OpenPair) -> None:
    """Both ways at once, in bodies and in buffers, in order."""
    calls = [Call(1, "t", body(size), (bytes(size),) * (size % 2)) for size in SIZES]
    results = [Result(1, body(size), (bytes(size),) * (size % 2)) for size in SIZES]
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:

        async def send() -> None:
            for call in calls:
                await channel.send(call)

        tasks.start_soon(send)
        tasks.start_soon(peer.send, *results)
        got: list[Any] = []

        async def receive() -> None:
            got.extend(await receive_all(channel, len(results)))

        tasks.start_soon(receive)
        for call in calls:
            assert text_of(await peer.receive()) == text_of(call)
    assert [text_of(m) for m in got] == [text_of(m) for m in results]


@TRANSPORT_CHECKS.append
async def check_many_senders_each_message_whole_in_order_per_call(open_pair: OpenPair) -> None:
    async def send(channel: Channel, number: int) -> None:
        for step in range(6):
            size = [1, 100_000, PART_BYTES_MAX + 1][(number + step) % 3]
            message = Call(number, str(step), NIL, (bytes([number]) * size,))
            if step % 2:
                message = Call(number, str(step), body(10))
            await channel.send(message)

    steps: dict[int, list[str]] = {}
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(send, channel, number)
        for _ in range(12 * 6):
            call = await peer.receive()
            steps.setdefault(call.id, []).append(call.tool)
            assert {*b"".join(call.buffers)} <= {call.id}
    assert steps == {number: list("012345") for number in range(12)}


@TRANSPORT_CHECKS.append
async def check_a_small_message_overtakes_a_large_one(open_pair: OpenPair) -> None:
    """A cancel is not held up by the gigabyte of somebody else."""
    async with open_pair() as (channel, peer):
        assert channel.send_nowait(large_call(1))
        assert channel.send_nowait(Cancel(2))
        assert await peer.receive() == Cancel(2)
        assert (await peer.receive()).id == 1


@TRANSPORT_CHECKS.append
async def check_receive_returns_all_that_has_come(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer):
        messages = [Settled(number) for number in range(500)]
        await peer.send(*messages)
        assert await channel.receive() == messages


@TRANSPORT_CHECKS.append
async def check_a_second_receiver_is_refused_and_the_first_goes_on(open_pair: OpenPair) -> None:
    got: list[Any] = []

    async def first(channel: Channel) -> None:
        got.extend(await channel.receive())

    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(first, channel)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await channel.receive()
        await peer.send(Settled(1))
    assert got == [Settled(1)]


@TRANSPORT_CHECKS.append
async def check_a_cancelled_receive_loses_nothing(open_pair: OpenPair) -> None:
    """Cancelled while nothing is there, and with a message that is there already."""
    async with open_pair() as (channel, peer):
        for number in range(5):
            with anyio.move_on_after(0.005) as waiting:
                await channel.receive()
            assert waiting.cancelled_caught
            await peer.send(Settled(number))
            assert await is_cancelled_by_a_cancelled_scope(channel.receive)
            assert await channel.receive() == [Settled(number)]


@TRANSPORT_CHECKS.append
async def check_a_send_cancelled_in_time_is_never_seen(open_pair: OpenPair) -> None:
    """And leaves the link as it was, though parts of it had gone."""
    async with open_pair() as (channel, peer):
        for number in range(1, 4):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(channel.send, large_call(number))
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        await send_while_received(channel, peer, Cancel(9), [Cancel(9)])
        await send_while_received(channel, peer, Cancel(10), [Cancel(10)])
        assert not peer.unpacker.mid_message


@TRANSPORT_CHECKS.append
async def check_a_send_cancelled_in_its_last_frame_is_finished(open_pair: OpenPair) -> None:
    """The link lives, and what was begun arrives whole."""
    async with open_pair() as (channel, peer):
        message = Call(1, "one frame, larger than the pipe", body(PART_BYTES_MAX // 2))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.send, message)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await send_while_received(channel, peer, Cancel(9), [message, Cancel(9)])


async def send_while_received(
    channel: Channel, peer: Peer, message: Any, expected: list[Any]
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.send, message)
        for wanted in expected:
            assert text_of(await peer.receive()) == text_of(wanted)


@TRANSPORT_CHECKS.append
async def check_a_peer_that_does_not_read_holds_the_sender_up(open_pair: OpenPair) -> None:
    """The sender can be cancelled, and goes on when the peer reads again."""
    sent: list[int] = []

    async def send(channel: Channel) -> None:
        for number in range(1000):
            await channel.send(Call(number, "t", body(100_000)))
            sent.append(number)

    async with open_pair() as (channel, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, channel)
            await anyio.wait_all_tasks_blocked()
            held_at = len(sent)
            assert held_at < 30  # far less than what it would like to send
            for number in range(held_at + 5):
                assert (await peer.receive()).id == number
            await anyio.wait_all_tasks_blocked()
            assert len(sent) > held_at
            tasks.cancel_scope.cancel()
        assert len(sent) < 100


@TRANSPORT_CHECKS.append
async def check_the_end_comes_after_all_messages(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer):
        results = [Result(number, body(40_000)) for number in range(1)] + [Settled(5)]
        await peer.send(*results)
        peer.close()
        got = await receive_all(channel, 2)
        assert [text_of(m) for m in got] == [text_of(m) for m in results]
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await channel.receive()


@TRANSPORT_CHECKS.append
async def check_sending_to_a_peer_that_is_gone_is_broken(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer):
        peer.close()
        with pytest.raises(anyio.BrokenResourceError):
            await channel.send(Cancel(1))
        with pytest.raises(anyio.BrokenResourceError):
            await channel.send(Cancel(2))
        assert not channel.send_nowait(Cancel(3))


@TRANSPORT_CHECKS.append
async def check_send_nowait_tells_at_once_that_the_peer_is_gone(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer):
        assert channel.send_nowait(Cancel(1))
        peer.close()
        assert not channel.send_nowait(Cancel(2))


@TRANSPORT_CHECKS.append
async def check_a_blocked_sender_learns_that_the_peer_is_gone(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(anyio.BrokenResourceError):
                await channel.send(large_call(1))

        for _ in range(3):
            tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        peer.close()


@TRANSPORT_CHECKS.append
async def check_own_close_wakes_the_blocked_receiver(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, _peer), anyio.create_task_group() as tasks:

        async def receive() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await channel.receive()

        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await channel.aclose()


@TRANSPORT_CHECKS.append
async def check_own_close_wakes_blocked_senders(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, _peer), anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await channel.send(large_call(1))

        for _ in range(3):
            tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        await channel.aclose()


@TRANSPORT_CHECKS.append
async def check_a_closed_channel_says_so(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer):
        await peer.send(Settled(1))
        await channel.aclose()
        await channel.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await channel.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await channel.send(Cancel(1))
        assert not channel.send_nowait(Cancel(1))
        assert not channel.withdraw(Cancel(1))


@TRANSPORT_CHECKS.append
async def check_close_works_when_cancelled_and_keeps_the_error_in_flight(
    open_pair: OpenPair,
) -> None:
    async with open_pair() as (channel, peer):
        with anyio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(OSError, match="in flight"):
                try:
                    raise OSError("in flight")
                finally:
                    await channel.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await channel.receive()
        await peer.until_end()


@TRANSPORT_CHECKS.append
async def check_send_and_receive_are_checkpoints_on_every_path(open_pair: OpenPair) -> None:
    """They let others run and can be cancelled, with work to do at hand and in every error."""

    async def send_one(channel: Channel) -> None:
        await channel.send(Cancel(1))

    async with open_pair() as (channel, peer):
        send, receive = partial(send_one, channel), channel.receive
        await peer.send(Settled(1))
        assert await is_a_checkpoint(receive)
        assert await is_a_checkpoint(send)
        peer.close()
        assert await is_a_checkpoint(receive)
        assert await is_a_checkpoint(send)  # the peer turns out to be gone
        assert await is_a_checkpoint(send)  # is known to be gone
        await channel.aclose()
        assert await is_a_checkpoint(receive)
        assert await is_a_checkpoint(send)


@TRANSPORT_CHECKS.append
async def check_a_message_can_be_withdrawn_until_its_last_frame(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer):
        first, second, third = large_call(1), large_call(2), Cancel(3)
        for message in (first, second):
            assert channel.send_nowait(message)
        assert channel.withdraw(first)
        assert not channel.withdraw(first)
        assert channel.send_nowait(third)
        assert await peer.receive() == third
        assert text_of(await peer.receive()) == text_of(second)
        assert not channel.withdraw(second)
        assert not peer.unpacker.mid_message


# -- on frames: byte transports --------------------------------------------------------------------


def failure_of(payload_bytes: int) -> Failure:
    """A message that is one frame with so long a payload."""
    empty = len(encode_message(Failure(1, "tool", ErrorData("T", traceback="x" * 2**16))))
    message = Failure(1, "tool", ErrorData("T", traceback="x" * (payload_bytes - empty + 2**16)))
    assert len(encode_message(message)) == payload_bytes
    return message


def call_of(payload_bytes: int) -> Call:
    empty = len(encode_message(Call(1, "x" * 2**16)))
    message = Call(1, "x" * (payload_bytes - empty + 2**16))
    assert len(encode_message(message)) == payload_bytes
    return message


@FRAMING_CHECKS.append
async def check_frames_up_to_the_maximum_arrive(open_pair: OpenPair) -> None:
    for payload_bytes in (FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX):
        async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:
            failure, call = failure_of(payload_bytes), call_of(payload_bytes)
            tasks.start_soon(peer.send, failure, Settled(2))
            assert await receive_all(channel, 2) == [failure, Settled(2)]
            tasks.start_soon(channel.send, call)
            assert await peer.receive() == call


@FRAMING_CHECKS.append
async def check_a_byte_over_the_maximum_is_refused_on_the_way_out(open_pair: OpenPair) -> None:
    """And the link is still usable."""
    async with open_pair() as (channel, peer):
        over = Call(1, "x" * FRAME_BYTES_MAX)
        with pytest.raises(ProtocolError, match="over the maximum"):
            await channel.send(over)
        with pytest.raises(ProtocolError, match="over the maximum"):
            channel.send_nowait(over)
        await channel.send(Cancel(2))
        assert await peer.receive() == Cancel(2)


@FRAMING_CHECKS.append
async def check_a_byte_over_the_maximum_is_refused_on_the_way_in(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer):
        await peer.send_bytes((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
        for _ in range(2):
            with pytest.raises(ProtocolError):
                await channel.receive()
            await peer.send(Settled(1))  # it never finds its place again


@FRAMING_CHECKS.append
async def check_what_was_said_before_a_breach_counts(open_pair: OpenPair) -> None:
    """A message in one write with broken bytes is received; then comes the error, unasked."""
    async with open_pair() as (channel, peer):
        await peer.send_bytes(frame(encode_message(Settled(1))) + b"\xff" * 4)
        assert await channel.receive() == [Settled(1)]
        for _ in range(2):
            with pytest.raises(ProtocolError):
                await channel.receive()


@FRAMING_CHECKS.append
async def check_a_corrupted_length_is_an_error_and_no_allocation(open_pair: OpenPair) -> None:
    async with open_pair() as (channel, peer):
        await peer.send_bytes(b"\xff\xff\xff\xff")
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError):
                await channel.receive()
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


@FRAMING_CHECKS.append
async def check_what_is_no_message_is_a_protocol_error(open_pair: OpenPair) -> None:
    for payload in (b"", b"hello", b"\x91\x63", encode_message(Cancel(1))):
        async with open_pair() as (channel, peer):
            await peer.send_bytes(frame(payload))
            with pytest.raises(ProtocolError):
                await channel.receive()


@FRAMING_CHECKS.append
async def check_a_stream_cut_anywhere_is_broken(open_pair: OpenPair) -> None:
    """In the prefix, in the payload, between the frames of one message: no good end."""
    packer = Packer()
    head, data = next(packer.pack_parts(Result(1, NIL, (b"abc",))))
    whole = frame(encode_message(Settled(1)))
    for cut in (whole[:1], whole[:4], whole[:-1], head, head + bytes(data or b"")):
        async with open_pair() as (channel, peer):
            await peer.send_bytes(whole + cut)
            peer.close()
            assert await channel.receive() == [Settled(1)]
            for _ in range(2):
                with pytest.raises(anyio.BrokenResourceError):
                    await channel.receive()


@FRAMING_CHECKS.append
async def check_a_receive_cancelled_inside_a_frame_loses_nothing(open_pair: OpenPair) -> None:
    """At every cut of a frame, and between the frames of a message in parts."""
    result = Result(1, body(3), (b"abc", b""))
    async with open_pair() as (channel, peer):
        stream = peer.packed(result) + peer.packed(Settled(2))
        got: list[Any] = []
        for byte in stream:
            await peer.send_bytes(bytes([byte]))
            with anyio.move_on_after(0.002):
                got += await channel.receive()
        while len(got) < 2:
            got += await channel.receive()
    assert [text_of(message) for message in got] == [text_of(result), text_of(Settled(2))]


# -- the checks, each a test of its own -----------------------------------------------------------


@pytest.mark.parametrize("check", TRANSPORT_CHECKS, ids=lambda check: check.__name__)
async def test_stdio_keeps_the_promises_of_a_channel(check: Check) -> None:
    with anyio.fail_after(20):
        await check(stdio_pair)


@pytest.mark.parametrize("check", FRAMING_CHECKS, ids=lambda check: check.__name__)
async def test_stdio_keeps_the_promises_of_frames(check: Check) -> None:
    with anyio.fail_after(20):
        await check(stdio_pair)


# -- of pipes alone --------------------------------------------------------------------------------


def pipes_of(channel: Channel) -> PipeStream:
    assert isinstance(channel, ByteChannel)
    assert isinstance(channel._stream, PipeStream)
    return channel._stream


async def test_closing_closes_both_pipes() -> None:
    async with stdio_pair() as (channel, _peer):
        stream = pipes_of(channel)
        fds = (stream._read_fd, stream._write_fd)
        await channel.aclose()
        for fd in fds:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)


async def test_a_flood_from_the_peer_lets_others_run() -> None:
    """A peer that writes as fast as we read does not have the loop for itself."""
    async with stdio_pair() as (channel, peer):
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
    async with stdio_pair() as (channel, peer):
        assert channel.send_nowait(Cancel(1))
        assert os.read(peer.read_fd, 100) == frame(encode_message(Cancel(1)))


async def test_a_peer_that_only_reads_no_more_is_still_heard() -> None:
    """Its last words count, though nothing can reach it."""
    async with stdio_pair() as (channel, peer):
        await peer.send(Settled(1))
        os.close(peer.read_fd)
        peer.read_fd = -1
        assert not channel.send_nowait(Cancel(1))
        assert await channel.receive() == [Settled(1)]
        peer.close()
        with pytest.raises(anyio.EndOfStream):
            await channel.receive()


async def test_a_peer_that_hears_no_more_and_says_no_more_is_broken() -> None:
    """Else it would swallow call after call."""
    async with stdio_pair() as (channel, peer), anyio.create_task_group() as tasks:
        with anyio.fail_after(10):

            async def receive() -> None:
                with pytest.raises(anyio.BrokenResourceError):
                    await channel.receive()

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            os.close(peer.read_fd)
            peer.read_fd = -1
            assert not channel.send_nowait(Cancel(1))


async def test_a_peer_that_hears_no_more_is_heard_to_its_end() -> None:
    """A worker that has died leaves both pipes behind; what it said before counts."""
    async with stdio_pair() as (channel, peer):
        with anyio.fail_after(10):
            os.close(peer.read_fd)
            peer.read_fd = -1
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
    async with stdio_pair() as (channel, peer):
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
    async with stdio_pair() as (channel, peer):
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
