"""What a client that is no pool is told, call by call: no process, and no connection."""

from __future__ import annotations

from typing import Any

import pytest
from _backends import asyncio_only
from grpclib import GRPCError
from grpclib.const import Status
from test_grpc_guest import hosted

from snakepit.grpc._generated.snakepit.v1 import ExecuteRequest
from snakepit.worker._grpc_services import NAME_BYTES_MAX, WorkerService

pytestmark = asyncio_only


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
