"""A transport over one Unix socket: the worker's stdin and stdout are the same descriptor."""

import os
import socket

import anyio

from snakepit.transports import (
    ByteChannel,
    ByteStream,
    Channel,
    Link,
    Transport,
    close_fds,
    guard_fds,
)


class SocketStream(ByteStream):
    """The host's end: bytes in and out of a non-blocking socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._closed = False

    def read(self, count_max: int) -> bytes:
        """Take what has come."""
        try:
            return os.read(self._fd, count_max)
        except ConnectionResetError:  # it left with words of ours unread: an end like any other
            return b""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Give what the socket has room for."""
        return os.write(self._fd, data)

    async def until_readable(self) -> None:
        """Wait for bytes, or for the end."""
        await anyio.wait_readable(self._fd)

    async def until_writable(self) -> None:
        """Wait for room."""
        await anyio.wait_writable(self._fd)

    def wake_reader(self) -> None:
        """Make `until_readable` raise ClosedResourceError."""
        if not self._closed:
            anyio.notify_closing(self._fd)

    def close(self) -> None:
        """Wake both waits, then close."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._fd)
            close_fds(self._fd)


class SocketLink(Link):
    """Both ends of a socket pair, until the worker's process has the one and the pool the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._ours, self.stdin = ours.detach(), theirs.detach()
        self.stdout = self.stdin
        guard_fds(self._ours, self.stdin)  # a forked child of the host must hold neither

    def worker_started(self) -> None:
        """Close the end that the process has inherited."""
        close_fds(self.stdin)
        self.stdin = self.stdout = -1  # the number may soon be another file's

    def connect(self) -> Channel:
        """Hand our end to a channel, which closes it."""
        stream, self._ours = SocketStream(self._ours), -1
        return ByteChannel(stream)

    def close(self) -> None:
        """Close what nobody has taken."""
        self.worker_started()
        close_fds(self._ours)
        self._ours = -1


class SocketTransport(Transport):
    """Frames over a socket pair: `open_pool(adapter, transport=SocketTransport())`."""

    name = "socket"

    def open_link(self) -> Link:
        """Make a link for one worker."""
        return SocketLink()
