"""A link with shared memory: all messages go through the pipes, and large buffers do not.

They are put into shared memory before, and the message refers to them. Such a message is
small, and is written at once if that takes no time: when the buffers lie in shared memory already,
or are copied soon. Else it waits in a line of its own until `run` has had them copied, in a
thread. Where no shared memory is to be had in time the buffers go through the pipe.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import Any

import anyio
from trio.lowlevel import enable_ki_protection

from snakepit.errors import SerializationError
from snakepit.protocol import (
    CARRIERS,
    Drop,
    Loose,
    OnSent,
    ToWorker,
    call_of,
    decode_to_host,
)
from snakepit.shm import (
    IDLE_TRIM_S,
    Block,
    Endpoint,
    Gift,
    Key,
    Loan,
    Segment,
    ShmUnpacker,
    is_carrier,
)
from snakepit.transports._byte_channel import ByteChannel, ByteStream
from snakepit.transports._shm_copies import COPY_BYTES_MAX, Copies

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
        self._copies = Copies(endpoint)
        self._failed: dict[int, Exception] = {}  # of messages that a task waits to have sent

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

    # Nothing of shared memory may cost a call that has nothing to do with it: not even `super()`.

    def send_nowait(self, message: ToWorker) -> bool:
        if not (self._waiting or (type(message) in CARRIERS and message.buffers)):  # type: ignore[union-attr]
            return ByteChannel.send_nowait(self, message)
        if self._closed or self._peer_gone:
            return False
        ready = self._bind_now(message)
        if ready is None:
            self._wait(message, None)
            return True
        sent = ByteChannel.send_nowait(self, ready)
        self._tidy()
        return sent

    def queue_nowait(self, message: ToWorker) -> bool:
        if not (self._waiting or (type(message) in CARRIERS and message.buffers)):  # type: ignore[union-attr]
            return ByteChannel.queue_nowait(self, message)
        if self._closed or self._peer_gone:
            return False
        self._put(message, None)
        return True

    def _flush(self) -> bool:
        done = ByteChannel._flush(self)
        if self._bound:
            self._tidy()
        return done

    async def send(self, message: ToWorker) -> None:
        error: Exception | None = None
        try:
            await super().send(message)
        finally:
            error = self._failed.pop(id(message), None)
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle is left, which would keep the message

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
        withdrawn = super().withdraw(known[1])
        if withdrawn:
            self._unbind(message)
        return withdrawn

    def _bind_now(self, message: ToWorker) -> ToWorker | None:
        """The message as it is to be packed; None if it must wait."""
        if self._waiting and self._is_behind(message):
            return None
        if not is_carrier(message):
            return message
        if not self._endpoint.is_up:
            return None if _has_loose(message) else message
        self._endpoint.speak()  # `empty` may have made room for what the message carries
        blocks = self._copies.make_now(message)
        if blocks is None:
            return None
        try:
            return self._bind(message, blocks)
        except Exception:
            return None  # it fails again where that harms this message alone

    def _bind(self, message: ToWorker, blocks: dict[Key, Block | Gift]) -> ToWorker:
        bound, loans = self._endpoint.bind(message, blocks)
        self._bound[id(message)] = (message, bound, loans)
        ready: ToWorker = bound
        return ready

    def _unbind(self, message: ToWorker) -> None:
        """It is not sent after all."""
        known = self._bound.pop(id(message), None)
        if known is not None:
            self._endpoint.take_back(known[2])
            self._endpoint.speak()

    def _is_behind(self, message: ToWorker) -> bool:
        """Must it keep its place behind a message of the same call?"""
        call = call_of(message)
        return call is not None and any(call_of(one.message) == call for one in self._waiting)

    def _wait(self, message: ToWorker, on_sent: OnSent) -> None:
        self._waiting.append(Waiting(message, on_sent))
        self._more_waits.set()

    def _tidy(self) -> None:
        """What has been written cannot be withdrawn any more."""
        if not self._outbox:
            self._bound.clear()

    @enable_ki_protection
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
                await self._copies.in_thread(partial(self._graves.clear), COPY_BYTES_MAX)

    def _bury(self, segment: Segment) -> None:
        if segment.size > COPY_BYTES_MAX:
            self._graves.append(segment)
            self._more_waits.set()

    async def _trim(self) -> None:
        """Give memory back that has idled for a while, here and in the worker, which is asked to."""
        while True:
            await anyio.sleep(IDLE_TRIM_S)
            heap = self._endpoint.heap
            await self._copies.in_thread(partial(heap.trim, idle_s=IDLE_TRIM_S), heap.idle_bytes)
            heap.speak()
            if self._endpoint.has_borrowed:
                self.send_nowait(Drop(()))

    async def _serve(self, waiting: Waiting) -> None:  # noqa: ASYNC910 - `make` is one
        # In a frame of its own: what has been sent is not kept while nothing waits.
        message, error = waiting.message, None
        try:
            blocks = await self._copies.make(message)
            if self._is_withdrawn(waiting):
                return  # noqa: ASYNC910 - `make` begins with one
            may_refer = is_carrier(message) and self._endpoint.is_up
            ready = self._bind(message, blocks) if may_refer else message
            super()._put(ready, waiting.on_sent)
        except Exception as failure:  # no memory, or what the value's own library raises
            if self._is_withdrawn(waiting):
                return  # noqa: ASYNC910 - as above
            self._unbind(message)
            error = _told(failure)
        self._waiting.popleft()
        if error is not None:
            self._fail(waiting, error)
        self.flush_nowait()

    def _is_withdrawn(self, waiting: Waiting) -> bool:
        return not self._waiting or self._waiting[0] is not waiting

    def _fail(self, waiting: Waiting, error: Exception) -> None:
        """The message cannot be written: whoever it is from is told, and the link goes on."""
        if waiting.on_sent is not None:
            self._failed[id(waiting.message)] = error
            waiting.on_sent()
        elif self.on_unsendable is not None:
            self.on_unsendable(waiting.message, error)
        else:
            _log.error("a worker could not be told what it must know: %s", error)
            self._lose_peer()

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


def _has_loose(message: Any) -> bool:
    """Has something of it to be put in a row before it can be written?"""
    return any(isinstance(buffer, Loose) for buffer in message.buffers)


def _told(error: Exception) -> Exception:
    """The error as whoever the message is from gets it, without frames, which would keep the value."""
    if not isinstance(error, MemoryError | SerializationError):
        problem = f"a value could not be written: {type(error).__name__}: {str(error)[:300]}"
        error.__traceback__ = None
        error = SerializationError(problem)
    return error.with_traceback(None)
