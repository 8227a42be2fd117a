"""What every transport promises about ends: the peer goes, the channel is closed, nothing is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.lowlevel

from snakepit.protocol import Cancel, Result, Settled, ToHost
from snakepit.testing._check import Check, joins
from snakepit.testing._leftovers import is_shared_memory, owned
from snakepit.testing._pair import OpenPair
from snakepit.testing._probes import (
    body,
    contents,
    expect,
    in_time,
    large_call,
    must_checkpoint,
    must_raise,
    peer_receives,
    receive_all,
    receive_in_time,
    send_in_time,
    until_quiet,
)
from snakepit.transports import Channel

ENDING_CHECKS: list[Check[OpenPair]] = []
ending_check = joins(ENDING_CHECKS)


# -- the peer goes ---------------------------------------------------------------------------------


@ending_check
async def check_the_end_comes_after_all_messages(open_pair: OpenPair) -> None:
    """When the peer has closed, what it sent is received, then EndOfStream, again and again."""
    async with open_pair() as (channel, peer):
        results: list[ToHost] = [Result(1, body(40_000)), Settled(5)]
        await peer.send(*results)
        await peer.aclose()
        received = await receive_all(channel, 2, "what a peer sent before it closed is lost")
        expect(contents(received) == contents(results), "last words come changed")
        await must_end(channel, anyio.EndOfStream, "a peer that closed in good order")


@ending_check
async def check_the_end_is_good_though_the_peer_left_messages_unread(open_pair: OpenPair) -> None:
    """A peer that leaves with messages unread has left in good order: EndOfStream."""
    async with open_pair() as (channel, peer):
        expect(channel.send_nowait(Cancel(1)), "`send_nowait` takes the peer for gone")
        await peer.send(Settled(1))
        await until_quiet()
        await peer.aclose()
        received = await receive_all(channel, 1, "last words are lost with messages unread")
        expect(received == [Settled(1)], "last words come changed with messages unread")
        await must_end(channel, anyio.EndOfStream, "a peer that closed with messages unread")


@ending_check
async def check_a_waiting_receiver_learns_that_the_peer_has_closed(open_pair: OpenPair) -> None:
    """A receiver that waits when the peer closes gets EndOfStream."""
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:
        what = "a peer that closed while `receive` waited"
        tasks.start_soon(must_end, channel, anyio.EndOfStream, what)
        await until_quiet()
        await peer.aclose()


@ending_check
async def check_a_peer_that_dies_inside_a_message_is_broken(open_pair: OpenPair) -> None:
    """When the peer dies in the middle of a message: those before it, then BrokenResourceError."""
    async with open_pair() as (channel, peer):
        await peer.send(Settled(1))
        await peer.break_off()
        received = await receive_all(channel, 1, "what a peer sent before it died is lost")
        expect(received == [Settled(1)], "what a peer sent before it died comes changed")
        await must_end(channel, anyio.BrokenResourceError, "a peer that died inside a message")


@ending_check
async def check_sending_to_a_peer_that_is_gone_is_broken(open_pair: OpenPair) -> None:
    """A send to a peer that is gone raises BrokenResourceError, and `send_nowait` returns False."""
    async with open_pair() as (channel, peer):
        await peer.aclose()
        await until_quiet()
        for number in (1, 2):
            with must_raise(anyio.BrokenResourceError, "`send` to a peer that is gone"):
                await send_in_time(channel, Cancel(number))
        expect(not channel.send_nowait(Cancel(3)), "`send_nowait` takes what reaches nobody")


@ending_check
async def check_send_nowait_tells_that_the_peer_is_gone(open_pair: OpenPair) -> None:
    """`send_nowait` finds out by itself that the peer is gone, and returns False."""
    async with open_pair() as (channel, peer):
        expect(channel.send_nowait(Cancel(1)), "`send_nowait` takes a peer for gone that is there")
        await peer.aclose()
        await until_quiet()
        expect(not channel.send_nowait(Cancel(2)), "`send_nowait` takes what reaches nobody")


@ending_check
async def check_a_sender_that_is_held_up_learns_that_the_peer_is_gone(open_pair: OpenPair) -> None:
    """Senders held up when the peer goes get BrokenResourceError."""
    async with open_pair() as (channel, peer), anyio.create_task_group() as tasks:

        async def send() -> None:
            what = "`send`, held up when its peer went,"
            with must_raise(anyio.BrokenResourceError, what), in_time(f"{what} waits on"):
                await channel.send(large_call(1))

        for _ in range(3):
            tasks.start_soon(send)
        await until_quiet()
        await peer.aclose()


# -- own close -------------------------------------------------------------------------------------


@ending_check
async def check_own_close_wakes_the_receiver(open_pair: OpenPair) -> None:
    """A receiver that waits when its own channel is closed gets ClosedResourceError."""
    async with open_pair() as (channel, _peer):
        await must_wake(channel, channel.receive, "`receive`, waiting when its channel closed,")


@ending_check
async def check_own_close_wakes_senders(open_pair: OpenPair) -> None:
    """Senders held up when their own channel is closed get ClosedResourceError."""
    async with open_pair() as (channel, _peer):
        send = partial(channel.send, large_call(1))
        await must_wake(channel, send, "`send`, held up when its channel closed,", tasks_count=3)


@ending_check
async def check_own_close_ends_run(open_pair: OpenPair) -> None:
    """On a closed channel `run` returns."""
    async with open_pair() as (channel, _peer):
        await channel.aclose()
        with in_time("on a closed channel `run` runs on"):
            await channel.run()


@ending_check
async def check_a_closed_channel_says_so(open_pair: OpenPair) -> None:
    """On a closed channel everything fails: ClosedResourceError, or False."""
    async with open_pair() as (channel, peer):
        await peer.send(Settled(1))
        await until_quiet()
        await channel.aclose()
        with must_raise(anyio.ClosedResourceError, "`receive` on a closed channel"):
            await receive_in_time(channel, "`receive` on a closed channel waits")
        with must_raise(anyio.ClosedResourceError, "`send` on a closed channel"):
            await send_in_time(channel, Cancel(1))
        expect(not channel.send_nowait(Cancel(1)), "a closed channel takes a message")
        expect(not channel.withdraw(Cancel(1)), "a closed channel gives a message back")


@ending_check
async def check_close_is_idempotent_and_the_peer_sees_the_end(open_pair: OpenPair) -> None:
    """Closing twice is closing once; what was sent before arrives, and then the peer sees the end."""
    async with open_pair() as (channel, peer):
        await channel.send(Cancel(1))
        for _ in range(3):
            await channel.aclose()
        came = await peer_receives(peer, "what was sent before the close never comes")
        expect(came == Cancel(1), "what was sent before the close comes changed")
        with must_raise(anyio.EndOfStream, "the peer of a channel that was closed"):
            await peer_receives(peer, "the peer of a channel that was closed never sees the end")


@ending_check
async def check_close_works_when_cancelled(open_pair: OpenPair) -> None:
    """In a cancelled scope `aclose` closes all the same."""
    async with open_pair() as (channel, peer):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await channel.aclose()
        with must_raise(anyio.ClosedResourceError, "`receive` after a close that was cancelled"):
            await receive_in_time(channel, "a close that was cancelled does not close")
        with must_raise(anyio.EndOfStream, "the peer, after a close that was cancelled,"):
            await peer_receives(peer, "a close that was cancelled never reaches the peer")


@ending_check
async def check_close_keeps_the_error_in_flight(open_pair: OpenPair) -> None:
    """`aclose` in a `finally` block, cancelled or not, puts nothing in place of the error there."""
    for cancelled in (False, True):
        kept = False
        async with open_pair() as (channel, _peer):
            with anyio.CancelScope() as scope:
                if cancelled:
                    scope.cancel()
                try:
                    try:
                        raise OSError("in flight")
                    finally:
                        await channel.aclose()  # noqa: ASYNC102 - this is what is checked
                except OSError as error:
                    kept = str(error) == "in flight"
        expect(kept, "`aclose` puts a cancellation in place of the error that was in flight")


@ending_check
async def check_nothing_is_left_after_close(open_pair: OpenPair) -> None:
    """After the close no descriptor, process, thread or name in /dev/shm is left."""

    async def use() -> None:
        async with open_pair() as (channel, peer):
            await peer.send(Settled(1))
            await receive_all(channel, 1, "a message is lost")
            await channel.send(Cancel(1))
            channel.send_nowait(large_call(2))
            await until_quiet()

    await use()  # what a first use leaves for good is no leak
    rounds = []
    for _ in range(3):
        before = owned()
        await use()
        with anyio.move_on_after(1):  # for what ends a moment later
            while owned() - before:  # noqa: ASYNC110 - nobody tells when they end
                await anyio.sleep(0.02)
        rounds.append(owned() - before)
    left = set().union(*rounds)
    if not all(any(is_shared_memory(thing) for thing in more) for more in rounds):
        # Not ours, or each round had left some: another program of this user has made them.
        left = {thing for thing in left if not is_shared_memory(thing)}
    expect(not left, f"after the close these are left: {', '.join(sorted(left))}")


# -- everywhere ------------------------------------------------------------------------------------


@ending_check
async def check_send_and_receive_are_checkpoints_on_every_path(open_pair: OpenPair) -> None:
    """Each send and receive lets others run and can be cancelled, also when it has work or an error."""
    async with open_pair() as (channel, peer):
        send = partial(channel.send, Cancel(1))
        await peer.send(Settled(1))
        await until_quiet()
        await must_checkpoint(channel.receive, "`receive` with a message there")
        await must_checkpoint(send, "`send` with room in the link")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.receive)
            await until_quiet()
            await must_checkpoint(channel.receive, "`receive` beside another one")
            tasks.cancel_scope.cancel()
        await peer.aclose()
        await until_quiet()
        await must_checkpoint(channel.receive, "`receive` at the end")
        await must_checkpoint(send, "`send` that finds its peer gone")
        await must_checkpoint(send, "`send` to a peer known to be gone")
        await channel.aclose()
        await must_checkpoint(channel.receive, "`receive` on a closed channel")
        await must_checkpoint(send, "`send` on a closed channel")
    async with open_pair() as (channel, peer):
        await peer.break_off()
        await until_quiet()
        await must_checkpoint(channel.receive, "`receive` from a peer that broke off")


# -- helpers ---------------------------------------------------------------------------------------


async def must_end(channel: Channel, kind: type[Exception], after: str) -> None:
    """Each further `receive` must raise that error."""
    await anyio.lowlevel.checkpoint()
    for _ in range(2):
        with must_raise(kind, f"`receive` after {after}"), in_time(f"{after} is never noticed"):
            await channel.receive()


async def must_wake(
    channel: Channel, operation: Callable[[], Awaitable[object]], what: str, *, tasks_count: int = 1
) -> None:
    """Tasks that wait in the operation must learn that their channel closes."""

    async def wait() -> None:
        with must_raise(anyio.ClosedResourceError, what), in_time(f"{what} waits on"):
            await operation()
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(tasks_count):
            tasks.start_soon(wait)
        await until_quiet()
        await channel.aclose()
