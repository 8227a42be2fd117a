"""Descriptors over a Unix socket, beside the link of messages: how segments are shown.

A record of a fixed size and at most one descriptor go together in one write, so a read of one
record finds its descriptor with it. Nothing here waits: what the socket does not take now is
not sent, and a record that should be there and is not is a breach of the protocol. A plain `recv`
would lose descriptors without a word, and so would one without room for them; both ends look, before they
take a record, so that one whose descriptor this process has no number for stays where it is.
The socket is that of `_socket`: `socket` adds nothing that is used here, and each worker would pay for its import.
"""

from __future__ import annotations

import _socket as socket
import os
import struct
from typing import Final, TypeAlias

from snakepit.errors import ProtocolError

RECORD: Final = struct.Struct("<QQQ")  # kind, and two numbers
_FD: Final = struct.Struct("i")
FDS_MAX: Final = 4  # room for more than ever comes, so that too many are seen
CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

SETUP: Final = 1  # host → worker: threshold, budget; with the ledger
HELLO: Final = 2  # worker → host: it understands references
SHOW: Final = 3  # number and size of a segment; with the segment
GIVE: Final = 4  # the same; it is the receiver's from now on
_WITH_FD: Final = (SETUP, SHOW, GIVE)

Record: TypeAlias = tuple[int, int, int, int]  # kind, two numbers, descriptor or -1


class NoDescriptorError(ProtocolError):
    """This process may open no more descriptors. The record waits until it may."""


class FdSocket:
    """One end of the socket, non-blocking."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)

    def send(self, kind: int, first: int = 0, second: int = 0, fd: int = -1) -> bool:
        """Send a record; False if that cannot be done now, or never."""
        control: list[tuple[int, int, bytes]] = []
        if fd >= 0:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(fd))]
        try:
            sent = self._socket.sendmsg([RECORD.pack(kind, first, second)], control)
        except OSError:
            return False  # full, too many descriptors on their way, or nobody is there
        return sent == RECORD.size

    def receive(self) -> Record | None:
        """The next record, None if there is none. The descriptor is the caller's.

        Raises NoDescriptorError, and any other ProtocolError for what is no record.
        """
        found = self._read(CLOEXEC | socket.MSG_PEEK)
        if found is None:
            return None
        data, fds, is_cut = found
        may_stay = _kind_of(data) in _WITH_FD
        if not may_stay:
            _close(fds)  # a look goes on to the descriptors of the record behind it
            found = self._read(CLOEXEC)
            assert found is not None
            data, fds, is_cut = found
        try:
            record = _checked(data, fds, is_cut)
        except ProtocolError:
            _close(fds)
            raise
        if may_stay:
            self._socket.recv(RECORD.size)
        return record

    def _read(self, flags: int) -> tuple[bytes, list[int], bool] | None:
        """Bytes, their descriptors, and whether some of these are lost. None: nothing has come."""
        room = socket.CMSG_SPACE(FDS_MAX * _FD.size)
        try:
            data, control, told, _ = self._socket.recvmsg(RECORD.size, room, flags)
        except (BlockingIOError, ConnectionResetError):
            return None  # of a peer that is gone the messages tell
        except OSError as error:
            raise ProtocolError(f"no descriptor can be received: {error}") from error
        if not data:
            return None
        fds: list[int] = []
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = content[: len(content) - len(content) % _FD.size]
                fds += [fd for (fd,) in _FD.iter_unpack(whole)]
        return data, fds, bool(told & socket.MSG_CTRUNC)

    def close(self) -> None:
        """Close this end; idempotent."""
        self._socket.close()


def _kind_of(data: bytes) -> int:
    return int(RECORD.unpack(data)[0]) if len(data) == RECORD.size else 0


def _checked(data: bytes, fds: list[int], is_cut: bool) -> Record:  # noqa: FBT001 - three facts
    if is_cut and not fds:
        raise NoDescriptorError(
            "a descriptor cannot be received: this process may open no more of them (RLIMIT_NOFILE)"
        )
    if is_cut:
        raise ProtocolError("a descriptor was lost on its way: too many came at once")
    if len(data) != RECORD.size:
        raise ProtocolError(f"a record of {len(data)} bytes came beside the messages")
    kind, first, second = RECORD.unpack(data)
    wanted = 1 if kind in _WITH_FD else 0
    if len(fds) != wanted:
        raise ProtocolError(f"{len(fds)} descriptors came with a record that has {wanted}")
    for fd in fds:
        os.set_inheritable(fd, False)
    return kind, first, second, fds[0] if fds else -1


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
