"""`stdio`: frames over two plain pipes, the worker's stdin and stdout.

Plain pipes, so that any argv can stand between host and worker (`ssh host python -m
snakepit.worker …`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

import anyio
import anyio.lowlevel

from snakepit._loops import this_loop
from snakepit.process import close_fds, fork_generation, guard_fds
from snakepit.protocol import Buffer
from snakepit.transports._base import Channel, Link, Transport
from snakepit.transports._byte_channel import ByteChannel, ByteStream

PIPE_BYTES_WANTED: Final = 2**20


class PipeStream(ByteStream):
    """Two pipes, both non-blocking. In a forked child they are closed, and it says so."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._generation = fork_generation()
        self._closed = False
        self._readable = this_loop().readable(read_fd)
        guard_fds(read_fd, write_fd)

    @property
    def _is_ours(self) -> bool:
        return self._generation == fork_generation()

    def read(self, count_max: int) -> bytes:
        return os.read(self._read_fd, count_max)

    def write(self, data: Buffer) -> int:
        if self._generation != fork_generation():
            raise BrokenPipeError("a forked child of the host has no part in this link")
        return os.write(self._write_fd, data)

    def until_readable(self) -> Awaitable[None]:
        return self._readable.wait() if self._is_ours else self._broken()

    async def _broken(self) -> None:
        await anyio.lowlevel.checkpoint()
        raise anyio.BrokenResourceError

    async def until_writable(self) -> None:
        await anyio.wait_writable(self._write_fd)

    def wake_reader(self) -> None:
        if self._is_ours and not self._closed:
            self._readable.wake()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._is_ours:  # a forked child shares the loop's epoll with its parent
            self._readable.wake()
            anyio.notify_closing(self._write_fd)
        close_fds(self._read_fd, self._write_fd)


class StdioLink(Link):
    """Two pipes, before and after the worker's process has taken its ends."""

    def __init__(self) -> None:
        self.stdin: int
        self.stdout: int
        self.stdin, self._write_fd = os.pipe()
        try:
            self._read_fd, self.stdout = os.pipe()
        except OSError:
            os.close(self.stdin)
            os.close(self._write_fd)
            raise
        self._open = {self.stdin, self.stdout, self._read_fd, self._write_fd}
        guard_fds(*self._open)
        for fd in (self._read_fd, self._write_fd):
            os.set_blocking(fd, False)
            with suppress(OSError, AttributeError):  # over the user's limit, or not Linux
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES_WANTED)

    def worker_started(self) -> None:
        self._close(self.stdin, self.stdout)

    def connect(self) -> Channel:
        self._open -= {self._read_fd, self._write_fd}
        return ByteChannel(PipeStream(self._read_fd, self._write_fd))

    def close(self) -> None:
        self._close(*self._open)

    def _close(self, *fds: int) -> None:
        for fd in fds:
            if fd in self._open:
                self._open.remove(fd)
                close_fds(fd)


class StdioTransport(Transport):
    """msgpack frames over the worker's stdin and stdout."""

    name = "stdio"

    def open_link(self) -> Link:
        return StdioLink()
