"""Calls of clients that are no pools, as the worker behind the wire hears them: no process, and no gRPC."""

from __future__ import annotations

import asyncio

import pytest
from _backends import asyncio_only
from msgspec import Raw
from test_grpc_guest import hosted, settle

from snakepit.errors import ProtocolError
from snakepit.protocol import FRAME_BYTES_MAX, PART_BYTES_MAX, Call, Cancel, Settled
from snakepit.worker._grpc_host import Inbox
from snakepit.worker._grpc_services import NO_PARAMS

pytestmark = asyncio_only


async def test_a_large_call_that_is_cancelled_twice_is_sent_to_its_end_and_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its deadline and by its client's reset, while it is sent."""
    async with hosted() as (worker, _, host):
        has_room = asyncio.Event()
        monkeypatch.setattr(worker, "drain", has_room.wait)
        params = Raw(bytes(5 * PART_BYTES_MAX))

        async def run() -> None:
            arrivals = Inbox()
            async with host.call(
                "echo", params, session="", timeout_s=None, streams=False, comes=arrivals
            ):
                raise AssertionError("it has not been sent")

        client = asyncio.ensure_future(run())
        for _ in range(2):
            await settle()
            client.cancel()
        await asyncio.wait([client])
        assert client.cancelled()
        has_room.set()
        call, cancel = await worker.hears()
        assert isinstance(call, Call)
        assert call.body == params
        assert cancel == Cancel(call.id)
        await worker.says(Settled(call.id))
        assert not host._calls
        assert not host._leaving


async def test_of_a_call_that_cannot_be_packed_nothing_is_kept() -> None:
    async with hosted() as (worker, _, host):
        name = "x" * FRAME_BYTES_MAX
        with pytest.raises(ProtocolError, match="over the maximum"):
            async with host.call(
                name, NO_PARAMS, session=name, timeout_s=None, streams=False, comes=Inbox()
            ):
                raise AssertionError("it cannot be sent")
        assert not host._calls
        assert name not in host.sessions
        assert await worker.hears() == []
