"""`grpc`: the frames of stdio inside one gRPC call, `Connect`, over a Unix socket for each worker.

The socket is made by the host in a private directory, which is removed as soon as the host has
connected, before the worker runs: so nothing is left of it, whoever is killed. The worker inherits
it, listening. A token that the worker reads from its stdin goes with every call, so that no other
user and no other process that has got hold of the address in between can call a worker.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
from trio.lowlevel import enable_ki_protection

from snakepit._address import fits_a_socket
from snakepit.grpc import TOKEN_BYTES
from snakepit.process import close_fds, guard_fds, unguard_fds
from snakepit.protocol import Buffer
from snakepit.transports._base import Channel, Link, Transport
from snakepit.transports._byte_channel import ByteChannel
from snakepit.transports._grpc_home import Home, home
from snakepit.transports._grpc_stream import GrpcStream
from snakepit.worker._wire import GRPC_VARIABLE

BACKLOG: Final = 8
SOCKET_NAME: Final = "worker.sock"
SHORT_FOLDER: Final = "/tmp"  # noqa: S108 - what is made there is private, and gone in a moment


class PatientSocket(socket.socket):
    """One that may still be read when nobody reads at its other end.

    asyncio gives a connection up at the first write that fails, with all that has come and was not
    read: a dead worker's last words. So no write fails; the end is what the reader sees.
    """

    def send(self, data: Buffer, flags: int = 0, /) -> int:  # type: ignore[override]
        try:
            return super().send(data, flags)
        except (BrokenPipeError, ConnectionResetError):
            return len(data)

    def sendmsg(self, buffers: Iterable[Buffer], /, *more: Any) -> int:  # type: ignore[override]
        """What asyncio writes with from Python 3.12 on."""
        pieces = list(buffers)
        try:
            return super().sendmsg(pieces, *more)
        except (BrokenPipeError, ConnectionResetError):
            return sum(memoryview(piece).nbytes for piece in pieces)


class GrpcByteChannel(ByteChannel):
    """A channel whose bytes are carried by a call."""

    def __init__(self, stream: GrpcStream, home: Home) -> None:
        super().__init__(stream)
        self._carry, self._home = stream.carry, home

    @enable_ki_protection
    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._carry_bytes)
            await super().run()

    async def _carry_bytes(self) -> None:
        await self._home.run(self._carry)


class GrpcLink(Link):
    """A listening socket for the worker, and one that is connected to it for us."""

    def __init__(self) -> None:
        self._home: Home | None = None
        self._token = secrets.token_hex(TOKEN_BYTES)
        self._folder = _make_folder()
        self._sockets: list[socket.socket] = []
        self._handed: list[int] = []
        try:
            self._listen_and_connect(os.path.join(self._folder, SOCKET_NAME))
            self._remove_folder()
            self.stdin = self._say_token()
            # A pipe that nobody reads: Python would take /dev/null for a file that can seek.
            nobody, self.stdout = os.pipe()
            self._handed += [nobody, self.stdout]
        except BaseException:
            self.close()
            raise
        self.pass_fds: tuple[int, ...] = (self._listener.fileno(),)
        self.env: Mapping[str, str] = {GRPC_VARIABLE: str(self._listener.fileno())}

    def _listen_and_connect(self, path: str) -> None:
        self._listener, self._ours = self._keep(socket.socket), self._keep(PatientSocket)
        self._listener.bind(path)
        self._listener.listen(BACKLOG)
        self._ours.setblocking(False)
        self._ours.connect(path)  # no need to wait: the kernel says yes on the worker's behalf

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self, kind: type[socket.socket]) -> socket.socket:
        made = kind(socket.AF_UNIX, socket.SOCK_STREAM)
        guard_fds(made.fileno())
        self._sockets.append(made)
        return made

    def _say_token(self) -> int:
        """The worker's stdin, with the token in it."""
        reading, writing = os.pipe()
        self._handed.append(reading)
        guard_fds(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(self._token.encode())
        return reading

    def worker_started(self) -> None:
        _close(self._listener)
        for fd in self._handed:
            guard_fds(fd)
            close_fds(fd)
        self._handed.clear()

    def connect(self) -> Channel:
        self._home = home()
        stream = GrpcStream(self._home, self._ours, self._token)
        return GrpcByteChannel(stream, self._home)

    def close(self) -> None:
        for made in self._sockets:
            _close(made)
        for fd in self._handed:
            guard_fds(fd)
            close_fds(fd)
        self._handed.clear()
        self._remove_folder()
        if self._home is not None:
            self._home.leave()
            self._home = None


def _make_folder() -> str:
    """A private one (mode 0700), where a socket's path is not too long, whatever `TMPDIR` says."""
    folder = tempfile.mkdtemp(prefix="snakepit-")
    if fits_a_socket(os.path.join(folder, SOCKET_NAME)):
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="snakepit-", dir=SHORT_FOLDER)


def _close(made: socket.socket) -> None:
    if made.fileno() >= 0:
        unguard_fds(made.fileno())
        with suppress(OSError):
            made.close()


class GrpcTransport(Transport):
    """One gRPC call for each worker, over a Unix socket."""

    name = "grpc"

    def open_link(self) -> GrpcLink:
        return GrpcLink()
