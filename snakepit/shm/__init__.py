"""Shared memory between a host and its workers: segments, arena, leases, references. Both sides."""

from __future__ import annotations

from snakepit.shm._endpoint import Endpoint as Endpoint
from snakepit.shm._endpoint import Key as Key
from snakepit.shm._endpoint import Loan as Loan
from snakepit.shm._endpoint import is_carrier as is_carrier
from snakepit.shm._fd_socket import FdSocket as FdSocket
from snakepit.shm._finalizers import FINALIZERS as FINALIZERS
from snakepit.shm._gifts import Gift as Gift
from snakepit.shm._gifts import make_gift as make_gift
from snakepit.shm._heap import IDLE_TRIM_S as IDLE_TRIM_S
from snakepit.shm._heap import Heap as Heap
from snakepit.shm._holds import Block as Block
from snakepit.shm._leases import Lease as Lease
from snakepit.shm._memory import huge_pages as huge_pages
from snakepit.shm._memory import private_bytes as private_bytes
from snakepit.shm._memory import private_copy as private_copy
from snakepit.shm._opening import can_share as can_share
from snakepit.shm._opening import open_for_host as open_for_host
from snakepit.shm._opening import open_for_worker as open_for_worker
from snakepit.shm._segments import Segment as Segment
from snakepit.shm._unpacker import ShmUnpacker as ShmUnpacker

__all__ = [
    "FINALIZERS",
    "IDLE_TRIM_S",
    "Block",
    "Endpoint",
    "FdSocket",
    "Gift",
    "Heap",
    "Key",
    "Lease",
    "Loan",
    "Segment",
    "ShmUnpacker",
    "can_share",
    "huge_pages",
    "is_carrier",
    "make_gift",
    "open_for_host",
    "open_for_worker",
    "private_bytes",
    "private_copy",
]
