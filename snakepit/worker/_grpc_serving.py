"""`python -m snakepit.worker --adapter X --listen ADDRESS`: a worker for any gRPC client.

No pool stands behind it: the thread that serves gRPC is its host too. SIGTERM and Ctrl+C let the
calls that run finish; a second one cancels them.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

from grpclib import GRPCError
from grpclib.const import Status
from grpclib.events import RecvRequest, listen

from snakepit.grpc import TOKEN_KEY, SoundServer
from snakepit.worker._grpc_host import OwnHost
from snakepit.worker._grpc_reflection import ReflectionService
from snakepit.worker._grpc_services import HealthService, WorkerService
from snakepit.worker._grpc_wire import FINISH_S
from snakepit.worker._wire import Wire, complain

DRAIN_S: Final = 6.0
BACKLOG: Final = 100
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class ServingFront:
    """The thread: gRPC on one side, the inner end of the wire on the other."""

    def __init__(
        self, listeners: list[socket.socket], inner: socket.socket, adapter: str, token: str | None
    ) -> None:
        self._listeners, self._inner = listeners, inner
        self._adapter, self._token = adapter, token
        self._thread = Thread(target=self._run, name="snakepit-grpc", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._drain = asyncio.Event()
        self._servers: list[SoundServer] = []

    def start(self) -> None:
        """Begin to serve, in a thread of its own."""
        self._thread.start()

    def drain(self) -> None:
        """Let the calls that run finish, then end the worker. From any thread."""
        self._loop.call_soon_threadsafe(self._drain.set)

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended, which it does when the wire has."""
        self._thread.join(timeout_s)

    def close_in_child(self) -> None:
        """In a forked child: let go of all descriptors."""
        for one in (self._inner, *self._listeners):
            one.close()
        for server in self._servers:
            for fd in server.fds():
                with suppress(OSError):
                    os.close(fd)

    # -- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._inner)
        host = OwnHost(self._adapter)
        services = [WorkerService(host), HealthService(host), ReflectionService()]
        for listener in self._listeners:
            server = SoundServer(services)
            listen(server, RecvRequest, self._authenticate)
            await server.start(sock=listener)
            self._servers.append(server)
        worker = asyncio.create_task(host.run(reader, writer))
        told = asyncio.create_task(self._tell_when_ready(host))
        draining = asyncio.create_task(self._drain.wait())
        await asyncio.wait((worker, draining), return_when=asyncio.FIRST_COMPLETED)
        host.end()
        await asyncio.gather(*(server.drain(DRAIN_S) for server in self._servers))
        with suppress(OSError):
            await host.shut_down(DRAIN_S)
        await asyncio.gather(worker, return_exceptions=True)
        writer.close()
        for task in (told, draining):
            task.cancel()

    async def _tell_when_ready(self, host: OwnHost) -> None:
        await host.ready.wait()
        if host.is_serving:
            addresses = ", ".join(map(_address, self._listeners))
            complain(f"serves {self._adapter} on {addresses}")

    async def _authenticate(self, event: RecvRequest) -> None:
        said = event.metadata.get(TOKEN_KEY, "")
        if self._token is not None and not (
            isinstance(said, str) and hmac.compare_digest(said.encode(), self._token.encode())
        ):
            raise GRPCError(Status.UNAUTHENTICATED, f"the metadata {TOKEN_KEY} is wrong")


class ServingWire(Wire):
    """A wire whose host is in this process."""

    has_own_host = True

    def __init__(
        self, ours: socket.socket, front: ServingFront, clean_up: Callable[[], object]
    ) -> None:
        super().__init__(os.dup(ours.fileno()), os.dup(ours.fileno()))
        self._ours, self._front, self._clean_up = ours, front, clean_up
        self._drains = False

    def begin_drain(self) -> bool:
        if self._drains:
            return False
        self._drains = True
        self._front.drain()
        return True

    def finish(self) -> None:
        if not self.is_closed:
            with suppress(OSError):
                self._ours.shutdown(socket.SHUT_WR)
            self._front.join(FINISH_S)
            self._clean_up()

    def close(self) -> None:
        super().close()
        self._ours.close()
        self._front.close_in_child()


def open_serving_wire(argv: list[str]) -> ServingWire:
    """Listen where the arguments say. Exits with 2 where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m snakepit.worker", description="A worker that serves any gRPC client."
    )
    parser.add_argument("--adapter", required=True, metavar="pkg.module:Class")
    parser.add_argument(
        "--listen",
        required=True,
        action="append",
        metavar="ADDRESS",
        help="unix:/path, or tcp:127.0.0.1:PORT (loopback alone); may be given again",
    )
    parser.add_argument(
        "--token-file", metavar="PATH", help=f"calls must carry its content as {TOKEN_KEY}"
    )
    arguments = parser.parse_args(argv)
    token, listeners, paths = None, list[socket.socket](), list[str]()
    try:
        if arguments.token_file is not None:
            token = Path(arguments.token_file).read_text(encoding="ascii").strip()
            if not token:
                parser.error(f"--token-file: {arguments.token_file} is empty")
        for address in arguments.listen:
            listeners.append(_listen(address, paths))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    ours, theirs = socket.socketpair()
    front = ServingFront(listeners, theirs, arguments.adapter, token)
    wire = ServingWire(ours, front, lambda: _remove(paths))
    os.register_at_fork(after_in_child=wire.close)
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    front.start()
    return wire


def _listen(address: str, paths: list[str]) -> socket.socket:
    """A listening socket. Raises OSError, or ValueError for what is no address of ours."""
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        _forget_dead_socket(rest)
        mask = os.umask(0o177)  # this user's alone, from the first moment
        try:
            made.bind(rest)
        finally:
            os.umask(mask)
        paths.append(rest)
    else:
        host, _, port = rest.rpartition(":")
        host = host.strip("[]")
        if kind != "tcp" or not port.isdecimal() or host not in LOOPBACK:
            raise ValueError(
                f"--listen: {address!r} is neither unix:/path nor tcp:HOST:PORT with a HOST of "
                f"{', '.join(LOOPBACK)}"
            )
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
    made.listen(BACKLOG)
    made.setblocking(False)
    return made


def _address(listener: socket.socket) -> str:
    """As `--listen` takes it; with the port that was given for port 0."""
    name = listener.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"tcp:{name[0]}:{name[1]}"


def _forget_dead_socket(path: str) -> None:
    """Remove what a worker that was killed has left: a socket on which nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # nothing is there, or bind will say what it is


def _remove(paths: list[str]) -> None:
    for path in paths:
        with suppress(OSError):
            os.unlink(path)
