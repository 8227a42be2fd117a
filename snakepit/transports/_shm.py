"""Shared memory: the pipes of stdio, and beside them a socket by which segments are shown.

All messages go through the pipes, so all that is promised of stdio holds; what differs is in
`_shm_channel.py`. Who has no descriptor to spare for the socket does without it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from snakepit.process import close_fds, fork_generation, guard_fds
from snakepit.shm import Endpoint, FdSocket, Heap, open_for_host
from snakepit.transports._base import Channel, Transport
from snakepit.transports._shm_channel import ShmChannel
from snakepit.transports._stdio import PipeStream, StdioLink
from snakepit.worker._wire import SHM_VARIABLE


class HostFds(FdSocket):
    """The host's end of the socket; a forked child must not hold it."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._generation = fork_generation()
        guard_fds(fd)

    def close(self) -> None:
        fd = self._socket.detach()
        if fd >= 0:
            close_fds(fd)


class ShmLink(StdioLink):
    """Two pipes and a socket."""

    def __init__(self, heap: Heap, *, threshold: int, worker_budget: int) -> None:
        super().__init__()
        self._endpoint: Endpoint | None = None
        try:
            ours, theirs = (end.detach() for end in socket.socketpair())
            self._open.add(theirs)
            guard_fds(theirs)
            fds = HostFds(ours)
            try:
                self._endpoint = open_for_host(
                    heap, fds, threshold=threshold, peer_budget=worker_budget
                )
            except BaseException:
                fds.close()
                raise
        except BaseException:
            self.close()
            raise
        self._theirs = theirs
        self.pass_fds: tuple[int, ...] = (theirs,)
        self.env: Mapping[str, str] = {SHM_VARIABLE: str(theirs)}

    def worker_started(self) -> None:
        super().worker_started()
        self._close(self._theirs)

    def connect(self) -> Channel:
        assert self._endpoint is not None
        self._open -= {self._read_fd, self._write_fd}
        endpoint, self._endpoint = self._endpoint, None
        return ShmChannel(PipeStream(self._read_fd, self._write_fd), endpoint)

    def close(self) -> None:
        super().close()
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None


class ShmTransport(Transport):
    """Pipes, and shared memory for large values. One for each pool; `close` gives the memory back.

    `threshold`: bytes from which on a buffer travels as a reference. `budget`: bytes of the host's
    arena; each worker's own has `worker_budget`.
    """

    name = "shm"

    def __init__(self, *, threshold: int, budget: int, worker_budget: int) -> None:
        self.heap: Heap = Heap(budget)
        self._threshold, self._worker_budget = threshold, worker_budget

    def open_link(self) -> StdioLink:
        try:
            return ShmLink(self.heap, threshold=self._threshold, worker_budget=self._worker_budget)
        except OSError:
            return StdioLink()  # which needs one descriptor less; it may be the last one

    def close(self) -> None:
        """Give the memory back; idempotent. What is still looked at stays."""
        self.heap.close()
