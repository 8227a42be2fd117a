"""How the two ends of a link with shared memory are made, and what they tell each other first."""

from __future__ import annotations

import os
from typing import Final

from snakepit.errors import ProtocolError
from snakepit.shm import _fd_socket as kinds
from snakepit.shm._counts import COUNTS_BYTES
from snakepit.shm._endpoint import Endpoint
from snakepit.shm._fd_socket import FdSocket
from snakepit.shm._heap import Heap
from snakepit.shm._leases import LEDGER_BYTES
from snakepit.shm._memory import Mapping
from snakepit.shm._segments import HAS_MEMFD, create, open_shown

_TRIED_BYTES: Final = 4096
_SETUP_BYTES: Final = 2 * LEDGER_BYTES + COUNTS_BYTES


def can_share() -> bool:
    """Can memory be shared with workers here? Found out by doing it; 50 µs.

    Not where the kernel is too old for the seals, or a sandbox refuses memfds; nor on macOS, where
    it has not been tested.
    """
    try:
        fd, _ = create(_TRIED_BYTES)
    except OSError:
        return False
    try:
        open_shown(fd, _TRIED_BYTES)
    except ProtocolError:
        return False
    finally:
        os.close(fd)
    return HAS_MEMFD


def open_for_host(heap: Heap, fds: FdSocket, *, threshold: int, peer_budget: int) -> Endpoint:
    """The host's end; the worker's finds what it must know in the socket. Raises OSError."""
    fd, mapping = create(_SETUP_BYTES, others_write=True)
    try:
        if not fds.send(kinds.SETUP, threshold, peer_budget, fd):
            raise OSError("the socket for descriptors takes none")
    finally:
        os.close(fd)
    endpoint = Endpoint(heap, fds, _ledgers(mapping), _counts(mapping))
    endpoint.threshold = threshold
    return endpoint


def open_for_worker(fds: FdSocket, *, has_greeted: bool = False) -> Endpoint:
    """The worker's end, with a heap of its own. Raises ProtocolError."""
    record = fds.receive()
    if record is None or record[0] != kinds.SETUP:
        raise ProtocolError("the host did not set its shared memory up")
    _, threshold, budget, fd = record
    try:
        mapping = open_shown(fd, _SETUP_BYTES, others_write=True)
    finally:
        os.close(fd)
    endpoint = Endpoint(Heap(budget), fds, _ledgers(mapping)[::-1], _counts(mapping))
    endpoint.threshold = threshold
    endpoint.shown.has_greeted = endpoint._counts_echoes = True
    if not has_greeted:
        fds.send(kinds.HELLO)
    return endpoint


def _ledgers(mapping: Mapping) -> tuple[memoryview, memoryview]:
    """What the host has lent, and what the worker has."""
    first, second = (mapping.view(start, LEDGER_BYTES).cast("Q") for start in (0, LEDGER_BYTES))
    return first, second


def _counts(mapping: Mapping) -> memoryview:
    return mapping.view(2 * LEDGER_BYTES, COUNTS_BYTES).cast("Q")
