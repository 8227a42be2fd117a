"""What one peer has shown or given: taken in from beside the messages, checked, known by its numbers.

A peer's record is asked for when a message first names what it shows, so it is there by then, or was
never sent. Unless this process may open no more descriptors: then it is taken in once that has changed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from snakepit.errors import ProtocolError
from snakepit.shm import _fd_socket as kinds
from snakepit.shm._fd_socket import NoDescriptorError
from snakepit.shm._segments import Segment, is_spare, open_shown

if TYPE_CHECKING:
    from snakepit.shm._fd_socket import FdSocket
    from snakepit.shm._heap import Heap
    from snakepit.shm._memory import Mapping

SEGMENTS_SHOWN_MAX: Final = 65_536  # by one peer
GIFTS_FROM: Final = 2**62  # their numbers, so that none is ever that of a segment which is shown
GIVEN_MAX: Final = 1024  # that no message has referred to yet


class Shown:
    """The receiving side of the socket of one endpoint, its `owner`."""

    def __init__(self, owner: object, heap: Heap, fds: FdSocket) -> None:
        self._owner, self._heap, self._fds = owner, heap, fds
        self.segments: dict[int, Segment] = {}  # by the number that the peer told us
        self.given: dict[int, Mapping] = {}  # to us for good, likewise
        self.has_greeted: bool = False
        self._unseen: set[int] = set()  # which are no more, though they were never taken in
        self._in_want = False  # of a descriptor, when it was last looked
        self._closed = False

    def segment(self, number: int) -> Segment | None:
        """The segment of that number; None: it was never shown. Raises ProtocolError."""
        segment = self.segments.get(number)
        if segment is None:
            self.read_records()
            segment = self.segments.get(number)
        return segment

    def gift(self, number: int) -> Mapping | None:
        """What was given by that number and not referred to so far. Raises ProtocolError."""
        mapping = self.given.get(number)
        if mapping is None:
            self.read_records()
            mapping = self.given.get(number)
        return mapping

    def drop(self, number: int) -> Segment | None:
        """It is no more: the segment that was shown so, if it is one. Raises ProtocolError."""
        if number >= GIFTS_FROM:
            if self.given.pop(number, None) is None and self._in_want:
                self._leave_unseen(number)
            return None  # its message was not sent after all, or is read
        segment = self.segments.pop(number, None)
        if segment is None:
            if not self._in_want:
                raise ProtocolError("a segment was given up that was never shown")
            self._leave_unseen(number)
        return segment

    def _leave_unseen(self, number: int) -> None:
        if len(self._unseen) >= SEGMENTS_SHOWN_MAX:
            raise ProtocolError(f"more than {SEGMENTS_SHOWN_MAX} segments were given up unseen")
        self._unseen.add(number)

    def read_records(self) -> None:
        """Take in what has come beside the messages. Raises NoDescriptorError, and other ProtocolErrors."""
        self._in_want = False
        while not self._closed:
            try:
                record = self._fds.receive()
            except NoDescriptorError:
                self._in_want = True
                raise
            if record is None:
                return
            kind, number, size, fd = record
            if kind == kinds.HELLO:
                self.has_greeted = True
            elif number in self._unseen and fd >= 0:
                self._unseen.remove(number)
                os.close(fd)
            elif kind == kinds.SHOW:
                self._take_shown(number, size, fd)
            elif kind == kinds.GIVE:
                self._take_given(number, size, fd)
            else:
                if fd >= 0:
                    os.close(fd)
                raise ProtocolError(f"a record of unknown kind {kind} came beside the messages")

    def _take_shown(self, number: int, size: int, fd: int) -> None:
        try:
            if number in self.segments or not 0 < number < GIFTS_FROM:
                raise ProtocolError("a segment was shown under a number that is taken")
            if len(self.segments) >= SEGMENTS_SHOWN_MAX:
                raise ProtocolError(f"more than {SEGMENTS_SHOWN_MAX} segments were shown")
            segment = self._heap.enter(fd, open_shown(fd, size))
        except BaseException:
            os.close(fd)
            raise
        segment.owner, segment.owners_number = self._owner, number
        if not is_spare(fd):
            segment.close_fd()  # then it is copied when it is sent on
        self.segments[number] = segment

    def _take_given(self, number: int, size: int, fd: int) -> None:
        try:
            if number in self.given or not GIFTS_FROM <= number < 2**63:
                raise ProtocolError("a segment was given under a number that is taken")
            if len(self.given) >= GIVEN_MAX:
                raise ProtocolError(
                    f"more than {GIVEN_MAX} segments were given before their messages"
                )
            self.given[number] = open_shown(fd, size)
        finally:
            os.close(fd)

    def close(self) -> list[Segment]:
        """Nothing more is taken in; the segments that were shown."""
        self._closed = True
        segments = list(self.segments.values())
        self.segments.clear()
        self.given.clear()
        return segments
