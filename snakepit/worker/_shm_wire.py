"""The worker's end of the shm transport: the wire of stdio, large values by reference.

What speaks to the other side about shared memory, and ctypes, are a twelfth of a worker's start. So they
are loaded with the first value that is large enough; until then the host has been told that it will be so, and
what it has shown waits in the socket.
"""

from __future__ import annotations

import _ctypes  # noqa: F401 - an interpreter without it cannot take part, and must not say that it will
import os
from _thread import RLock
from typing import TYPE_CHECKING

from snakepit.errors import ProtocolError
from snakepit.protocol import CARRIERS, Place, ToHost, decode_to_worker
from snakepit.shm._fd_socket import HELLO, FdSocket
from snakepit.shm._unpacker import ShmUnpacker
from snakepit.worker import _empty
from snakepit.worker._wire import Wire

if TYPE_CHECKING:
    from types import CodeType

    from snakepit.shm import Endpoint, Heap


class ShmWire(Wire):
    """Copies into shared memory happen on the thread that sends."""

    def __init__(self, read_fd: int, write_fd: int, fds: FdSocket) -> None:
        super().__init__(read_fd, write_fd)
        self._fds = fds
        self._unpacker = ShmUnpacker(decode_to_worker, self.take_up)
        self._endpoint: Endpoint | None = None
        self._taking = RLock()
        self._seams: set[CodeType] = set()
        self.places = Later(self)

    def take_up(self) -> Endpoint:
        """The worker's end, from now on. From any thread. Raises ProtocolError."""
        with self._taking:
            if self._endpoint is None:
                try:
                    from snakepit.shm import FINALIZERS, open_for_worker
                except (OSError, ImportError) as error:
                    raise ProtocolError(f"shared memory cannot be used here: {error}") from error
                endpoint = open_for_worker(self._fds, has_greeted=True)
                endpoint.tell = self.send
                self._seams |= FINALIZERS
                self._endpoint = endpoint
            return self._endpoint

    def heap(self) -> Heap | None:
        """The memory of this worker; None in a child that a tool has forked."""
        return None if self.is_closed else self.take_up().heap

    def send(self, message: ToHost) -> None:
        if type(message) in CARRIERS and message.buffers and not self.is_closed:  # type: ignore[union-attr]
            message = self.take_up().place(message)
        Wire.send(self, message)

    def protect(self, seams: set[CodeType]) -> None:
        self._seams = seams

    def close(self) -> None:
        super().close()
        self._fds.close()


class Later:
    """The shared memory of a wire as encoders ask for it: where large arrays and tables lie."""

    def __init__(self, wire: ShmWire) -> None:
        self._wire = wire

    def place_of(self, address: int, nbytes: int) -> Place | None:
        """As `Heap.place_of`."""
        return self._wire.take_up().heap.place_of(address, nbytes)

    def view(self, address: int, nbytes: int, keep: object) -> memoryview:
        """As `Heap.view`."""
        return self._wire.take_up().heap.view(address, nbytes, keep)

    def address_in(self, place: Place) -> int:
        """As `Heap.address_in`."""
        return self._wire.take_up().heap.address_in(place)


def open_shm_wire(read_fd: int, write_fd: int, socket_fd: int) -> ShmWire | None:
    """The wire of a host that offers shared memory by that descriptor.

    None: it does not lead there, as where a program between has closed it and passed its number on.
    """
    try:
        fds = FdSocket(socket_fd)
    except OSError:
        return None
    os.set_inheritable(socket_fd, False)
    fds.send(HELLO)
    wire = ShmWire(read_fd, write_fd, fds)
    _empty.find_heap = wire.heap
    return wire
