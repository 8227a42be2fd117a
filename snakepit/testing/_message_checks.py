"""What every transport promises while a link is up: arrival, cancellation, backpressure."""

from __future__ import annotations

from typing import Any, Final

import anyio
import anyio.lowlevel

from snakepit.protocol import NIL, PART_BYTES_MAX, Call, Cancel, Credit, Message, Result, Settled
from snakepit.testing._check import Check, joins
from snakepit.testing._pair import OpenPair, Peer
from snakepit.testing._probes import (
    LARGE_BYTES,
    LINK_BYTES_MAX,
    body,
    cancelled_at,
    content,
    contents,
    expect,
    in_time,
    large_call,
    must_raise,
    peer_receives,
    receive_all,
    receive_in_time,
    send_in_time,
    until_quiet,
)
from snakepit.transports import Channel

SIZES: Final = (
    *(0, 1, 255, 256, 65_535, 65_536),
    *(PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 3 * 2**20),
)
STEPS_MAX: Final = 50  # at which one send or receive may let others run

MESSAGE_CHECKS: list[Check[OpenPair]] = []
message_check = joins(MESSAGE_CHECKS)


# -- messages arrive -------------------------------------------------------------------------------


@message_check
async def check_messages_of_every_size_arrive_unchanged(open_pair: OpenPair) -> None:
    """Messages arrive in order and unchanged, both ways at once, from nothing to megabytes."""
    calls = [Call(1, "t", body(size), (bytes(size),) * (size % 2)) for size in SIZES]
    results = [Result(1, body(size), (bytes(size),) * (size % 2)) for size in SIZES]
    received: list[Any] = []
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:

        async def receive() -> None:
            received.extend(await receive_all(channel, len(results), "a message of a size is lost"))

        tasks.start_soon(send_all, channel, calls)
        tasks.start_soon(peer.send, *results)
        tasks.start_soon(receive)
        for call in calls:
            came = await peer_receives(peer, f"a call of {len(call.body)} bytes never comes")
            expect(content(came) == content(call), f"a call of {len(call.body)} bytes is changed")
    expect(contents(received) == contents(results), "results come changed, or out of order")


@message_check
async def check_messages_of_many_senders_are_whole_and_in_order(open_pair: OpenPair) -> None:
    """However many send, waiting or not, each message arrives whole, those of one call in order."""
    senders, steps = 12, 6

    def messages(number: int) -> list[Call]:
        sizes = [1, 100_000, PART_BYTES_MAX + 1]
        large = [(bytes([number]) * sizes[(number + step) % 3],) for step in range(steps)]
        return [
            Call(number, str(step), body(10)) if step % 2 else Call(number, str(step), NIL, buffers)
            for step, buffers in enumerate(large)
        ]

    came: dict[int, list[Any]] = {number: [] for number in range(1, senders + 1)}
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:
        for number in came:
            if number % 2:
                tasks.start_soon(send_all, channel, messages(number))
                continue
            for message in messages(number):
                expect(channel.send_nowait(message), "`send_nowait` takes the peer for gone")
        for _ in range(senders * steps):
            call = await peer_receives(peer, "of many messages some are lost")
            came[call.id].append(content(call))
    for number, calls in came.items():
        order = [call[2] for call in calls]
        expect(order == sorted(order), f"messages of one call come in the order {order}")
        expect(calls == contents(messages(number)), "messages of several senders are mixed up")


@message_check
async def check_a_small_message_overtakes_a_large_one(open_pair: OpenPair) -> None:
    """A cancel is not held up by the gigabyte of somebody else."""
    async with open_pair() as (channel, peer):
        for message in (large_call(1), Cancel(2)):
            expect(channel.send_nowait(message), "`send_nowait` takes the peer for gone")
        first = await peer_receives(peer, "two messages were sent and none comes")
        expect(first == Cancel(2), "a large message of one call holds up a small one of another")
        second = await peer_receives(peer, "a message that was overtaken is lost")
        expect(content(second) == content(large_call(1)), "a message overtaken on its way changed")


@message_check
async def check_what_is_queued_arrives_once_it_is_flushed(open_pair: OpenPair) -> None:
    """`queue_nowait` and `flush_nowait` are `send_nowait` in two steps, for several messages."""
    async with open_pair() as (channel, peer):
        messages: list[Any] = [Cancel(1), Call(2, "t", body(10)), Cancel(3)]
        for message in messages:
            expect(channel.queue_nowait(message), "`queue_nowait` takes the peer for gone")
        channel.flush_nowait()
        for message in messages:
            came = await peer_receives(peer, "what was queued and flushed never comes")
            expect(content(came) == content(message), "what was queued comes in another order")
        await channel.aclose()
        expect(not channel.queue_nowait(Cancel(4)), "a closed channel queues a message")
        channel.flush_nowait()


@message_check
async def check_receive_returns_all_that_has_come(open_pair: OpenPair) -> None:
    """What has come is returned in one piece, so that a busy link costs no round per message."""
    async with open_pair() as (channel, peer):
        messages = [Settled(number) for number in range(100)]
        with in_time("the link has no room for a hundred small messages"):
            await peer.send(*messages)
        await until_quiet()
        received = await receive_in_time(channel, "of many messages none is received")
        expect(received == messages, f"of 100 messages there `receive` returns {len(received)}")


@message_check
async def check_what_is_received_nowait_is_received_once(open_pair: OpenPair) -> None:
    """Where a link is direct, `receive_nowait` finds what has come, and else nothing."""
    async with open_pair() as (channel, peer):
        if not channel.is_direct:
            return
        expect(channel.receive_nowait() == [], "a message is received that nobody has sent")
        with in_time("the link has no room for a small message"):
            await peer.send(Settled(1))
        await until_quiet()
        received = channel.receive_nowait()
        expect(
            received == [Settled(1)],
            f"of a message that is there `receive_nowait` returns {received}",
        )
        await peer.send(Settled(2))
        received = await receive_in_time(channel, "after `receive_nowait` none is received")
        expect(received == [Settled(2)], f"after `receive_nowait` comes {received}")
        await channel.aclose()
        expect(channel.receive_nowait() == [], "a closed channel receives")


@message_check
async def check_a_sender_that_is_held_up_does_not_hold_up_the_receiver(
    open_pair: OpenPair,
) -> None:
    """The two directions do not wait for each other: a peer that does not read is still heard."""
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(channel.send, large_call(1))
        await until_quiet()
        await peer.send(Settled(2))
        received = await receive_all(channel, 1, "while a sender waits, nothing is received")
        expect(received == [Settled(2)], "while a sender waits, messages come changed")
        tasks.cancel_scope.cancel()


@message_check
async def check_a_second_receiver_is_refused(open_pair: OpenPair) -> None:
    """A second receiver gets BusyResourceError; the first goes on and loses nothing."""
    received: list[Any] = []
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:

        async def receive() -> None:
            received.extend(await channel.receive())

        tasks.start_soon(receive)
        await until_quiet()
        with (
            must_raise(anyio.BusyResourceError, "`receive` beside another one"),
            in_time("`receive` beside another one waits as well"),
        ):
            await channel.receive()
        await peer.send(Settled(1))
    expect(received == [Settled(1)], "after a second receiver the first gets something else")


# -- cancellation ----------------------------------------------------------------------------------


@message_check
async def check_a_cancelled_receive_loses_nothing(open_pair: OpenPair) -> None:
    """A receive may be cancelled before a message has come, and when it is there."""
    lost = "a `receive` that was cancelled takes a message with it"
    async with open_pair() as (channel, peer):
        for number in range(5):
            with anyio.move_on_after(0.005) as waiting:
                await channel.receive()
            expect(waiting.cancelled_caught, "`receive` returns though nothing was sent")
            await peer.send(Settled(number))
            received: list[Any] = []
            with anyio.CancelScope() as scope:
                scope.cancel()
                received += await channel.receive()  # asyncio may bring the cancellation too late
            if not received:
                received += await receive_all(channel, 1, lost)
            expect(received == [Settled(number)], lost)


@message_check
async def check_a_receive_cancelled_at_any_step_loses_nothing(open_pair: OpenPair) -> None:
    """A receive may be cancelled at each point where it waits: it returns the message or leaves it."""
    lost = "a `receive` cancelled half-way takes a message with it"
    async with open_pair() as (channel, peer):
        for step in range(1, STEPS_MAX):
            received: list[Any] = []

            async def receive(received: list[Any] = received) -> None:
                received += await channel.receive()

            await peer.send(Settled(step))
            await until_quiet()
            more = await cancelled_at(step, receive)
            if not received:
                received += await receive_all(channel, 1, lost)
            expect(received == [Settled(step)], lost)
            if not more:
                break


@message_check
async def check_a_receive_cancelled_as_a_message_comes_loses_nothing(open_pair: OpenPair) -> None:
    """A message that comes in the moment of the cancellation is returned, or is still there."""
    lost = "a `receive` cancelled as a message comes takes it with it"
    async with open_pair() as (channel, peer):
        for number in range(5):
            received: list[Any] = []

            async def receive(received: list[Any] = received) -> None:
                received += await channel.receive()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await until_quiet()
                await peer.send(Settled(number))
                for _ in range(number):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            if not received:
                received += await receive_all(channel, 1, lost)
            expect(received == [Settled(number)], lost)


@message_check
async def check_a_send_cancelled_in_time_is_never_seen(open_pair: OpenPair) -> None:
    """A message whose sender was cancelled while most of it had not gone is never seen."""
    async with open_pair() as (channel, peer):
        for number in range(1, 4):
            await cancel_when_held_up(channel, large_call(number))
        for number in range(1, 4):
            marker = Credit(number, 1)  # of the same call, so that it comes after
            expect(channel.send_nowait(marker), "a `send` that was cancelled costs the link")
            came = await peer_receives(peer, "after a `send` that was cancelled nothing comes")
            expect(came == marker, "a message comes though its `send` was cancelled in time")


@message_check
async def check_a_send_cancelled_at_any_step_arrives_whole_or_never(open_pair: OpenPair) -> None:
    """A send may be cancelled at each point where it waits: all of its message arrives, or nothing."""
    async with open_pair() as (channel, peer):
        for make in (Cancel, large_call):
            for step in range(1, STEPS_MAX):
                message: Any = make(step)
                marker = Credit(step, 1)  # of the same call, so that it comes last
                came: list[Any] = []
                sent: list[bool] = []

                async def send(message: Any = message, sent: list[bool] = sent) -> None:
                    await channel.send(message)
                    sent.append(True)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(receive_until, peer, marker, came)
                    more = await cancelled_at(step, send)
                    await send_in_time(channel, marker)
                allowed: list[Any] = [[message]] if sent else [[], [message]]
                expect(
                    contents(came) in [contents(messages) for messages in allowed],
                    "a `send` cancelled half-way is seen in another form than it was sent",
                )
                if not more:
                    break


@message_check
async def check_a_message_can_be_withdrawn_until_it_is_sent(open_pair: OpenPair) -> None:
    """`withdraw` takes a message back of which something waits; then it is never seen."""
    async with open_pair() as (channel, peer):
        first, second, third = large_call(1), large_call(2), Cancel(3)
        for message in (first, second):
            expect(channel.send_nowait(message), "`send_nowait` takes the peer for gone")
        expect(channel.withdraw(first), "a message that waits cannot be withdrawn")
        expect(not channel.withdraw(first), "a message can be withdrawn twice")
        expect(channel.send_nowait(third), "after `withdraw` the link is broken")
        for wanted in (third, second):
            came = await peer_receives(peer, "after `withdraw` of one message another is lost")
            expect(content(came) == content(wanted), "a message comes that was withdrawn")
        expect(not channel.withdraw(second), "a message can be withdrawn that was sent")


# -- backpressure ----------------------------------------------------------------------------------


@message_check
async def check_a_peer_that_does_not_read_holds_the_sender_up(open_pair: OpenPair) -> None:
    """A link holds no more than `LINK_BYTES_MAX`, then `send` waits until the peer reads again."""
    size = 100_000
    sent: list[int] = []

    async def send(channel: Channel) -> None:
        for number in range(1, 1000):
            await channel.send(Call(number, "t", body(size)))
            sent.append(number)

    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(send, channel)
        await until_quiet()
        held_at = len(sent)
        expect(
            held_at * size <= LINK_BYTES_MAX,
            f"`send` goes on though nobody reads: {held_at * size} bytes are on their way",
        )
        for number in range(1, held_at + 6):
            call = await peer_receives(peer, "a sender that was held up never goes on")
            expect(call.id == number, "messages of a sender that was held up come out of order")
        tasks.cancel_scope.cancel()
    expect(len(sent) > held_at, "a sender that was held up never hears that its message went")


@message_check
async def check_a_sender_that_is_held_up_can_be_cancelled(open_pair: OpenPair) -> None:
    """A sender held up by a peer that does not read can be cancelled, and the link lives."""
    async with open_pair() as (channel, peer):
        await cancel_when_held_up(channel, large_call(1))
        expect(channel.send_nowait(Cancel(2)), "cancelling a sender costs the link")
        came = await peer_receives(peer, "after a sender was cancelled nothing comes")
        expect(came == Cancel(2), "a message comes though its `send` was cancelled in time")


# -- helpers ---------------------------------------------------------------------------------------


async def send_all(channel: Channel, messages: list[Call]) -> None:
    await anyio.lowlevel.checkpoint()
    for message in messages:
        await channel.send(message)


async def receive_until(peer: Peer, marker: Message, came: list[Any]) -> None:
    await anyio.lowlevel.checkpoint()
    while (message := await peer_receives(peer, "a message never comes")) != marker:
        came.append(message)


async def cancel_when_held_up(channel: Channel, message: Call) -> None:
    """Cancel a send that the link has no room for."""
    sent, over = False, anyio.Event()
    scope = anyio.CancelScope()

    async def send() -> None:
        nonlocal sent
        with scope:
            await channel.send(message)
            sent = True
        over.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await until_quiet()
        scope.cancel()
        try:
            with in_time("a sender that is held up cannot be cancelled"):
                await over.wait()
        except AssertionError:
            await channel.aclose()  # which lets it go
            raise
    expect(not sent, f"`send` takes {LARGE_BYTES} bytes though nobody reads")
