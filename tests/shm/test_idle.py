"""What idles is given back by itself, here and in the worker, on a clock that the test holds."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

import anyio
import pytest
import trio
from _backends import virtual_time
from link_kit import KIB, MIB, link, passed

from snakepit.protocol import Drop, Unpacker, decode_to_worker
from snakepit.shm import IDLE_TRIM_S
from snakepit.transports._byte_channel import ByteStream
from snakepit.transports._shm_channel import ShmChannel


class Heard(ByteStream):
    """Takes all that is written, and nothing ever comes."""

    def __init__(self) -> None:
        self.frames = bytearray()

    def read(self, count_max: int) -> bytes:
        raise BlockingIOError

    def write(self, data: Any) -> int:
        self.frames += data
        return len(data)

    def until_readable(self) -> Awaitable[None]:
        return anyio.sleep_forever()

    async def until_writable(self) -> None:
        await anyio.lowlevel.checkpoint()

    def wake_reader(self) -> None:
        pass

    def close(self) -> None:
        pass

    def drops(self) -> list[tuple[int, ...]]:
        """What was said since it was last asked."""

        class Drops(Unpacker[Any]):
            def _take_of_the_link(self, message: Any) -> None:
                assert type(message) is Drop
                found.append(message.segments)

        found: list[tuple[int, ...]] = []
        Drops(decode_to_worker).feed(bytes(self.frames))
        self.frames.clear()
        return found


@virtual_time
@pytest.mark.parametrize("borrows", [True, False], ids=["of both", "of the host alone"])
async def test_what_idles_for_ten_seconds_is_given_back(
    borrows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = trio.current_time()
    monkeypatch.setattr(time, "monotonic", trio.current_time)
    with link(budget=4 * MIB) as (host, worker):
        stream = Heard()
        channel = ShmChannel(stream, host)
        if borrows:
            passed(worker, host, bytes(100 * KIB))
            worker.heap.reclaim()
        passed(host, worker, bytes(100 * KIB))
        host.heap.reclaim()
        (number,) = host._shown
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            await anyio.sleep(5)
            kept = passed(host, worker, bytes(100 * KIB))  # the same block, once more
            assert host.heap.arena.total_bytes == 512 * KIB
            await anyio.sleep(6)  # it was in use when it was looked at
            assert host.heap.arena.total_bytes == 512 * KIB
            assert stream.drops() == [()] * borrows  # the worker is asked as often
            kept.clear()
            host.heap.reclaim()  # idle since 11 s
            await anyio.sleep(10)  # 20 s: not yet for ten
            assert host.heap.arena.total_bytes == 512 * KIB
            await anyio.sleep(10)
            assert host.heap.arena.total_bytes == 0
            assert stream.drops() == [()] * borrows + [(number,)] + [()] * borrows
            assert trio.current_time() - began < 3.2 * IDLE_TRIM_S
            tasks.cancel_scope.cancel()
        if borrows:  # and the worker does what it is asked
            told: list[Drop] = []
            worker.tell = told.append
            worker.dropped(())
            assert worker.heap.arena.total_bytes == 0
            host.dropped(told[0].segments)
            assert not host.has_borrowed
        await channel.aclose()
