"""Shared memory between a host and its workers: segments, arena, leases, references. Both sides.

Loaded as it is asked for: a worker that is sent nothing large needs no more than the socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "snakepit.shm._endpoint": (
        "Endpoint",
        "Key",
        "Loan",
        "is_carrier",
    ),
    "snakepit.shm._fd_socket": ("FdSocket",),
    "snakepit.shm._finalizers": ("FINALIZERS",),
    "snakepit.shm._gifts": (
        "Gift",
        "make_gift",
    ),
    "snakepit.shm._heap": (
        "IDLE_TRIM_S",
        "Heap",
    ),
    "snakepit.shm._holds": ("Block",),
    "snakepit.shm._leases": ("Lease",),
    "snakepit.shm._memory": (
        "huge_pages",
        "private_bytes",
        "private_copy",
    ),
    "snakepit.shm._opening": (
        "can_share",
        "open_for_host",
        "open_for_worker",
    ),
    "snakepit.shm._segments": ("Segment",),
    "snakepit.shm._unpacker": ("ShmUnpacker",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(home, fromlist=[name]), name)
    globals()[name] = value
    return value


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
