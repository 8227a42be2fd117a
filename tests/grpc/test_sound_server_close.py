"""How a server that drains closes its connections: what has been written gets out, and nobody is waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from _backends import asyncio_only
from _h2_client import Client, Held, Memory

from snakepit.grpc import SoundServer, _server

pytestmark = [pytest.mark.anyio]
GRACE_S = 1000
PATIENCE_S = 20


class Deaf(Memory):
    """Over TLS, to a client that never closes its side. `unsent`: what is not in the kernel yet."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client, self.unsent = client, 0
        self.lost: list[int] = []

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        if not self.lost:
            self.lost.append(self.unsent)
            asyncio.get_running_loop().call_soon(self._client.server.connection_lost, None)


@asyncio_only
async def test_a_client_that_does_not_close_its_side_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpcio over TLS, while it idles."""
    monkeypatch.setattr(_server, "FAREWELL_S", 0.01)
    server = SoundServer([Held()])
    await server.start(path=str(tmp_path / "socket"))
    client = Client(server)
    transport = Deaf(client)
    server.connections[client.server] = transport
    transport.unsent = 5
    draining = asyncio.create_task(server.drain(GRACE_S))
    while not transport.is_closing():
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert not transport.lost, "not before all of it is in the kernel"
    transport.unsent = 0
    await asyncio.wait_for(draining, PATIENCE_S)
    assert transport.lost == [0]
    assert server.connections == {}
