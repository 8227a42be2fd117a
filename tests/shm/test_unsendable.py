"""A message that cannot be written, on a link with shared memory: it fails, and the link goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from _backends import virtual_time
from link_kit import KIB, leases, link, used
from test_idle import Heard

from snakepit.errors import SerializationError
from snakepit.protocol import NIL, Call, Cancel, Loose, Outbox, ToWorker
from snakepit.shm import Block, Endpoint
from snakepit.transports._shm_channel import ShmChannel


def refused(kind: type[Exception], words: str = "") -> Loose:
    def fail(_: memoryview) -> None:
        raise kind(words)

    return Loose(100 * KIB, fail)


@asynccontextmanager
async def running(host: Endpoint) -> AsyncGenerator[ShmChannel]:
    channel = ShmChannel(Heard(), host)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.run)
        yield channel
        await channel.aclose()


async def refuses(channel: ShmChannel, message: Call) -> bool:
    """Take the message, and then tell of it alone that it cannot be sent?"""
    told: list[ToWorker] = []
    channel.on_unsendable = lambda message, _: told.append(message)
    assert channel.send_nowait(message)
    await anyio.sleep(1)
    channel.on_unsendable = None
    return told == [message]


@virtual_time
@pytest.mark.parametrize("is_up", [True, False])
async def test_whoever_it_is_from_is_told_and_the_link_goes_on(is_up: bool) -> None:
    with link() as (host, _):
        host.shown.has_greeted = is_up  # by a worker that takes part in it
        kept = host.heap.take(100 * KIB)
        assert kept is not None
        told: list[tuple[ToWorker, Exception]] = []
        async with running(host) as channel:
            channel.on_unsendable = lambda *what: told.append(what)
            first = Call(1, "t", NIL, (refused(MemoryError, "no room"), kept.view(100 * KIB)))
            second = Call(2, "t", NIL, (refused(ValueError, "torn"),))
            assert channel.send_nowait(first)
            assert channel.queue_nowait(second)
            channel.flush_nowait()
            await anyio.sleep(1)
            assert [message for message, _ in told] == [first, second]
            assert [type(error) for _, error in told] == [MemoryError, SerializationError]
            assert str(told[1][1]) == "a value could not be written: ValueError: torn"
            with pytest.raises(SerializationError, match="torn"):
                await channel.send(second)
            assert not channel.is_sending
            assert channel.send_nowait(Cancel(3))
        assert leases(host) == 0
        del kept, first, second
        told.clear()
        assert used(host) == 0


@virtual_time
async def test_what_finds_no_place_after_all_gives_back_what_went_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was copied, cannot be shown, and there is no memory to have it in a row."""
    with link() as (host, _):
        kept = host.heap.take(100 * KIB)
        assert kept is not None
        number_of = Endpoint._number_of
        asked: list[int] = []

        def first_alone(end: Endpoint, segment: object) -> int:
            asked.append(1)
            return number_of(end, segment) if len(asked) % 2 else 0  # type: ignore[arg-type]

        monkeypatch.setattr(Endpoint, "_number_of", first_alone)
        monkeypatch.setattr(Block, "fill", lambda *_: None)
        async with running(host) as channel:
            message = Call(1, "t", NIL, (kept.view(100 * KIB), refused(MemoryError)))
            assert await refuses(channel, message)
            assert leases(host) == 0


@virtual_time
async def test_what_cannot_be_queued_in_the_end_gives_back_what_it_was_to_refer_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its buffers are where they should be, and there is no memory for the frame that names them."""
    with link() as (host, _):
        kept = host.heap.take(100 * KIB)
        assert kept is not None
        writes: list[int] = []

        def the_second_time(_: memoryview) -> None:
            writes.append(1)
            if len(writes) == 1:
                raise ValueError("so that it has to wait")

        def no_room(*_: object) -> None:
            raise MemoryError("no room for the frame")

        async with running(host) as channel:
            message = Call(1, "t", NIL, (kept.view(100 * KIB), Loose(100 * KIB, the_second_time)))
            with monkeypatch.context() as patch:
                patch.setattr(Outbox, "put", no_room)
                assert await refuses(channel, message)
            assert len(writes) == 2
            assert leases(host) == 0
            assert channel.send_nowait(Cancel(3))
        del kept, message
        assert used(host) == 0


@virtual_time
async def test_where_nobody_can_be_told_the_link_is_broken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with link() as (host, _):
        host.heap.take(100 * KIB)  # else that is done in a thread, beside virtual time
        async with running(host) as channel:
            assert channel.send_nowait(Call(1, "t", NIL, (refused(MemoryError, "no room"),)))
            await anyio.sleep(1)
            with pytest.raises(anyio.BrokenResourceError):
                await channel.send(Cancel(2))
    assert caplog.messages == ["a worker could not be told what it must know: no room"]
