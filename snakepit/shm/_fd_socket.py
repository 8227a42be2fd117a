"""Descriptors over a Unix socket, beside the link of messages: how segments are shown.

A record of a fixed size and at most one descriptor go together in one write, so a read of one
record finds its descriptor with it. Nothing here waits: what the socket does not take now is
not sent, and a record that should be there and is not is a breach of the protocol. A plain `recv`
would lose descriptors without a word, and so would one without room for them; both ends look.
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

        Raises ProtocolError.
        """
        room = socket.CMSG_SPACE(FDS_MAX * _FD.size)
        try:
            data, control, flags, _ = self._socket.recvmsg(RECORD.size, room, CLOEXEC)
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
        try:
            return self._checked(data, flags, fds)
        except ProtocolError:
            for fd in fds:
                os.close(fd)
            raise

    def _checked(self, data: bytes, flags: int, fds: list[int]) -> Record:
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError(
                "a descriptor was lost on its way: this process may open no more of them "
                "(RLIMIT_NOFILE), or too many came at once"
            )
        if len(data) != RECORD.size:
            raise ProtocolError(f"a record of {len(data)} bytes came beside the messages")
        kind, first, second = RECORD.unpack(data)
        wanted = 1 if kind in _WITH_FD else 0
        if len(fds) != wanted:
            raise ProtocolError(f"{len(fds)} descriptors came with a record that has {wanted}")
        for fd in fds:
            os.set_inheritable(fd, False)
        return kind, first, second, fds[0] if fds else -1

    def close(self) -> None:
        """Close this end; idempotent."""
        self._socket.close()
