"""Every transport keeps every promise, on both loops.

A new transport is one line in a list: `PAIRS` if messages are frames on a stream of bytes, else
`MESSAGE_PAIRS`.
"""

from __future__ import annotations

from typing import Any

import pytest
from grpc_pairs import grpc_pair
from messages_only import messages_only
from transport_pairs import shm_pair, small_pipes

from examples.transports.socket_transport import SocketTransport
from snakepit.testing import FRAMING_CHECKS, TRANSPORT_CHECKS, pair_of
from snakepit.transports import MemoryTransport, ShmTransport, StdioTransport

PAIRS: dict[str, Any] = {
    "stdio": pair_of(StdioTransport()),
    "small-pipes": small_pipes,
    "shm": shm_pair,
    "shm-foreign-worker": pair_of(ShmTransport(threshold=2**16, budget=2**22, worker_budget=2**22)),
    "grpc": grpc_pair,
    "memory": pair_of(MemoryTransport()),
    "socket-example": pair_of(SocketTransport()),
}
MESSAGE_PAIRS: dict[str, Any] = {
    "messages-only": messages_only,
}


def each(checks: tuple[Any, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("check", checks, ids=lambda check: check.__name__)


@each(TRANSPORT_CHECKS)
@pytest.mark.parametrize("transport", [*PAIRS, *MESSAGE_PAIRS])
async def test_a_transport_keeps_its_promises(transport: str, check: Any) -> None:
    await check((PAIRS | MESSAGE_PAIRS)[transport])


@each(FRAMING_CHECKS)
@pytest.mark.parametrize("transport", PAIRS)
async def test_a_byte_transport_keeps_the_promises_of_frames(transport: str, check: Any) -> None:
    await check(PAIRS[transport])
