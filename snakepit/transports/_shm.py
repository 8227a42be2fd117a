"""Shared memory: the pipes of stdio, and beside them a socket by which segments are shown.

All messages go through the pipes, so all that is promised of stdio holds. What differs is that
large buffers are put into shared memory before, and the message refers to them. Such a message is
small, and is written at once if that takes no time: when the buffers lie in shared memory already,
or are copied soon. Else it waits in a line of its own until `run` has had them copied, in a
thread. Where no shared memory is to be had in time the buffers go through the pipe.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from snakepit.process import close_fds, fork_generation, guard_fds
from snakepit.protocol import Buffer, Drop, Loose, OnSent, ToWorker, call_of, decode_to_host
from snakepit.shm import (
    IDLE_TRIM_S,
    Block,
    Endpoint,
    FdSocket,
    Gift,
    Heap,
    Key,
    Loan,
    Segment,
    ShmUnpacker,
    is_carrier,
    make_gift,
    open_for_host,
)
from snakepit.transports._base import Channel, Transport
from snakepit.transports._byte_channel import ByteChannel, ByteStream
from snakepit.transports._stdio import PipeStream, StdioLink
from snakepit.worker._wire import SHM_VARIABLE

COPY_BYTES_MAX: Final = 4 * 2**20  # copied where the call is made; more is copied in a thread
LOOSE_COST: Final = 4  # a byte of an array that is not contiguous, in bytes of one that is
PIPE_S_PER_BYTE: Final = 2e-9  # a wait for room in the arena is no longer than the pipe would take
LOOK_AGAIN_S: Final = 0.002
OLD_LEASE_S: Final = 60.0

_log = logging.getLogger("snakepit.transports")


class Waiting:
    """A message whose buffers are to be copied, or which may not overtake such a one."""

    __slots__ = ("message", "on_sent")

    def __init__(self, message: ToWorker, on_sent: OnSent) -> None:
        self.message, self.on_sent = message, on_sent


class ShmChannel(ByteChannel):
    """The host's end of a link with shared memory."""

    def __init__(self, stream: ByteStream, endpoint: Endpoint) -> None:
        super().__init__(stream)
        self._unpacker = ShmUnpacker(decode_to_host, lambda: endpoint)
        self._endpoint = endpoint
        endpoint.tell = self.send_nowait
        endpoint.bury = self._bury
        # What may still be withdrawn.
        self._bound: dict[int, tuple[ToWorker, ToWorker, list[Loan]]] = {}
        self._waiting: deque[Waiting] = deque()
        self._graves: deque[Segment] = deque()  # not used any more, and still mapped
        self._more_waits = anyio.Event()
        self._limiter = anyio.CapacityLimiter(1)
        self._waited_in_vain_at = -1

    @property
    def is_sending(self) -> bool:
        return bool(self._outbox or self._waiting)

    @property
    def shares_memory(self) -> bool:
        return self._endpoint.is_up

    @property
    def lent_bytes(self) -> int:
        return self._endpoint.lent_bytes

    @property
    def peer_counts(self) -> tuple[int, ...] | None:
        return self._endpoint.peer_counts if self.shares_memory else None

    def send_nowait(self, message: ToWorker) -> bool:
        if not is_carrier(message) and not self._waiting:
            return super().send_nowait(message)
        if self._closed or self._peer_gone:
            return False
        ready = self._bind_now(message)
        if ready is None:
            self._wait(message, None)
            return True
        sent = super().send_nowait(ready)
        self._tidy()
        return sent

    def queue_nowait(self, message: ToWorker) -> bool:
        if not is_carrier(message) and not self._waiting:
            return super().queue_nowait(message)
        if self._closed or self._peer_gone:
            return False
        self._put(message, None)
        return True

    def _flush(self) -> bool:
        done = super()._flush()
        self._tidy()
        return done

    def _put(self, message: ToWorker, on_sent: OnSent) -> None:
        ready = self._bind_now(message)
        if ready is None:
            self._wait(message, on_sent)
        else:
            super()._put(ready, on_sent)

    def withdraw(self, message: ToWorker) -> bool:
        for waiting in self._waiting:
            if waiting.message is message:
                self._waiting.remove(waiting)
                return True
        known = self._bound.get(id(message))
        if known is None:
            return super().withdraw(message)
        _, bound, loans = known
        withdrawn = super().withdraw(bound)
        if withdrawn:
            del self._bound[id(message)]
            self._endpoint.take_back(loans)
            self._endpoint.speak()
        return withdrawn

    def _bind_now(self, message: ToWorker) -> ToWorker | None:
        """The message as it is to be packed; None if it must wait."""
        if self._waiting and self._is_behind(message):
            return None
        if not is_carrier(message) or not self._endpoint.is_up:
            return message
        self._endpoint.speak()  # `empty` may have made room for what the message carries
        strangers = self._endpoint.strangers(message)
        if sum(map(_cost, strangers.values())) > COPY_BYTES_MAX:
            return None
        blocks: dict[Key, Block | Gift] = {}
        for key, buffer in strangers.items():
            block = self._endpoint.heap.take_warm(key[1])
            if block is None:
                return None
            try:
                self._endpoint.fill(block, buffer)
            except Exception:
                return None  # it fails again where that harms this link alone
            blocks[key] = block
        return self._bind(message, blocks)

    def _bind(self, message: ToWorker, blocks: dict[Key, Block | Gift]) -> ToWorker:
        bound, loans = self._endpoint.bind(message, blocks)
        self._bound[id(message)] = (message, bound, loans)
        ready: ToWorker = bound
        return ready

    def _is_behind(self, message: ToWorker) -> bool:
        """Must it keep its place behind a message of the same call?"""
        call = call_of(message)
        return call is not None and any(call_of(one.message) == call for one in self._waiting)

    def _wait(self, message: ToWorker, on_sent: OnSent) -> None:
        self._waiting.append(Waiting(message, on_sent))
        self._more_waits.set()

    def _tidy(self) -> None:
        """What has been written cannot be withdrawn any more."""
        if self._bound and not self._outbox:
            self._bound.clear()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve_waiting)
            tasks.start_soon(self._trim)
            await super().run()
            tasks.cancel_scope.cancel()

    async def _serve_waiting(self) -> None:
        while True:
            await self._more_waits.wait()
            self._more_waits = anyio.Event()
            while self._waiting:
                await self._serve(self._waiting[0])
            if self._graves:
                await anyio.to_thread.run_sync(self._graves.clear, limiter=self._limiter)

    def _bury(self, segment: Segment) -> None:
        if segment.size > COPY_BYTES_MAX:
            self._graves.append(segment)
            self._more_waits.set()

    async def _trim(self) -> None:
        """Give memory back that has idled for a while, here and in the worker, which is asked to."""
        while True:
            await anyio.sleep(IDLE_TRIM_S)
            heap = self._endpoint.heap
            await self._in_thread(partial(heap.trim, idle_s=IDLE_TRIM_S), heap.idle_bytes)
            heap.speak()
            if self._endpoint.has_borrowed:
                self.send_nowait(Drop(()))

    async def _serve(self, waiting: Waiting) -> None:
        # In a frame of its own: what has been sent is not kept while nothing waits.
        message = waiting.message
        try:
            blocks = await self._copy(message)
            if not self._waiting or self._waiting[0] is not waiting:
                return  # noqa: ASYNC910 - withdrawn; _copy begins with one
            may_refer = is_carrier(message) and self._endpoint.is_up
            ready = self._bind(message, blocks) if may_refer else message
            super()._put(ready, waiting.on_sent)
        except Exception:  # no memory, or whatever the library raises that the value is of
            if not self._waiting or self._waiting[0] is not waiting:
                return  # noqa: ASYNC910 - as above
            _log.exception("a value could not be copied for a worker, which is given up")
            self._lose_peer()
            return  # noqa: ASYNC910 - as above
        self._waiting.popleft()
        self.flush_nowait()

    async def _copy(self, message: ToWorker) -> dict[Key, Block | Gift]:
        """Copy what lies in no segment: to where there is room, else into a segment to be given away."""
        await anyio.lowlevel.checkpoint()
        blocks: dict[Key, Block | Gift] = {}
        if not is_carrier(message) or not self._endpoint.is_up:
            return blocks
        for key, buffer in self._endpoint.strangers(message).items():
            block = await self._room(key[1])
            if block is not None:
                # Taken out there: a thread may keep what it was called with until it is called again.
                job = [(block, buffer)]
                await self._in_thread(partial(self._fill, job), key[1])
                blocks[key] = block
            elif (gift := await self._in_thread(partial(make_gift, buffer), key[1])) is not None:
                blocks[key] = gift
            elif isinstance(buffer, Loose):
                await self._in_thread(partial(buffer.in_a_row), key[1])
        return blocks

    def _fill(self, job: list[tuple[Block, Buffer | Loose]]) -> None:
        self._endpoint.fill(*job.pop())

    async def _room(self, size: int) -> Block | None:
        """A block; waits for one while the budget is spent, but not long, nor in vain twice."""
        heap = self._endpoint.heap
        until = anyio.current_time() + size * PIPE_S_PER_BYTE
        await anyio.lowlevel.checkpoint()
        while True:
            block = heap.take_warm(size)
            if block is None:
                # However little is asked for: a slab may have to be made, or garbage collected.
                block = await anyio.to_thread.run_sync(heap.take, size, limiter=self._limiter)
                heap.speak()
            if block is not None or heap.freed_blocks == self._waited_in_vain_at:
                return block
            if size > heap.arena.budget or anyio.current_time() >= until:
                self._waited_in_vain_at = heap.freed_blocks
                self._warn(size)
                return None
            await anyio.sleep(LOOK_AGAIN_S)

    def _warn(self, size: int) -> None:
        """Once: who holds on to shared memory makes large values slow for everybody."""
        heap = self._endpoint.heap
        age = heap.oldest_lease_s or 0.0
        if age > OLD_LEASE_S and not heap.has_warned:
            heap.has_warned = True
            _log.warning(
                "no room for %d bytes in the shared memory of %d: a worker has looked at an "
                "argument for %.0f s; values are given away meanwhile, or go through the pipes, which "
                "is slower (see ZeroCopy.budget_mb)",
                size,
                heap.arena.budget,
                age,
            )

    async def _in_thread(self, function: partial[Any], size: int) -> Any:
        if size <= COPY_BYTES_MAX // 4:
            await anyio.lowlevel.checkpoint()
            return function()
        return await anyio.to_thread.run_sync(function, limiter=self._limiter)

    def _lose_peer(self) -> None:
        super()._lose_peer()
        self._drop_waiting()

    async def aclose(self) -> None:
        await super().aclose()
        self._drop_waiting()
        self._bound.clear()
        self._endpoint.close()

    def _drop_waiting(self) -> None:
        dropped = list(self._waiting)
        self._waiting.clear()
        for waiting in dropped:
            if waiting.on_sent is not None:
                waiting.on_sent()


def _cost(buffer: Buffer | Loose) -> int:
    """How long it takes to write, in bytes that lie in a row."""
    return len(buffer) * (LOOSE_COST if isinstance(buffer, Loose) else 1)


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
