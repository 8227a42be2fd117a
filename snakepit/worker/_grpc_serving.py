"""`python -m snakepit.worker --adapter X --listen ADDRESS`: a worker for pools and any gRPC client.

No pool has started it: the thread that serves gRPC is its host, and a pool is a guest. SIGTERM and Ctrl+C let the
calls that run finish; a second one cancels them. The thread hears of the first one by itself, whatever the main
thread does, as long as that lets go of the GIL; and ends the process if the main thread does not.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Final, NoReturn

from grpclib import GRPCError
from grpclib.const import Status
from grpclib.events import RecvRequest, listen

from snakepit.grpc import TOKEN_KEY, SoundServer
from snakepit.worker._grpc_guest import PoolService
from snakepit.worker._grpc_host import OwnHost
from snakepit.worker._grpc_inner import InnerEnd
from snakepit.worker._grpc_listen import Listening, address_of, listen_as_told
from snakepit.worker._grpc_reflection import ReflectionService
from snakepit.worker._grpc_services import HealthService, WorkerService
from snakepit.worker._grpc_wire import FINISH_S
from snakepit.worker._wire import Wire, complain

DRAIN_S: Final = 6.0
STOP_S: Final = 6.0  # for calls that were cancelled at the end of that to end, and for cleanup
SIGNALS_MAX: Final = 4096  # that are read at once


class ServingFront:
    """The thread: gRPC on one side, the inner end of the wire on the other."""

    def __init__(self, listening: Listening, inner: socket.socket) -> None:
        self._listening, self._inner = listening, inner
        self._thread = Thread(target=self._run, name="snakepit-grpc", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._drain = asyncio.Event()
        self._servers: list[SoundServer] = []
        self._host = OwnHost(listening.adapter)
        # Python writes the number of each signal there at once, and runs its handler when it can.
        self._signals, self._signalled = socket.socketpair()
        for end in (self._signals, self._signalled):
            end.setblocking(False)
        self.give_up: Callable[[], object] = lambda: os._exit(1)

    def start(self) -> None:
        """Begin to serve, in a thread of its own. On the main thread, whose signals it hears of."""
        # A tool may run trio, which sees that somebody hears of signals, and says so.
        warnings.filterwarnings("ignore", "It looks like Trio's signal handling", RuntimeWarning)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def drain(self) -> None:
        """Let the calls that run finish, then end the worker. From any thread."""
        self._loop.call_soon_threadsafe(self._drain.set)

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended, which it does when the wire has."""
        self._thread.join(timeout_s)

    def grace_of(self, number: int) -> float | None:
        """See `OwnHost.grace_of`."""
        return self._host.grace_of(number)

    def close_in_child(self) -> None:
        """In a forked child: let go of all descriptors."""
        signal.set_wakeup_fd(-1)
        for one in (self._inner, self._signals, self._signalled, *self._listening.listeners):
            one.close()
        for server in self._servers:
            for fd in server.fds():
                with suppress(OSError):
                    os.close(fd)

    # -- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        finally:
            self._inner.close()  # if it has failed: a worker without a host ends

    async def _serve(self) -> None:
        host = self._host
        self._loop.add_reader(self._signals, self._hear_signals)
        _, inner = await self._loop.create_connection(lambda: InnerEnd(host.hear), sock=self._inner)
        services = [
            WorkerService(host), PoolService(host), HealthService(host), ReflectionService(host)
        ]  # fmt: skip
        for listener in self._listening.listeners:
            server = SoundServer(
                services, pings=True, message_bytes_max=self._listening.request_bytes_max
            )
            if self._listening.token is not None:
                listen(server, RecvRequest, self._authenticate)
            await server.start(sock=listener, ssl=self._listening.tls_of(listener))
            self._servers.append(server)
        worker = asyncio.create_task(host.run(inner))
        told = asyncio.create_task(self._tell_when_ready(host))
        draining = asyncio.create_task(self._drain.wait())
        await asyncio.wait((worker, draining), return_when=asyncio.FIRST_COMPLETED)
        host.end()
        await asyncio.gather(*(server.drain(DRAIN_S) for server in self._servers))
        with suppress(OSError):
            await host.shut_down(DRAIN_S)
        await self._until_it_ends(host, worker)
        await asyncio.gather(worker, return_exceptions=True)
        inner.close()
        for task in (told, draining):
            task.cancel()

    async def _until_it_ends(self, host: OwnHost, worker: asyncio.Task[None]) -> None:
        """End the process if the worker does not: there is nobody else to do it."""
        await asyncio.wait((worker,), timeout=STOP_S)
        if not worker.done():
            what = (
                "a tool does not stop" if host.has_calls else "initialize or cleanup does not end"
            )
            complain(f"{what}: the worker ends at once")
            self.give_up()

    def _hear_signals(self) -> None:
        """The first that tells it to end begins that; what else there is to do is the main thread's."""
        with suppress(BlockingIOError):
            if not {signal.SIGTERM, signal.SIGINT}.isdisjoint(self._signals.recv(SIGNALS_MAX)):
                self._drain.set()

    async def _tell_when_ready(self, host: OwnHost) -> None:
        await host.ready.wait()
        if host.is_serving:
            addresses = ", ".join(str(address_of(one)) for one in self._listening.listeners)
            complain(f"serves {self._listening.adapter} on {addresses}")

    async def _authenticate(self, event: RecvRequest) -> None:
        said, token = event.metadata.get(TOKEN_KEY, ""), self._listening.token or ""
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), token.encode()):
            raise GRPCError(Status.UNAUTHENTICATED, f"the metadata {TOKEN_KEY} is wrong")


class ServingWire(Wire):
    """A wire whose host is in this process."""

    is_direct = False
    has_own_host = True

    def __init__(
        self, ours: socket.socket, front: ServingFront, clean_up: Callable[[], object]
    ) -> None:
        super().__init__(os.dup(ours.fileno()), os.dup(ours.fileno()))
        self._ours, self._front, self._clean_up = ours, front, clean_up
        self._drains = False
        front.give_up = self._give_up

    def _give_up(self) -> NoReturn:
        """End the process from the thread that serves: the main thread never comes back."""
        with suppress(Exception):
            self._clean_up()
        try:
            if self.last_act is not None:
                self.last_act()
        finally:
            os._exit(1)

    def begin_drain(self) -> bool:
        if self._drains:
            return False
        self._drains = True
        self._front.drain()
        return True

    def grace_of(self, number: int) -> float | None:
        return self._front.grace_of(number)

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
    listening = listen_as_told(argv)
    try:
        ours, theirs = socket.socketpair()
        front = ServingFront(listening, theirs)
        wire = ServingWire(ours, front, listening.remove)
        os.register_at_fork(after_in_child=wire.close)
        if sys.stdout is not None:
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        front.start()
    except BaseException:
        listening.close()
        raise
    return wire
