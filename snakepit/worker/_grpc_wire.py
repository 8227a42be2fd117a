"""The worker's end of the gRPC transport: a gRPC server in a thread, before the wire of stdio.

The stream of bytes that stdio has on pipes comes here out of `Connect`; the thread carries it
between HTTP/2 and one end of a socket pair, whose other end is an ordinary `Wire`. So everything
behind the wire is what it is everywhere: who reads, interrupts, cancels, the end of the host.
The one difference: what was sent is on its way only once the thread has run. A process that ends
at once, or that never lets go of the GIL, may keep its last words to itself; `finish` waits for them.
"""

from __future__ import annotations

import hmac
import os
import socket
from contextlib import suppress

from snakepit.grpc import TOKEN_BYTES
from snakepit.worker._grpc_front import Front
from snakepit.worker._wire import Wire

FINISH_S = 1.0


class GrpcWire(Wire):
    """A wire to the thread that serves gRPC."""

    is_direct = False

    def __init__(self, ours: socket.socket, front: Front) -> None:
        super().__init__(os.dup(ours.fileno()), os.dup(ours.fileno()))
        self._ours, self._front = ours, front

    def finish(self) -> None:
        if self.is_closed:
            return
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)
        self._front.join(FINISH_S)

    def close(self) -> None:
        super().close()
        self._ours.close()
        self._front.close_in_child()


def open_grpc_wire(read_fd: int, write_fd: int, listener_fd: int) -> GrpcWire:
    """The wire of a host that has made the socket to listen on, and says its token on stdin."""
    os.set_inheritable(listener_fd, False)
    token = _read_token(read_fd)
    os.close(read_fd)
    os.close(write_fd)
    listener = socket.socket(fileno=listener_fd)
    listener.setblocking(False)
    ours, theirs = socket.socketpair()
    front = Front(listener, theirs, lambda said: hmac.compare_digest(said.encode(), token))
    front.start()
    return GrpcWire(ours, front)


def _read_token(fd: int) -> bytes:
    """All of it: whoever has no token to tell must not be served."""
    token = b""
    while len(token) < 2 * TOKEN_BYTES:
        chunk = os.read(fd, 2 * TOKEN_BYTES - len(token))
        if not chunk:
            raise OSError("the host has told no token")
        token += chunk
    return token
