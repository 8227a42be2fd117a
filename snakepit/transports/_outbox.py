"""What waits to be written to one byte stream: which frame is next; sans-IO.

Small messages go between the frames of large ones, but never past a message of their own call.
A frame once begun is finished; a message can be withdrawn until its last frame has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from snakepit.protocol import Frame, Packer, forget, transfer_of

WRITE_BYTES_MAX: Final = 2**16


class Outgoing:
    """A message on its way. `on_sent` is called once all of it is written."""

    __slots__ = ("frames", "message", "on_sent", "transfers", "upcoming")

    def __init__(
        self, message: Any, frames: Iterator[Frame], on_sent: Callable[[], None] | None
    ) -> None:
        self.message, self.frames, self.on_sent = message, frames, on_sent
        self.transfers: dict[int, None] = {}  # begun, to be forgotten if it is withdrawn
        self.upcoming: Frame | None = next(frames)


class Outbox:
    """The queue of one link, a line for small messages and one for large ones."""

    def __init__(self) -> None:
        self._packer = Packer()
        self._small: deque[Outgoing] = deque()
        self._large: deque[Outgoing] = deque()
        self._writing: deque[bytes | memoryview] = deque()  # the begun frame
        self._finished: list[Outgoing] = []  # to be reported when what was begun is written

    def __bool__(self) -> bool:
        return bool(self._writing or self._small or self._large)

    def put(self, message: Any, on_sent: Callable[[], None] | None = None) -> None:
        """Queue the message."""
        frame = self._packer.pack(message)
        if frame is None:
            self._large.append(Outgoing(message, self._packer.pack_parts(message), on_sent))
            return
        outgoing = Outgoing(message, iter([(frame, None)]), on_sent)
        number = getattr(message, "id", None)
        behind = any(getattr(large.message, "id", None) == number for large in self._large)
        (self._large if behind and number is not None else self._small).append(outgoing)

    def pack(self, message: Any) -> bytes | None:
        """The message as the one frame that it is; None if it goes in parts."""
        return self._packer.pack(message)

    def put_rest(self, rest: memoryview) -> None:
        """Queue the rest of a frame that was begun while nothing waited."""
        assert not self
        self._writing.append(rest)

    def withdraw(self, message: Any) -> bool:
        """Take the message back; False if its last frame has begun."""
        for line in (self._small, self._large):
            for outgoing in line:
                if outgoing.message is message:
                    line.remove(outgoing)
                    for transfer in outgoing.transfers:
                        frames = iter([(forget(transfer), None)])
                        self._small.append(Outgoing(None, frames, None))
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
            return
        self._writing.popleft()
        if not self._writing and self._finished:
            finished, self._finished = self._finished, []
            _report(finished)

    def clear(self) -> None:
        """Drop everything: the other side is gone. Those who wait are told that it is over."""
        dropped = [*self._small, *self._large, *self._finished]
        self._small.clear()
        self._large.clear()
        self._writing.clear()
        self._finished = []
        _report(dropped)

    def _begin_small(self) -> None:
        """Begin as many small messages as go well into one write."""
        frames: list[bytes] = []
        room = WRITE_BYTES_MAX
        while self._small and (room > 0 or not frames):
            outgoing = self._small.popleft()
            assert outgoing.upcoming is not None
            frame = outgoing.upcoming[0]
            frames.append(frame)
            room -= len(frame)
            self._finished.append(outgoing)
        self._writing.append(b"".join(frames) if len(frames) > 1 else frames[0])

    def _begin_large(self) -> None:
        outgoing = self._large[0]
        assert outgoing.upcoming is not None
        head, data = outgoing.upcoming
        self._writing.append(head)
        if data is not None:
            if len(data):
                self._writing.append(data)
            outgoing.transfers[transfer_of(head)] = None
        outgoing.upcoming = next(outgoing.frames, None)
        if outgoing.upcoming is None:
            self._large.popleft()
            self._finished.append(outgoing)


def _report(finished: list[Outgoing]) -> None:
    for outgoing in finished:
        if outgoing.on_sent is not None:
            outgoing.on_sent()
