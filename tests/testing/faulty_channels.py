"""Channels, each with one fault that somebody might really write, and the checks that find it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from examples.transports.socket_transport import SocketStream
from snakepit.errors import ProtocolError
from snakepit.process import guard_fds
from snakepit.protocol import ToHost, Unpacker, decode_to_host, encode_message
from snakepit.protocol._outbox import Large, Outbox
from snakepit.testing import BytePeer, OpenBytePair, running
from snakepit.transports import ByteChannel, ByteStream
from snakepit.transports._stdio import PipeStream

Streams = tuple[ByteStream, ByteStream]

FAULTS: list[tuple[type[ByteChannel], Callable[[], Streams], frozenset[str]]] = []
_made: list[ByteStream] = []


def pipes() -> Streams:
    """The host's end and the worker's, of two pipes of the default size."""
    to_worker, to_host = os.pipe(), os.pipe()
    for fd in (*to_worker, *to_host):
        os.set_blocking(fd, False)
    return PipeStream(to_host[0], to_worker[1]), PipeStream(to_worker[0], to_host[1])


def found_by(
    *checks: str, streams: Callable[[], Streams] = pipes
) -> Callable[[type[ByteChannel]], type[ByteChannel]]:
    def note(channel: type[ByteChannel]) -> type[ByteChannel]:
        FAULTS.append((channel, streams, frozenset(f"check_{check}" for check in checks)))
        return channel

    return note


def pair_with(channel_type: type[ByteChannel], streams: Callable[[], Streams]) -> OpenBytePair:
    @asynccontextmanager
    async def open_pair() -> AsyncGenerator[tuple[ByteChannel, BytePeer]]:
        ours, theirs = streams()
        _made.extend([ours, theirs])
        try:
            async with running(channel_type(ours)) as channel:
                yield channel, BytePeer(theirs)
        finally:
            theirs.close()

    return open_pair


def remove_what_is_left() -> None:
    """Close, end and delete what faulty channels have leaked; on their event loop."""
    for stream in _made:
        stream.close()
    _made.clear()
    LeaksAThread.over.set()
    for name in LeaksAName.names:
        os.unlink(name)
    LeaksAName.names.clear()


# -- messages --------------------------------------------------------------------------------------


@found_by("messages_of_every_size_arrive_unchanged")
class LosesTheLastByteOfLargeBuffers(ByteChannel):
    async def receive(self) -> list[Any]:
        messages: list[Any] = await super().receive()
        for message in messages:
            if getattr(message, "buffers", ()):
                message.buffers = tuple(bytes(b)[: 2**20] for b in message.buffers)
        return messages


class OutboxWithoutOrder(Outbox):
    def put(self, message: Any, on_sent: Callable[[], None] | None = None) -> None:
        frame = self._packer.pack(message)
        if frame is None:
            super().put(message, on_sent)
        else:
            self._small.append((message, frame, on_sent))


@found_by("messages_of_many_senders_are_whole_and_in_order")
class LetsSmallMessagesOvertakeTheirOwnCall(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._outbox = OutboxWithoutOrder()


class OutboxOfOneLine(Outbox):
    def put(self, message: Any, on_sent: Callable[[], None] | None = None) -> None:
        frame = self._packer.pack(message)
        if frame is None:
            super().put(message, on_sent)
        else:
            self._large.append(Large(message, iter([(frame, None)]), on_sent))


@found_by("a_small_message_overtakes_a_large_one")
class SendsOneMessageAfterTheOther(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._outbox = OutboxOfOneLine()


@found_by("what_is_received_nowait_is_received_once")
class ForgetsThatItWasReceivedNowait(ByteChannel):
    def receive_nowait(self) -> list[ToHost]:
        self.seen = super().receive_nowait()
        return self.seen

    async def receive(self) -> list[ToHost]:
        return self.seen or await super().receive()


@found_by("receive_returns_all_that_has_come")
class ReturnsOneMessageAtATime(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._more: list[Any] = []

    async def receive(self) -> list[Any]:
        await anyio.lowlevel.checkpoint()
        self._more += [] if self._more else await super().receive()
        return [self._more.pop(0)]


@found_by("a_sender_that_is_held_up_does_not_hold_up_the_receiver")
class ReceivesOnlyWhatItHasTimeFor(ByteChannel):
    async def receive(self) -> list[Any]:
        while self._outbox:
            await anyio.sleep(0.001)
        return await super().receive()


@found_by("a_second_receiver_is_refused")
class LetsReceiversWaitInLine(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._lock = anyio.Lock()

    async def receive(self) -> list[Any]:
        async with self._lock:
            return await super().receive()


@found_by("what_is_queued_arrives_once_it_is_flushed")
class NeverFlushes(ByteChannel):
    def flush_nowait(self) -> None:
        pass


@found_by("what_is_queued_arrives_once_it_is_flushed")
class QueuesForNobody(ByteChannel):
    def queue_nowait(self, message: Any) -> bool:
        super().queue_nowait(message)
        return True


# -- cancellation ----------------------------------------------------------------------------------


@found_by(
    "a_receive_cancelled_at_any_step_loses_nothing",
    "a_receive_cancelled_as_a_message_comes_loses_nothing",
)
class WaitsAfterItHasRead(ByteChannel):
    async def receive(self) -> list[Any]:
        messages = await super().receive()
        await anyio.lowlevel.checkpoint()
        return messages


@found_by("a_cancelled_receive_loses_nothing")
class ReadsBeforeItWaits(ByteChannel):
    async def receive(self) -> list[Any]:
        messages = [] if self._closed or self._unpacker.broken else self._read_available()
        await anyio.lowlevel.checkpoint()
        return messages or await super().receive()


@found_by("a_send_cancelled_in_time_is_never_seen")
class SendsWhatWasCancelled(ByteChannel):
    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        sent = anyio.Event()
        self._outbox.put(message, sent.set)
        self._poked.set()
        await sent.wait()


@found_by("a_send_cancelled_at_any_step_arrives_whole_or_never")
class SendsTwiceWhatWasCancelled(ByteChannel):
    async def send(self, message: Any) -> None:
        try:
            await super().send(message)
        except anyio.get_cancelled_exc_class():
            self.send_nowait(message)
            self.send_nowait(message)
            raise


@found_by("a_sender_that_is_held_up_can_be_cancelled")
class ShieldsItsSenders(ByteChannel):
    async def send(self, message: Any) -> None:
        with anyio.CancelScope(shield=True):
            await super().send(message)


@found_by("a_message_can_be_withdrawn_until_it_is_sent")
class OnlySaysThatItWithdraws(ByteChannel):
    def withdraw(self, message: Any) -> bool:
        return True


@found_by("a_message_can_be_withdrawn_until_it_is_sent")
class CannotWithdraw(ByteChannel):
    def withdraw(self, message: Any) -> bool:
        return False


@found_by("a_peer_that_does_not_read_holds_the_sender_up")
class QueuesWithoutBound(ByteChannel):
    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.send_nowait(message)


# -- the peer goes ---------------------------------------------------------------------------------


@found_by("the_end_comes_after_all_messages")
class LosesLastWords(ByteChannel):
    def _read_available(self) -> list[Any]:
        return super()._read_available() + super()._read_available()


def unforgiving_sockets() -> Streams:
    class Unforgiving(SocketStream):
        def read(self, count_max: int) -> bytes:
            return os.read(self._fd, count_max)

    fds = [end.detach() for end in socket.socketpair()]
    for fd in fds:
        os.set_blocking(fd, False)
    guard_fds(*fds)
    return Unforgiving(fds[0]), SocketStream(fds[1])


@found_by(
    "the_end_is_good_though_the_peer_left_messages_unread",
    streams=unforgiving_sockets,
)
class TakesUnreadMessagesForACut(ByteChannel):
    """The fault is the stream's."""


@found_by("a_waiting_receiver_learns_that_the_peer_has_closed", "the_end_comes_after_all_messages")
class NeverEnds(ByteChannel):
    async def receive(self) -> list[Any]:
        try:
            return await super().receive()
        except anyio.EndOfStream:
            await anyio.sleep_forever()
            raise


@found_by("a_peer_that_dies_inside_a_message_is_broken", "a_stream_cut_anywhere_is_broken")
class TakesEveryEndForAGoodOne(ByteChannel):
    async def receive(self) -> list[Any]:
        try:
            return await super().receive()
        except anyio.BrokenResourceError:
            raise anyio.EndOfStream from None


@found_by("sending_to_a_peer_that_is_gone_is_broken")
class SendsIntoTheVoid(ByteChannel):
    async def send(self, message: Any) -> None:
        try:
            await super().send(message)
        except anyio.BrokenResourceError:
            pass


@found_by("send_nowait_tells_that_the_peer_is_gone", "sending_to_a_peer_that_is_gone_is_broken")
class TakesWhatReachesNobody(ByteChannel):
    def send_nowait(self, message: Any) -> bool:
        super().send_nowait(message)
        return True


class SilentOutbox(Outbox):
    def clear(self) -> None:
        self._small.clear()
        self._large.clear()
        self._writing.clear()
        self._finished = []


@found_by(
    "a_sender_that_is_held_up_learns_that_the_peer_is_gone",
    "own_close_wakes_senders",
)
class TellsNobodyThatItIsOver(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._outbox = SilentOutbox()


# -- own close -------------------------------------------------------------------------------------


@found_by(
    "own_close_wakes_the_receiver",
    "nothing_is_left_after_close",
    "close_is_idempotent_and_the_peer_sees_the_end",
)
class LeaksItsStream(ByteChannel):
    async def aclose(self) -> None:
        self._closed = True
        self._outbox.clear()


@found_by("nothing_is_left_after_close")
class LeaksAThread(ByteChannel):
    over = threading.Event()

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self.over.clear()
        threading.Thread(target=self.over.wait, args=(10,)).start()


@found_by("nothing_is_left_after_close")
class LeaksAName(ByteChannel):
    names: list[str] = []  # noqa: RUF012 - of all, for the test to remove

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        name = f"/dev/shm/snakepit-test-{os.getpid()}-{len(self.names)}"
        self.names.append(name)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))


@found_by("own_close_ends_run")
class RunsForEver(ByteChannel):
    async def run(self) -> None:
        await super().run()
        await anyio.sleep_forever()


@found_by("a_closed_channel_says_so")
class TakesItsOwnCloseForThePeers(ByteChannel):
    async def receive(self) -> list[Any]:
        try:
            return await super().receive()
        except anyio.ClosedResourceError:
            raise anyio.EndOfStream from None


@found_by("close_is_idempotent_and_the_peer_sees_the_end")
class ClosesOnce(ByteChannel):
    async def aclose(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        await super().aclose()


@found_by("close_works_when_cancelled", "close_keeps_the_error_in_flight")
class WaitsBeforeItCloses(ByteChannel):
    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        await super().aclose()


@found_by("close_keeps_the_error_in_flight")
class WaitsAfterItHasClosed(ByteChannel):
    async def aclose(self) -> None:
        await super().aclose()
        await anyio.lowlevel.checkpoint()


# -- checkpoints -----------------------------------------------------------------------------------

ALL_PATHS = "send_and_receive_are_checkpoints_on_every_path"


@found_by(ALL_PATHS)
class ReceivesWithoutACheckpoint(ByteChannel):
    async def receive(self) -> list[Any]:
        if not (self._closed or self._unpacker.broken or self._receiving):
            messages = self._read_available()
            if messages:
                return messages
        return await super().receive()


@found_by(ALL_PATHS)
class SendsWithoutACheckpoint(ByteChannel):
    async def send(self, message: Any) -> None:
        if not self.send_nowait(message) or self._outbox:
            await super().send(message)


@found_by(ALL_PATHS)
class SaysThatItIsClosedWithoutACheckpoint(ByteChannel):
    async def send(self, message: Any) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        await super().send(message)


@found_by(ALL_PATHS)
class RefusesWithoutACheckpoint(ByteChannel):
    async def receive(self) -> list[Any]:
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        return await super().receive()


# -- frames ----------------------------------------------------------------------------------------


@found_by("frames_up_to_the_maximum_arrive")
class HasAMaximumOfItsOwn(ByteChannel):
    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        if not getattr(message, "buffers", ()) and len(encode_message(message)) > 2**21:
            raise ProtocolError("over the maximum")
        await super().send(message)


@found_by("a_byte_over_the_maximum_is_refused_on_the_way_out")
class BreaksOverAMessageThatIsTooLarge(ByteChannel):
    async def send(self, message: Any) -> None:
        try:
            await super().send(message)
        except ProtocolError:
            await self.aclose()
            raise


@found_by(
    "a_byte_over_the_maximum_is_refused_on_the_way_in",
    "what_was_said_before_a_breach_counts",
)
class Resynchronises(ByteChannel):
    async def receive(self) -> list[Any]:
        try:
            return await super().receive()
        finally:
            if self._unpacker.broken:
                self._unpacker = Unpacker(decode_to_host)


class TrustfulUnpacker(Unpacker[Any]):
    def feed(self, chunk: bytes) -> list[Any]:
        room = bytearray(min(int.from_bytes(chunk[:4], "big"), 2**25))
        messages = super().feed(chunk)
        room.clear()
        return messages


@found_by("a_corrupted_length_is_an_error_and_no_allocation")
class TrustsALength(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._unpacker = TrustfulUnpacker(decode_to_host)


class HastyUnpacker(Unpacker[Any]):
    def feed(self, chunk: bytes) -> list[Any]:
        messages = super().feed(chunk)
        if self.broken:
            raise ProtocolError(self.broken)
        return messages


@found_by("what_was_said_before_a_breach_counts")
class DropsWhatCameBeforeABreach(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._unpacker = HastyUnpacker(decode_to_host)


@found_by("what_is_no_message_is_a_protocol_error")
class TakesGarbageForACut(ByteChannel):
    async def receive(self) -> list[Any]:
        try:
            return await super().receive()
        except ProtocolError as error:
            raise anyio.BrokenResourceError from error


class PartBlindUnpacker(Unpacker[Any]):
    @property
    def mid_message(self) -> bool:
        return self._frames.mid_frame


@found_by("a_stream_cut_anywhere_is_broken")
class SeesNoCutBetweenFrames(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._unpacker = PartBlindUnpacker(decode_to_host)


async def when_cancelled(operation: Awaitable[Any], then: Callable[[], object]) -> Any:
    try:
        return await operation
    except anyio.get_cancelled_exc_class():
        then()
        raise


@found_by("a_receive_cancelled_inside_a_frame_loses_nothing")
class ForgetsAFrameWhenCancelled(ByteChannel):
    async def receive(self) -> list[Any]:
        def forget() -> None:
            self._unpacker = Unpacker(decode_to_host)

        return await when_cancelled(super().receive(), forget)


@found_by("a_send_cancelled_inside_a_frame_finishes_it")
class StopsInsideAFrameWhenCancelled(ByteChannel):
    async def send(self, message: Any) -> None:
        await when_cancelled(super().send(message), self._outbox._writing.clear)


class ForgetfulOutbox(Outbox):
    def withdraw(self, message: Any) -> bool:
        for large in self._large:
            if large.message is message:
                self._large.remove(large)
                return True
        return super().withdraw(message)


@found_by("a_message_taken_back_leaves_nothing_with_the_peer")
class LeavesPartsWithThePeer(ByteChannel):
    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._outbox = ForgetfulOutbox()
