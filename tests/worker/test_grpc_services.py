"""What a client that is no pool is told, call by call: no process, and no connection."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from threading import get_ident
from typing import Any
from urllib.parse import quote

import pytest
from _backends import asyncio_only
from _h2_client import Client
from grpclib import GRPCError
from grpclib.const import Status
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived
from msgspec import Raw
from test_grpc_guest import framed, hosted, settle

from snakepit.grpc import SoundServer, head_of
from snakepit.grpc._generated.google.protobuf import Value as Json
from snakepit.grpc._generated.snakepit.v1 import ErrorDetail, ExecuteReply, ExecuteRequest, Value
from snakepit.grpc._json import read_json, write_json
from snakepit.protocol import (
    PART_BYTES_MAX,
    Call,
    Cancel,
    ErrorData,
    Failure,
    Item,
    Result,
    Settled,
    encode_value,
)
from snakepit.protocol._ext import encode_plain
from snakepit.worker import _grpc_replies, _grpc_services
from snakepit.worker._grpc_messages import Request
from snakepit.worker._grpc_reflection import ReflectionService
from snakepit.worker._grpc_replies import LARGE_BYTES
from snakepit.worker._grpc_services import NAME_BYTES_MAX, SERVICE, WorkerService

pytestmark = asyncio_only
HEADERS_BYTES_MAX = 8 * 1024 - 256  # what grpcio takes, less the names and the other headers


class ClientsCall:
    """An `Execute` call, as far as the service is concerned."""

    deadline = metadata = None
    _send_initial_metadata_done = True  # so that nothing goes around `send_message`

    def __init__(self, request: ExecuteRequest | bytes) -> None:
        self._data = bytes(request)
        self.sent: list[bytes] = []
        self._stream = self.connection = self
        self.trailers: dict[str, Any] = {}

    async def recv_message(self) -> Request:
        return Request.parse(self._data)

    async def send_message(self, message: Any) -> None:
        self.sent.append(bytes(message))

    def is_closing(self) -> bool:
        return False

    async def send_data(self, data: bytes) -> None:
        self.sent.append(data)

    @property
    def whole(self) -> bytes:
        """The message that was sent, in one piece or in many."""
        sent = b"".join(self.sent)
        return sent[5:] if len(self.sent) > 1 or len(sent) > LARGE_BYTES else sent

    async def send_trailing_metadata(self, **trailers: Any) -> None:
        self.trailers = trailers


@pytest.mark.parametrize("field", ["tool", "session"])
async def test_a_name_that_is_too_long_is_refused(field: str) -> None:
    async with hosted() as (worker, _, host):
        call: Any = ClientsCall(ExecuteRequest(**{field: "ü" * (NAME_BYTES_MAX // 2 + 1)}))
        with pytest.raises(GRPCError, match=field) as raised:
            await WorkerService(host)._execute(call)
        assert raised.value.status is Status.INVALID_ARGUMENT
        assert await worker.hears() == []


async def test_what_a_tool_raises_fits_in_the_headers_that_clients_take() -> None:
    """All of it is cut between characters, each of which takes several bytes."""
    async with hosted() as (worker, _, host):
        call: Any = ClientsCall(ExecuteRequest(tool="fail"))
        running = asyncio.ensure_future(WorkerService(host)._execute(call))
        (sent,) = await worker.hears()
        assert isinstance(sent, Call)
        error = ErrorData("汉" * 340, "é汉" * 5000, traceback="汉" * 20_000 + "the end")
        await worker.says(Failure(sent.id, "tool", error))
        await running
        assert call.trailers["status"] is Status.UNKNOWN
        status_message = call.trailers["status_message"]
        packed = call.trailers["metadata"]["snakepit-error-bin"]
        assert len(quote(status_message)) + len(b64encode(packed)) <= HEADERS_BYTES_MAX
        detail = ErrorDetail.parse(packed)
        assert error.type.startswith(detail.type)
        assert error.message.startswith(detail.message)
        assert error.traceback.endswith(detail.traceback)
        assert detail.traceback.endswith("the end")
        assert f"{error.type}: {error.message}".startswith(status_message.split(":")[0])


def nested(*fields: int, levels: int) -> bytes:
    """Messages in these fields, one in the other."""
    data = b""
    for _ in range(levels):
        for field in reversed(fields):
            data = head_of(field, len(data)) + data
    return data


def params_of(kind: int, data: bytes) -> bytes:
    value = head_of(kind, len(data)) + data
    return head_of(2, len(value)) + value


@pytest.mark.parametrize(
    "request_",
    [
        params_of(1, nested(6, 1, levels=5000)),
        params_of(1, nested(5, 1, 2, levels=5000)),
        params_of(1, b"\x1a\x01\xff"),
        params_of(2, b"\x91" * 10_000 + b"\xc0"),
        params_of(2, b"\x91"),
        params_of(2, b"\x82\xa1\xff\xc0\xa1a" + encode_plain(bytes(PART_BYTES_MAX))),
    ],
    ids=["deep array", "deep object", "no text", "deep msgpack", "msgpack cut short", "no name"],
)
async def test_params_that_cannot_be_read_are_the_clients_mistake(request_: bytes) -> None:
    async with hosted() as (worker, _, host):
        call: Any = ClientsCall(request_)
        with pytest.raises(GRPCError, match="params are no") as raised:
            await WorkerService(host)._execute(call)
        assert raised.value.status is Status.INVALID_ARGUMENT
        assert await worker.hears() == []


@pytest.mark.parametrize(("size", "apart"), [(10, False), (LARGE_BYTES, True)], ids=str)
async def test_large_json_is_read_and_written_apart_from_the_loop(
    monkeypatch: pytest.MonkeyPatch, size: int, apart: bool
) -> None:
    threads = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any) -> Any:
            threads.append(get_ident())
            return function(*arguments)

        return note

    monkeypatch.setattr(_grpc_services, "read_json", noted(read_json))
    monkeypatch.setattr(_grpc_replies, "write_json", noted(write_json))
    async with hosted() as (worker, _, host):
        params = Value(json=Json(string_value="x" * size))
        call: Any = ClientsCall(ExecuteRequest(tool="echo", params=params))
        running = asyncio.ensure_future(WorkerService(host)._execute(call))
        while not (heard := await worker.hears()):
            await asyncio.sleep(0.001)
        (sent,) = heard
        assert isinstance(sent, Call)
        await worker.says(Result(sent.id, sent.body))
        await running
        assert call.whole == bytes(ExecuteReply(value=params))
        assert [thread != get_ident() for thread in threads] == [apart, apart]


async def test_a_large_result_is_sent_in_pieces_and_is_one_msgpack_value() -> None:
    """Its buffers are put back where they are meant."""
    value = {"data": bytes(range(256)) * 2000, "more": [1, bytearray(LARGE_BYTES)]}
    async with hosted() as (worker, _, host):
        call: Any = ClientsCall(ExecuteRequest(tool="load", params=Value(msgpack=b"\x80")))
        running = asyncio.ensure_future(WorkerService(host)._execute(call))
        (sent,) = await worker.hears()
        assert isinstance(sent, Call)
        body, buffers = encode_value(value)
        assert len(buffers) == 2
        await worker.says(Result(sent.id, body, buffers))
        await running
        whole, _ = encode_value(value, buffer_threshold=2**62)
        assert call.whole == bytes(ExecuteReply(value=Value(msgpack=bytes(whole))))
        assert len(call.sent) > len(call.whole) / LARGE_BYTES / 4


async def test_a_result_over_the_maximum_of_grpc_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_grpc_replies, "REPLY_BYTES_MAX", LARGE_BYTES)
    async with hosted() as (worker, _, host):
        call: Any = ClientsCall(ExecuteRequest(tool="load"))
        running = asyncio.ensure_future(WorkerService(host)._execute(call))
        (sent,) = await worker.hears()
        assert isinstance(sent, Call)
        await worker.says(Result(sent.id, Raw(b"\x01"), (bytes(LARGE_BYTES),)))
        await running
        assert call.trailers["status"] is Status.INTERNAL
        assert "stream them" in call.trailers["status_message"]


async def test_a_result_that_json_has_not_is_told_as_that() -> None:
    async with hosted() as (worker, _, host):
        call: Any = ClientsCall(ExecuteRequest(tool="echo"))
        running = asyncio.ensure_future(WorkerService(host)._execute(call))
        (sent,) = await worker.hears()
        assert isinstance(sent, Call)
        assert sent.body == Raw(b"\x80")
        await worker.says(Result(sent.id, Raw(b"\x91" * 200 + b"\xc0")))
        await running
        assert call.trailers["status"] is Status.INTERNAL
        assert "nested deeper" in call.trailers["status_message"]


async def test_a_small_result_is_sent_in_the_step_in_which_it_comes() -> None:
    """No task has to run first."""
    async with hosted() as (worker, _, host):
        client = Client(SoundServer([WorkerService(host)]))
        data = bytes(ExecuteRequest(tool="add", params=Value(msgpack=b"\x80")))
        head = b"\0" + len(data).to_bytes(4, "big")
        stream = client.begin(head + data, "/snakepit.v1.Worker/Execute")
        client.h2.end_stream(stream)
        client.exchange()
        (sent,) = await worker.hears()
        assert isinstance(sent, Call)
        result = framed(Result(sent.id, Raw(b"\x03")))
        host.hear(result)
        reply = bytes(ExecuteReply(value=Value(msgpack=b"\x03")))
        written, client.transport.written = client.transport.written, b""
        assert reply in written
        assert [type(event) for event in client.h2.receive_data(written)] == [
            ResponseReceived, DataReceived, TrailersReceived, StreamEnded,
        ]  # fmt: skip
        await settle()
        assert client.transport.written == b""
        client.server.connection_lost(None)


class HangingCall:
    """A call on which nobody says anything."""

    async def recv_message(self) -> None:
        await asyncio.Event().wait()


async def test_a_reflection_that_nobody_ends_ends_with_the_worker() -> None:
    """So that it does not hold up the calls that the worker waits for."""
    async with hosted() as (_, __, host):
        call: Any = HangingCall()
        running = asyncio.ensure_future(ReflectionService(host)._info(call))
        await settle()
        assert not running.done()
        host.end()
        await running
        await ReflectionService(host)._info(call)
        tasks = [task for task in asyncio.all_tasks() if "recv_message" in repr(task)]
        assert not tasks


async def test_nothing_more_is_written_to_a_client_that_is_gone() -> None:
    """asyncio tells of each such write on stderr."""
    async with hosted() as (worker, _, host):
        client = Client(SoundServer([WorkerService(host)]))
        request = bytes(ExecuteRequest(tool="count"))
        message = bytes(4) + bytes((len(request),)) + request
        client.h2.end_stream(client.begin(message, f"/{SERVICE}/ExecuteStream"))
        client.exchange()
        (call,) = await worker.hears()
        assert isinstance(call, Call)
        await worker.says(Item(call.id, Raw(b"\1")))
        assert client.transport.written
        client.transport.written = b""
        client.transport.close()  # as asyncio does when it finds nobody
        await worker.says(*[Item(call.id, Raw(b"\1"))] * 3)
        assert client.transport.written == b""
        client.server.connection_lost(None)
        assert Cancel(call.id) in await worker.hears()
        await worker.says(Settled(call.id))
