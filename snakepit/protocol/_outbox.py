"""What waits to be written to one byte stream: which frame is next; sans-IO.

Small messages go between the frames of large ones, but never past a message of their own call.
A frame once begun is finished; a message can be withdrawn until its last frame has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from ._messages import HostFailure, HostReply
from ._parts import Frame, Packer, forget, transfer_of

WRITE_BYTES_MAX: Final = 2**16
_ANSWERS: Final = (HostReply, HostFailure)

OnSent = Callable[[], None] | None
Small = tuple[Any, bytes, OnSent]  # a message, its frame


def call_of(message: Any) -> int | None:
    """The number of the call among whose messages it keeps its place.

    What answers a host call has another number, which the worker gave it, and keeps no place.
    """
    return None if type(message) in _ANSWERS else getattr(message, "id", None)


class Large:
    """A message on its way in several frames, or behind such a one."""

    __slots__ = ("frames", "message", "on_sent", "transfers", "upcoming")

    def __init__(self, message: Any, frames: Iterator[Frame], on_sent: OnSent) -> None:
        self.message, self.frames, self.on_sent = message, frames, on_sent
        self.transfers: dict[int, None] = {}  # begun, to be forgotten if it is withdrawn
        self.upcoming: Frame | None = next(frames)


class Outbox:
    """The queue of one link, a line for small messages and one for large ones.

    Small ones that wait together are written together.

    `on_sent` of a message is called once all of it is written, or never will be.
    """

    def __init__(self) -> None:
        self._packer = Packer()
        self.pack: Callable[[Any], bytes | None] = self._packer.pack  # None: it goes in parts
        self._small: deque[Small] = deque()
        self._large: deque[Large] = deque()
        self._writing: deque[bytes | memoryview] = deque()  # what was begun
        self.written: int = 0  # bytes of this stream
        self._begun = 0
        self._ends: deque[tuple[int, Callable[[], None]]] = deque()  # whom to tell, and when

    def __bool__(self) -> bool:
        return bool(self._writing or self._small or self._large)

    def put(self, message: Any, on_sent: OnSent = None) -> None:
        """Queue the message."""
        frame = self.pack(message)
        if frame is None:
            self._large.append(Large(message, self._packer.pack_parts(message), on_sent))
        elif self._large and self._is_behind(message):
            self._large.append(Large(message, iter([(frame, None)]), on_sent))
        else:
            self._small.append((message, frame, on_sent))

    def put_rest(self, rest: memoryview) -> None:
        """Queue the rest of a frame that was begun while nothing waited."""
        assert not self
        self._write(rest)

    def withdraw(self, message: Any) -> bool:
        """Take the message back; False if its last frame has begun."""
        for small in self._small:
            if small[0] is message:
                self._small.remove(small)
                return True
        for large in self._large:
            if large.message is message:
                self._large.remove(large)
                for transfer in large.transfers:
                    self._small.append((None, forget(transfer), None))
                return True
        return False

    def next_bytes(self) -> bytes | memoryview | None:
        """What to write now; the same again until `wrote` says that it was written."""
        if not self._writing:
            if self._small:
                self._begin_small()
            elif self._large:
                self._begin_large()
            else:
                return None
        return self._writing[0]

    def wrote(self, count: int) -> None:
        """So many of the bytes that `next_bytes` gave are written."""
        data = self._writing[0]
        if count < len(data):
            self._writing[0] = memoryview(data)[count:]
        else:
            self._writing.popleft()
        self.written += count
        while self._ends and self._ends[0][0] <= self.written:
            self._ends.popleft()[1]()

    def clear(self) -> None:
        """Drop everything: the other side is gone. Those who wait are told that it is over."""
        dropped = [
            *(on_sent for _, on_sent in self._ends),
            *(on_sent for _, _, on_sent in self._small),
            *(large.on_sent for large in self._large),
        ]
        self._writing.clear()
        self._ends.clear()
        self.written = self._begun
        self._small.clear()
        self._large.clear()
        for on_sent in dropped:
            if on_sent is not None:
                on_sent()

    def _is_behind(self, message: Any) -> bool:
        """Must it keep its place behind a large message of the same call?"""
        call = call_of(message)
        return call is not None and any(call_of(large.message) == call for large in self._large)

    def _begin_small(self) -> None:
        """Begin as many small messages as go well into one write."""
        frames: list[bytes] = []
        size = 0
        while self._small and size < WRITE_BYTES_MAX:
            _, frame, on_sent = self._small.popleft()
            frames.append(frame)
            size += len(frame)
            if on_sent is not None:
                self._ends.append((self._begun + size, on_sent))
        self._write(frames[0] if len(frames) == 1 else b"".join(frames))

    def _write(self, data: bytes | memoryview) -> None:
        self._writing.append(data)
        self._begun += len(data)

    def _begin_large(self) -> None:
        large = self._large[0]
        assert large.upcoming is not None
        head, data = large.upcoming
        self._write(head)
        if data is not None:
            if len(data):
                self._write(data)
            large.transfers[transfer_of(head)] = None
        large.upcoming = next(large.frames, None)
        if large.upcoming is None:
            self._large.popleft()
            if large.on_sent is not None:
                self._ends.append((self._begun, large.on_sent))
