"""Calls of a worker's clients that have no deadline of their own: the tool's timeout holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from _backends import asyncio_only
from _h2_client import Client
from grpclib.const import Status
from grpclib.metadata import Deadline
from h2.events import ResponseReceived
from test_grpc_guest import hosted
from test_grpc_services import ClientsCall

from snakepit.grpc import SoundServer
from snakepit.grpc._generated.snakepit.v1 import ExecuteRequest
from snakepit.protocol import Call, Cancel, ErrorData, Failure, Ready, Result, Settled, ToolInfo
from snakepit.worker._grpc_services import SERVICE, WorkerService

pytestmark = asyncio_only
TOOLS = ToolInfo("hasty", timeout_s=0.01), ToolInfo("patient")


async def test_the_timeout_of_the_tool_ends_a_call_without_a_deadline() -> None:
    async with hosted() as (worker, _, host):
        await worker.says(Ready(TOOLS))
        client = Client(SoundServer([WorkerService(host)]))
        request = bytes(ExecuteRequest(tool="hasty"))
        message = bytes(4) + bytes((len(request),)) + request
        client.h2.end_stream(client.begin(message, f"/{SERVICE}/Execute"))
        client.server.data_received(client.h2.data_to_send())
        (call,) = await worker.hears()
        assert isinstance(call, Call)
        assert call.timeout_s is not None
        assert 0 <= call.timeout_s <= 0.01
        while not (heard := await worker.hears()):
            await asyncio.sleep(0.001)
        assert heard == [Cancel(call.id)]
        await worker.says(Settled(call.id))
        events = client.h2.receive_data(client.transport.written)
        (told,) = [event for event in events if isinstance(event, ResponseReceived)]
        assert told.headers is not None
        headers = dict(told.headers)
        assert headers[b"grpc-status"] == str(Status.DEADLINE_EXCEEDED.value).encode()
        assert b"0.01 s" in headers[b"grpc-message"]


@pytest.mark.parametrize(("tool", "deadline_s"), [("hasty", 100), ("patient", None)])
async def test_it_does_not_hold_where_the_client_has_a_deadline(
    tool: str, deadline_s: float | None
) -> None:
    async with hosted() as (worker, _, host):
        await worker.says(Ready(TOOLS))
        call: Any = ClientsCall(ExecuteRequest(tool=tool))
        call.deadline = None if deadline_s is None else Deadline.from_timeout(deadline_s)
        running = asyncio.ensure_future(WorkerService(host)._execute(call))
        (sent,) = await worker.hears()
        assert isinstance(sent, Call)
        assert (sent.timeout_s is None) == (deadline_s is None)
        assert sent.timeout_s is None or sent.timeout_s > 1
        await worker.says(Result(sent.id))
        await running


@pytest.mark.parametrize(
    ("kind", "type_", "status"),
    [
        ("serialization", "snakepit.errors.ProtocolError", Status.INVALID_ARGUMENT),
        ("serialization", "snakepit.errors.SerializationError", Status.INTERNAL),
        ("tool", "snakepit.errors.ProtocolError", Status.UNKNOWN),
        ("params", "snakepit.errors.InvalidParamsError", Status.INVALID_ARGUMENT),
    ],
)
async def test_params_that_mean_nothing_are_the_clients_mistake(
    kind: str, type_: str, status: Status
) -> None:
    """msgpack with an extension that nobody knows, say: the worker finds it, not who has taken the call."""
    async with hosted() as (worker, _, host):
        call: Any = ClientsCall(ExecuteRequest(tool="patient"))
        running = asyncio.ensure_future(WorkerService(host)._execute(call))
        (sent,) = await worker.hears()
        assert isinstance(sent, Call)
        await worker.says(Failure(sent.id, kind, ErrorData(type_, "why")))
        await running
        assert call.trailers["status"] is status
