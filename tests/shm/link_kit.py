"""A link with both of its ends in this process, for tests."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from snakepit.protocol import NIL, Call, Result
from snakepit.shm import Endpoint, FdSocket, Heap, open_for_host, open_for_worker

KIB, MIB = 2**10, 2**20
THRESHOLD = 64 * KIB
BUDGET = 64 * MIB


@contextmanager
def link(heap: Heap | None = None, *, budget: int = BUDGET) -> Generator[tuple[Endpoint, Endpoint]]:
    """The host's end and the worker's."""
    ours, theirs = (FdSocket(end.detach()) for end in socket.socketpair())
    host_heap = heap or Heap(budget)
    host = open_for_host(host_heap, ours, threshold=THRESHOLD, peer_budget=budget)
    worker = open_for_worker(theirs)
    assert host.is_up
    try:
        yield host, worker
    finally:
        for end in (host, worker):
            end.close()
        worker.heap.close()
        if heap is None:
            host_heap.close()


def passed(sender: Endpoint, receiver: Endpoint, *buffers: Any) -> list[Any]:
    """What the receiver makes of the buffers of one message."""
    kind = Result if sender._counts_echoes else Call
    message = Call(1, "t", NIL, buffers) if kind is Call else Result(1, NIL, buffers)
    return received(receiver, sender.place(message))


def received(receiver: Endpoint, message: Any) -> list[Any]:
    receipts: dict[Any, Any] = {}
    views = [
        receiver.resolve(one, receipts) if type(one) is list else one for one in message.buffers
    ]
    receiver.received_all_of([one for one in message.buffers if type(one) is list])
    return views


def used(endpoint: Endpoint) -> int:
    endpoint.heap.reclaim()
    return endpoint.heap.arena.used_bytes


def leases(endpoint: Endpoint) -> int:
    endpoint.heap.reclaim()
    return len(endpoint.leases)
