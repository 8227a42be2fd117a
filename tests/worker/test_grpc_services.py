"""What a client that is no pool is told, call by call: no process, and no connection."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest
from _backends import asyncio_only
from grpclib import GRPCError
from grpclib.const import Status
from test_grpc_guest import hosted

from snakepit.grpc._generated.snakepit.v1 import ErrorDetail, ExecuteRequest
from snakepit.protocol import Call, ErrorData, Failure
from snakepit.worker._grpc_services import NAME_BYTES_MAX, WorkerService

pytestmark = asyncio_only
HEADERS_BYTES_MAX = 8 * 1024 - 256  # what grpcio takes, less the names and the other headers


class ClientsCall:
    """An `Execute` call, as far as the service is concerned."""

    deadline = None

    def __init__(self, request: ExecuteRequest) -> None:
        self._request = request
        self.sent: list[bytes] = []
        self.trailers: dict[str, Any] = {}

    async def recv_message(self) -> ExecuteRequest:
        return self._request

    async def send_message(self, message: Any) -> None:
        self.sent.append(bytes(message))

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
