"""A pool at a worker that it has not started, message by message: no process, and no gRPC."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from _backends import asyncio_only
from grpclib import GRPCError
from msgspec import Raw

from snakepit.grpc import POOL_KEY, frames_from, frames_with
from snakepit.protocol import (
    Call,
    Cancel,
    Credit,
    EndSession,
    ErrorData,
    Failure,
    Goodbye,
    Hello,
    HostCall,
    HostCancel,
    HostFailure,
    HostReply,
    InputItem,
    Item,
    Message,
    Packer,
    Progress,
    Ready,
    Recall,
    Result,
    Returned,
    Settled,
    Shutdown,
    Start,
    ToHost,
    ToolInfo,
    ToWorker,
    Unpacker,
    decode_to_host,
    decode_to_worker,
)
from snakepit.worker import _grpc_guest, _grpc_host
from snakepit.worker._grpc_guest import PoolService
from snakepit.worker._grpc_host import OwnHost

pytestmark = asyncio_only
TOOLS = (ToolInfo("add"),)
PATIENCE_S = 10


def framed(*messages: Message) -> bytes:
    packer, frames = Packer(), bytearray()
    for message in messages:
        frame = packer.pack(message)
        parts = packer.pack_parts(message) if frame is None else [(frame, None)]
        for head, data in parts:
            frames += head + bytes(data or b"")
    return bytes(frames)


class Workers:
    """The worker's end of the wire, in the test's hands; and the way to it."""

    def __init__(self) -> None:
        self.host = OwnHost("some:Adapter")
        self._ended = asyncio.Event()
        self._unpacker: Unpacker[ToWorker] = Unpacker(decode_to_worker)
        self._heard: list[ToWorker] = []

    def write(self, data: bytes) -> None:
        self._heard += self._unpacker.feed(bytes(data))

    async def drain(self) -> None:
        await asyncio.sleep(0)

    async def until_ended(self) -> None:
        await self._ended.wait()

    async def hears(self) -> list[ToWorker]:
        """All that has come, once nothing moves any more."""
        await settle()
        heard, self._heard = self._heard, []
        return heard

    async def says(self, *messages: ToHost) -> None:
        self.host.hear(framed(*messages))
        await settle()

    def ends(self) -> None:
        self._ended.set()


class PoolsStream:
    """A `Connect` call, as far as the guest is concerned."""

    def __init__(self, pool: str) -> None:
        self.metadata = {POOL_KEY: pool} if pool else {}
        self._stream = self
        self._unpacker: Unpacker[ToHost] = Unpacker(decode_to_host)
        self._came = asyncio.StreamReader()
        self._told: list[ToHost] = []

    # What grpclib does.

    async def recv_data(self, size: int) -> bytes:
        data = await self._came.read(size)
        return (
            data
            if len(data) in (0, size)
            else data + await self._came.readexactly(size - len(data))
        )

    async def send_initial_metadata(self) -> None:
        await asyncio.sleep(0)

    async def send_message(self, data: bytes) -> None:
        self._told += self._unpacker.feed(frames_from(frames_with(data)))
        await asyncio.sleep(0)

    # What the test does.

    async def says(self, *messages: ToWorker) -> None:
        message = frames_with(framed(*messages))
        self._came.feed_data(struct.pack(">?I", False, len(message)) + message)
        await settle()

    def ends(self) -> None:
        self._came.feed_eof()

    async def hears(self) -> list[ToHost]:
        await settle()
        told, self._told = self._told, []
        return told


class Pool(PoolsStream):
    """A pool that has connected. `over`: the call's task."""

    def __init__(self, service: PoolService, name: str) -> None:
        super().__init__(name)
        self.over = asyncio.ensure_future(service._connect(self))  # type: ignore[arg-type]

    async def is_lost(self) -> None:
        self.over.cancel()
        await asyncio.wait([self.over])


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(30):
        await asyncio.sleep(0)


@asynccontextmanager
async def hosted(*, ready: bool = True) -> AsyncGenerator[tuple[Workers, PoolService, OwnHost]]:
    worker = Workers()
    host = worker.host
    run = asyncio.ensure_future(host.run(worker))
    async with asyncio.timeout(PATIENCE_S):
        (start,) = await worker.hears()
        assert isinstance(start, Start)
        if ready:
            await worker.says(Ready(TOOLS))
        yield worker, PoolService(host), host
        worker.ends()
        await run


async def welcomed(service: PoolService, name: str = "") -> Pool:
    """A pool that may call."""
    pool = Pool(service, name)
    (hello,) = await pool.hears()
    assert isinstance(hello, Hello)
    await pool.says(Start("w"))
    assert await pool.hears() == [Ready(TOOLS)]
    return pool


async def test_calls_get_the_workers_numbers_and_answers_those_of_the_pool() -> None:
    async with hosted() as (worker, service, _):
        pool = await welcomed(service)
        body = Raw(b"\x80")
        await pool.says(Call(70, "count", body, window=2), Credit(70, 5), InputItem(70, 0, body))
        call, credit, item = await worker.hears()
        assert isinstance(call, Call)
        number = call.id
        assert number != 70
        assert (call.tool, call.window) == ("count", 2)
        assert (credit, item) == (Credit(number, 5), InputItem(number, 0, body))
        await worker.says(Progress(number, 1), Item(number, body), Result(number, body))
        assert await pool.hears() == [Progress(70, 1), Item(70, body), Result(70, body)]
        await pool.says(Cancel(70), Credit(70, 1), Cancel(71))  # they crossed the outcome
        assert await worker.hears() == []


async def test_large_values_go_in_parts_on_both_ways() -> None:
    async with hosted() as (worker, service, _):
        pool = await welcomed(service)
        value = bytes(3 * 2**20)
        await pool.says(Call(1, "echo", Raw(b"\x80"), (value,)), Cancel(1))
        call, cancel = await worker.hears()
        assert isinstance(call, Call)
        assert bytes(call.buffers[0]) == value
        assert cancel == Cancel(call.id)
        await worker.says(Result(call.id, Raw(b"\x80"), (value,)))
        (result,) = await pool.hears()
        assert isinstance(result, Result)
        assert bytes(result.buffers[0]) == value


async def test_a_large_result_holds_up_no_other_call() -> None:
    async with hosted() as (worker, service, _):
        pool = await welcomed(service)
        body = Raw(b"\x80")
        await pool.says(Call(1, "echo", body), Call(2, "echo", body))
        large, small = await worker.hears()
        assert isinstance(large, Call)
        assert isinstance(small, Call)
        await worker.says(Result(large.id, body, (bytes(3 * 2**20),)), Result(small.id, body))
        told = [one.id for one in await pool.hears() if isinstance(one, Result)]
        assert told == [2, 1]


async def test_calls_are_given_back_to_the_pool_that_asked_for_them() -> None:
    async with hosted() as (worker, service, _):
        pool = await welcomed(service)
        await pool.says(Call(1, "a"), Call(2, "b"), Call(3, "c"), Recall((2, 3, 4)))
        *calls, recall = await worker.hears()
        numbers = [call.id for call in calls if isinstance(call, Call)]
        assert recall == Recall((numbers[1], numbers[2]))
        await pool.is_lost()
        after = await welcomed_when(service, worker, Result(numbers[0]), Returned((numbers[2],)))
        await worker.says(Settled(numbers[1], ran=False))
        assert await after.hears() == [Ready(TOOLS)]
        await after.says(Call(2, "b"), Recall((2,)))
        call = (await worker.hears())[-2]
        assert isinstance(call, Call)
        await worker.says(Returned((call.id,)))
        assert await after.hears() == [Returned((2,))]
        await after.says(Call(2, "b"))  # it may come again
        assert [type(message) for message in await worker.hears()] == [Call]


async def welcomed_when(service: PoolService, worker: Workers, *said: ToHost) -> Pool:
    """A pool that has to wait: something of the one before still runs, after the worker has said this."""
    pool = Pool(service, "")
    await pool.says(Start("w"))
    await worker.says(*said)
    assert [type(message) for message in await pool.hears()] == [Hello]
    return pool


async def test_who_is_lost_leaves_nothing_and_the_next_one_waits_for_that() -> None:
    async with hosted() as (worker, service, host):
        host.sessions.begin("shared")
        pool = await welcomed(service)
        calls = Call(1, "a", session="own"), Call(2, "b", session="shared"), EndSession("ended")
        await pool.says(*calls)
        one, two, _ = await worker.hears()
        assert isinstance(one, Call)
        assert isinstance(two, Call)
        await worker.says(HostCall(7, one.id, "ask"))
        assert await pool.hears() == [HostCall(7, 1, "ask")]
        await pool.is_lost()
        cancels = [Cancel(one.id), Cancel(two.id)]
        *cancelled, answer, end = await worker.hears()
        assert cancelled == cancels
        assert isinstance(answer, HostFailure)
        assert (answer.id, answer.kind, answer.error.builtin) == (7, "tool", "ConnectionError")
        assert end == EndSession("own")
        await worker.says(Settled(two.id, ran=False))
        impatient = await welcomed_when(service, worker, HostCall(8, one.id, "ask"))
        (answer,) = await worker.hears()
        assert isinstance(answer, HostFailure)
        await impatient.is_lost()  # the next one waits all the same
        after = await welcomed_when(service, worker, Item(one.id), HostCancel(8, one.id))
        await worker.says(Settled(one.id))
        assert await after.hears() == [Ready(TOOLS)]


async def test_the_answer_to_a_host_call_is_taken_once_and_from_who_was_asked() -> None:
    async with hosted() as (worker, service, _):
        pool = await welcomed(service)
        await pool.says(Call(1, "a"))
        (call,) = await worker.hears()
        assert isinstance(call, Call)
        await worker.says(HostCall(7, call.id, "ask"), HostCall(8, call.id, "ask"))
        await worker.says(HostCancel(8, call.id))
        assert await pool.hears() == [
            HostCall(7, 1, "ask"),
            HostCall(8, 1, "ask"),
            HostCancel(8, 1),
        ]
        await pool.says(HostReply(7), HostReply(7), HostReply(8), HostReply(9))
        assert await worker.hears() == [HostReply(7)]


async def test_what_is_out_of_place_ends_the_call() -> None:
    async with hosted() as (worker, service, _):
        never: Any = Returned(())
        for said in (never,), (Call(1, "a"), Call(1, "a")):
            pool = await welcomed(service)
            await pool.says(*said)
            with pytest.raises(GRPCError, match="INVALID_ARGUMENT"):
                await pool.over
        assert [type(message) for message in await worker.hears()] == [Call, Cancel]


async def test_one_pool_at_a_time_and_its_own_lost_connection_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_grpc_guest, "HANGS_UP_S", 0.01)
    async with hosted() as (worker, service, _):
        pool = await welcomed(service, "one")
        for name in ("another", ""):
            with pytest.raises(GRPCError, match="FAILED_PRECONDITION"):
                await Pool(service, name).over
        again = await welcomed(service, "one")
        await pool.says(Call(1, "a"))  # it had been on its way
        await pool.over
        assert await worker.hears() == []
        await again.says(Shutdown(1.0))
        await again.over
        assert await again.hears() == [Goodbye()]
        pool = await welcomed(service, "another")
        pool.ends()
        await pool.over
        assert await pool.hears() == [Goodbye()]


async def test_a_worker_that_ends_says_goodbye_first_and_answers_what_it_has() -> None:
    async with hosted() as (worker, service, host):
        pool = await welcomed(service)
        await pool.says(Call(1, "a"))
        (call,) = await worker.hears()
        assert isinstance(call, Call)
        host.end()
        assert await pool.hears() == [Goodbye()]
        await worker.says(Result(call.id))
        assert await pool.hears() == [Result(1)]
        await pool.says(Call(2, "a"))
        worker.ends()
        await pool.over
        late = Pool(service, "")
        await late.says(Start("w"))
        assert [type(message) for message in await late.hears()] == [Hello, Goodbye]
        await late.over


async def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_grpc_host, "complain", lambda _: None)
    async with hosted(ready=False) as (worker, service, _):
        pool = Pool(service, "")
        await pool.says(Start("w"))
        failure = Failure(0, "start", ErrorData("builtins.ValueError", "no"))
        await worker.says(failure)
        worker.ends()
        await pool.over
        assert (await pool.hears())[1:] == [failure]


async def test_a_pool_that_is_heard_before_another_one_hangs_up_is_welcome() -> None:
    """They come on two connections; the one that has just gone may be heard last."""
    async with hosted() as (worker, service, _):
        pool = await welcomed(service, "one")
        await pool.says(Call(1, "a"))
        (call,) = await worker.hears()
        assert isinstance(call, Call)
        next_ones = [Pool(service, "another"), Pool(service, "a third")]
        await settle()
        assert [next_one.over.done() for next_one in next_ones] == [False, False]
        await pool.is_lost()
        (cancel,) = await worker.hears()
        assert cancel == Cancel(call.id)
        (hello,) = await next_ones[0].hears()
        assert isinstance(hello, Hello)
        await worker.says(Settled(call.id))
        with pytest.raises(GRPCError, match="FAILED_PRECONDITION"):
            await next_ones[1].over
        next_ones[0].ends()
        await next_ones[0].over
