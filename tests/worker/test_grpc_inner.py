"""The way between the host that such a worker has in its own process, and the worker: sockets alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
from _backends import asyncio_only

from snakepit.errors import ProtocolError
from snakepit.worker._grpc_inner import InnerEnd

pytestmark = asyncio_only


@asynccontextmanager
async def inner(heard: list[bytes]) -> AsyncGenerator[tuple[InnerEnd, socket.socket]]:
    def hear(data: bytes) -> None:
        heard.append(bytes(data))
        if data == b"garbage":
            raise ProtocolError("no message")

    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    with theirs:
        theirs.setblocking(False)
        async with asyncio.timeout(10):
            _, end = await loop.create_connection(lambda: InnerEnd(hear), sock=ours)
            yield end, theirs
            end.close()
            theirs.close()
            with suppress(ProtocolError):
                await end.until_ended()


async def test_what_comes_is_heard_and_the_end_noticed() -> None:
    heard: list[bytes] = []
    loop = asyncio.get_running_loop()
    async with inner(heard) as (end, worker):
        await loop.sock_sendall(worker, b"hello")
        end.write(b"welcome")
        assert await loop.sock_recv(worker, 100) == b"welcome"
        worker.shutdown(socket.SHUT_WR)
        await end.until_ended()
        assert heard == [b"hello"]
        with pytest.raises(ConnectionResetError):
            await end.drain()


async def test_what_makes_no_sense_is_the_end() -> None:
    async with inner([]) as (end, worker):
        await asyncio.get_running_loop().sock_sendall(worker, b"garbage")
        with pytest.raises(ProtocolError, match="no message"):
            await end.until_ended()


async def test_who_writes_much_waits_for_room() -> None:
    loop = asyncio.get_running_loop()
    async with inner([]) as (end, worker):
        await end.drain()
        end.write(bytes(2**22))
        waiting = asyncio.ensure_future(end.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        taken = 0
        while taken < 2**22:
            taken += len(await loop.sock_recv(worker, 2**18))
        await waiting
