"""The worker's end of the shm transport: the wire of stdio, large values by reference."""

from __future__ import annotations

import os

from snakepit.protocol import ToHost, decode_to_worker
from snakepit.shm import FINALIZERS, Endpoint, FdSocket, ShmUnpacker, is_carrier, open_for_worker
from snakepit.worker import _empty
from snakepit.worker._wire import Wire


class ShmWire(Wire):
    """Copies into shared memory happen on the thread that sends."""

    seams = FINALIZERS

    def __init__(self, read_fd: int, write_fd: int, endpoint: Endpoint) -> None:
        super().__init__(read_fd, write_fd)
        self._unpacker = ShmUnpacker(decode_to_worker, endpoint)
        self.endpoint: Endpoint = endpoint
        endpoint.tell = self.send
        self.places = endpoint.heap

    def send(self, message: ToHost) -> None:
        if is_carrier(message) and not self.is_closed:
            message = self.endpoint.place(message)
        super().send(message)

    def close(self) -> None:
        super().close()
        self.endpoint.close_in_child()


def open_shm_wire(read_fd: int, write_fd: int, socket_fd: int) -> ShmWire | None:
    """The wire of a host that offers shared memory by that descriptor.

    None: it does not lead there, as where a program between has closed it and passed its number on.
    Raises ProtocolError.
    """
    try:
        fds = FdSocket(socket_fd)
    except OSError:
        return None
    os.set_inheritable(socket_fd, False)
    endpoint = open_for_worker(fds)
    _empty.heap = endpoint.heap
    return ShmWire(read_fd, write_fd, endpoint)
