"""`stdio`: frames over two plain pipes, the worker's stdin and stdout.

Plain pipes, so that any argv can stand between host and worker (`ssh host python -m
snakepit.worker …`). Reading and writing never block: what the pipe does not take at once waits
in the outbox for `run`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Final

import anyio
import anyio.lowlevel

from snakepit.errors import ProtocolError
from snakepit.process import close_fds, fork_generation, guard_fds
from snakepit.protocol import ToHost, ToWorker, Unpacker, decode_to_host
from snakepit.transports._base import Channel, Link, Transport
from snakepit.transports._outbox import Outbox

READ_BYTES_MAX: Final = 2**16
READS_MAX: Final = 8  # in a row, before others may run
LAST_WORDS_S: Final = 0.5  # of silence, from a worker that has closed its stdin and not its stdout
PIPE_BYTES_WANTED: Final = 2**20


class StdioChannel(Channel):
    """The host's end of two pipes."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._unpacker: Unpacker[ToHost] = Unpacker(decode_to_host)
        self._outbox = Outbox()
        self._poked = anyio.Event()
        self._reading = anyio.ResourceGuard("receiving from")
        self._peer_gone = self._closed = False
        self._generation = fork_generation()
        guard_fds(read_fd, write_fd)

    def send_nowait(self, message: ToWorker) -> bool:
        if self._closed or self._peer_gone:
            return False
        waiting = bool(self._outbox)
        self._outbox.put(message)
        if not waiting:
            self._flush()
        if self._outbox:
            self._poked.set()
        return not self._peer_gone

    async def send(self, message: ToWorker) -> None:
        await anyio.lowlevel.checkpoint()
        self._check_open()
        sent = anyio.Event()
        self._outbox.put(message, sent.set)
        self._poked.set()
        try:
            await sent.wait()
        except BaseException:
            self.withdraw(message)
            raise
        self._check_open()

    def withdraw(self, message: ToWorker) -> bool:
        withdrawn = self._outbox.withdraw(message)
        if self._outbox:
            self._poked.set()
        return withdrawn

    async def receive(self) -> list[ToHost]:
        with self._reading:
            while True:
                if self._closed:
                    await anyio.lowlevel.checkpoint()
                    raise anyio.ClosedResourceError
                if self._unpacker.broken:
                    await anyio.lowlevel.checkpoint()
                    raise ProtocolError(self._unpacker.broken)
                await self._wait_readable()
                messages = self._read_available()
                if messages:
                    return messages

    async def _wait_readable(self) -> None:
        if self._generation != fork_generation():
            await anyio.lowlevel.checkpoint()
            raise anyio.BrokenResourceError  # our descriptors are closed here
        if not self._peer_gone:
            try:
                await anyio.wait_readable(self._read_fd)
            except anyio.ClosedResourceError:
                if not self._peer_gone:
                    raise  # `aclose`; else `_flush` has woken us, to wait in another way
            else:
                return
        # A worker that has ended said its last words before. One that only hears no more would
        # take every call without a word.
        with anyio.move_on_after(LAST_WORDS_S):
            await anyio.wait_readable(self._read_fd)
            return
        raise anyio.BrokenResourceError

    def _read_available(self) -> list[ToHost]:
        messages: list[ToHost] = []
        for _ in range(READS_MAX):
            try:
                chunk = os.read(self._read_fd, READ_BYTES_MAX)
            except BlockingIOError:
                return messages
            except OSError as error:
                raise anyio.BrokenResourceError from error
            if not chunk:
                if messages:
                    return messages  # the end is still there for the next call
                if self._unpacker.mid_message:
                    raise anyio.BrokenResourceError
                raise anyio.EndOfStream
            messages += self._unpacker.feed(chunk)
            if len(chunk) < READ_BYTES_MAX or self._unpacker.broken:
                break
        return messages

    async def run(self) -> None:
        while True:
            await self._poked.wait()
            self._poked = anyio.Event()
            while not self._flush():
                try:
                    await anyio.wait_writable(self._write_fd)
                except anyio.ClosedResourceError:
                    return  # by `aclose`, which has told those who wait

    def _flush(self) -> bool:
        """Write what the pipe takes; True when nothing waits any more."""
        outbox = self._outbox
        while (data := outbox.next_bytes()) is not None:
            if self._generation != fork_generation():
                self._peer_gone = True  # our descriptors are closed here
                outbox.clear()
                return True
            try:
                outbox.wrote(os.write(self._write_fd, data))
            except BlockingIOError:
                return False
            except OSError:
                self._peer_gone = True  # `receive` tells; what waited can reach nobody
                outbox.clear()
                anyio.notify_closing(self._read_fd)  # wakes `receive`
        return True

    async def aclose(self) -> None:  # noqa: ASYNC910 - closing never waits
        if self._closed:
            return  # noqa: ASYNC910 - as above
        self._closed = True
        self._outbox.clear()
        for fd in (self._read_fd, self._write_fd):
            anyio.notify_closing(fd)
            close_fds(fd)

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._peer_gone:
            raise anyio.BrokenResourceError


class StdioLink(Link):
    """Two pipes, before and after the worker's process has taken its ends."""

    def __init__(self) -> None:
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
        return StdioChannel(self._read_fd, self._write_fd)

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
