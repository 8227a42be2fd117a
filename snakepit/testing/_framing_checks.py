"""What byte transports promise besides: frames as `docs/protocol.md` has them, and nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import anyio
import anyio.lowlevel

from snakepit.errors import ProtocolError
from snakepit.protocol import (
    FRAME_BYTES_MAX,
    NIL,
    Call,
    Cancel,
    ErrorData,
    Failure,
    Packer,
    Result,
    Settled,
    encode_message,
    frame,
)
from snakepit.testing._check import Check, joins
from snakepit.testing._pair import OpenBytePair
from snakepit.testing._probes import (
    LINK_BYTES_MAX,
    body,
    content,
    contents,
    expect,
    in_time,
    large_call,
    must_raise,
    peer_receives,
    receive_all,
    until_quiet,
)
from snakepit.transports import Channel

ALLOCATED_BYTES_MAX: Final = 2**20  # by a receiver to which a few bytes have come
PAYLOAD_SIZES: Final = (64, 255, 256, 65_535, 65_536, FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX)

_checks: list[Check[OpenBytePair]] = []
framing_check = joins(_checks)


@framing_check
async def check_frames_up_to_the_maximum_arrive(open_pair: OpenBytePair) -> None:
    """Frames arrive whole, both ways, at each step of the length prefix and up to the maximum."""
    async with open_pair() as (channel, peer):
        for size in PAYLOAD_SIZES:
            async with anyio.create_task_group() as tasks:
                failure, call = failure_of(size), call_of(size)
                tasks.start_soon(peer.send, failure, Settled(2))
                received = await receive_all(channel, 2, f"a frame of {size} bytes never comes")
                expect(received == [failure, Settled(2)], f"a frame of {size} bytes is changed")
                tasks.start_soon(channel.send, call)
                came = await peer_receives(peer, f"a frame of {size} bytes never goes out")
                expect(came == call, f"a frame of {size} bytes is changed on its way out")


@framing_check
async def check_a_byte_over_the_maximum_is_refused_on_the_way_out(open_pair: OpenBytePair) -> None:
    """A message too large for a frame is a ProtocolError to its sender; the link is still usable."""
    over = Call(1, call_of(FRAME_BYTES_MAX).tool + "x")
    async with open_pair() as (channel, peer):
        with must_raise(ProtocolError, "`send` of a byte over the maximum"):
            await channel.send(over)
        with must_raise(ProtocolError, "`send_nowait` of a byte over the maximum"):
            channel.send_nowait(over)
        await channel.send(Cancel(2))
        came = await peer_receives(peer, "a message that was refused costs the link")
        expect(came == Cancel(2), "a message is refused, and something of it goes out")


@framing_check
async def check_a_byte_over_the_maximum_is_refused_on_the_way_in(open_pair: OpenBytePair) -> None:
    """A frame that claims a byte too many is a ProtocolError, for good: nothing resynchronises."""
    async with open_pair() as (channel, peer):
        await peer.send_bytes((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
        for _ in range(2):
            await must_be_a_breach(channel, "a frame of a byte over the maximum")
            await peer.send(Settled(1))


@framing_check
async def check_a_corrupted_length_is_an_error_and_no_allocation(open_pair: OpenBytePair) -> None:
    """A length that lies costs nothing: nothing is allocated for bytes that have not come."""
    async with open_pair() as (channel, peer):
        await peer.send_bytes(b"\xff\xff\xff\xff")
        with no_allocation():
            await must_be_a_breach(channel, "a length of 4 GiB")
    async with open_pair() as (channel, peer):
        await peer.send_bytes(FRAME_BYTES_MAX.to_bytes(4, "big") + b"\x95")
        with no_allocation(), anyio.move_on_after(0.02):
            await channel.receive()


@framing_check
async def check_what_was_said_before_a_breach_counts(open_pair: OpenBytePair) -> None:
    """A message that comes in one piece with broken bytes is received; the error comes after it."""
    async with open_pair() as (channel, peer):
        await peer.send_bytes(frame(encode_message(Settled(1))) + b"\xff" * 4)
        received = await receive_all(channel, 1, "a message before broken bytes is lost")
        expect(received == [Settled(1)], "a message before broken bytes comes changed")
        for _ in range(2):
            await must_be_a_breach(channel, "a length of 4 GiB behind a message")


@framing_check
async def check_what_is_no_message_is_a_protocol_error(open_pair: OpenBytePair) -> None:
    """An empty frame, garbage, an unknown tag, a message of the host, a lost value: ProtocolError."""
    nothing, garbage, unknown = b"", b"hello", b"\x91\x63"
    of_the_host = encode_message(Cancel(1))
    without_its_value = encode_message(Result(1, NIL, (7,)))
    for payload in (nothing, garbage, unknown, of_the_host, without_its_value):
        async with open_pair() as (channel, peer):
            await peer.send_bytes(frame(payload))
            await must_be_a_breach(channel, f"the payload {payload!r}")


@framing_check
async def check_a_stream_cut_anywhere_is_broken(open_pair: OpenBytePair) -> None:
    """Cut in a length, a payload, or between the frames of a message: BrokenResourceError, no end."""
    head, data = next(Packer().pack_parts(Result(1, NIL, (b"abc",))))
    whole = frame(encode_message(Settled(1)))
    for cut in (whole[:1], whole[:4], whole[:-1], head, head + bytes(data or b"")):
        async with open_pair() as (channel, peer):
            await peer.send_bytes(whole + cut)
            await peer.aclose()
            received = await receive_all(channel, 1, "a message before the cut is lost")
            expect(received == [Settled(1)], "a message before the cut comes changed")
            for _ in range(2):
                what = f"`receive` after a stream cut behind {cut!r}"
                with must_raise(anyio.BrokenResourceError, what), in_time(f"{what} waits on"):
                    await channel.receive()


@framing_check
async def check_a_receive_cancelled_inside_a_frame_loses_nothing(open_pair: OpenBytePair) -> None:
    """A receive may be cancelled at every byte of a frame, and between the frames of a message."""
    result = Result(1, body(3), (b"abc", b""))
    received: list[Any] = []
    async with open_pair() as (channel, peer):
        for byte in peer.pack(result) + peer.pack(Settled(2)):
            await peer.send_bytes(bytes([byte]))
            with anyio.move_on_after(0.002):
                received += await channel.receive()
        more = 2 - len(received)
        received += await receive_all(channel, more, "a cancel inside a frame loses its message")
    expect(
        contents(received) == contents([result, Settled(2)]),
        "a cancel inside a frame changes its message",
    )


@framing_check
async def check_a_send_cancelled_inside_a_frame_finishes_it(open_pair: OpenBytePair) -> None:
    """The frame that was being written when its sender was cancelled arrives whole; the link lives."""
    call = call_of(FRAME_BYTES_MAX)
    async with open_pair() as (channel, peer):
        count = 0
        while True:
            sent = anyio.Event()

            async def send(sent: anyio.Event = sent) -> None:
                await channel.send(call)
                sent.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await until_quiet()
                tasks.cancel_scope.cancel()
            count += 1
            if not sent.is_set():
                break
            expect(
                count * FRAME_BYTES_MAX <= LINK_BYTES_MAX,
                "`send` goes on though nobody reads: no frame can be caught half-way",
            )
        expect(channel.send_nowait(Cancel(9)), "a `send` cancelled inside a frame costs the link")
        for wanted in [call] * count + [Cancel(9)]:
            came = await peer_receives(peer, "a frame is not finished whose sender was cancelled")
            expect(came == wanted, "a `send` cancelled inside a frame garbles the link")


@framing_check
async def check_a_message_taken_back_leaves_nothing_with_the_peer(open_pair: OpenBytePair) -> None:
    """Parts of a message that was cancelled or withdrawn are taken back, so the peer can drop them."""
    async with open_pair() as (channel, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.send, large_call(1))
            await until_quiet()
            tasks.cancel_scope.cancel()
        withdrawn = large_call(2)
        expect(channel.send_nowait(withdrawn), "a `send` that was cancelled costs the link")
        expect(channel.withdraw(withdrawn), "a message that waits cannot be withdrawn")
        kept = large_call(3)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.send, kept)
            came = await peer_receives(peer, "after a message was taken back nothing comes")
        expect(content(came) == content(kept), "a message comes that was taken back")
        expect(not peer.mid_message, "parts of a message that was taken back stay with the peer")


FRAMING_CHECKS: Final[tuple[Check[OpenBytePair], ...]] = (*_checks,)
"""What transports of frames over bytes promise as well, one check each."""


# -- helpers ---------------------------------------------------------------------------------------


def call_of(payload_bytes: int) -> Call:
    """A message to the worker that is one frame with so long a payload."""
    name = ""
    for _ in range(3):  # the length of the name is itself encoded in more or fewer bytes
        name = "x" * (len(name) + payload_bytes - len(encode_message(Call(1, name))))
    assert len(encode_message(Call(1, name))) == payload_bytes
    return Call(1, name)


def failure_of(payload_bytes: int) -> Failure:
    """A message to the host that is one frame with so long a payload."""

    def of(text: str) -> Failure:
        return Failure(1, "tool", ErrorData("T", traceback=text))

    text = ""
    for _ in range(3):
        text = "x" * (len(text) + payload_bytes - len(encode_message(of(text))))
    assert len(encode_message(of(text))) == payload_bytes
    return of(text)


async def must_be_a_breach(channel: Channel, what: str) -> None:
    await anyio.lowlevel.checkpoint()
    with must_raise(ProtocolError, f"`receive` after {what}"), in_time(f"{what} is waited for"):
        await channel.receive()


@contextmanager
def no_allocation() -> Generator[None]:
    """The block must not take memory for what has not come."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield
        more = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()
    expect(more < ALLOCATED_BYTES_MAX, f"for a length that lies {more} bytes are allocated")
