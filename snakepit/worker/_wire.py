"""The worker's end of the stdio transport: private file descriptors, blocking reads and writes.

`open_wire` moves the protocol off fds 0 and 1 before any user code is imported: from then on
fd 0 reads nothing and fd 1 is stderr, so whatever a tool, a C library or a child process
prints can never reach the host as a frame.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from _thread import allocate_lock
from collections.abc import Callable
from types import CodeType
from typing import NoReturn

from snakepit.errors import ProtocolError
from snakepit.protocol import Buffer, Packer, Places, ToHost, ToWorker, Unpacker, decode_to_worker

READ_BYTES_MAX = 2**16
SHM_VARIABLE = "SNAKEPIT_SHM_FD"  # where a host offers shared memory: the number of a descriptor
GRPC_VARIABLE = "SNAKEPIT_GRPC_FD"  # where a host wants gRPC: the number of a listening socket
GRACE_VARIABLE = "SNAKEPIT_TERM_GRACE"  # `Stop.term_grace` of a host on this machine


class Wire:
    """One duplex link of messages. Reading is the I/O thread's, writing anybody's."""

    places: Places | None = None
    is_direct = True  # from the host; not from another thread of this process
    term_grace_s: float | None = None  # of the host; None where it has said none
    has_own_host = False  # in this process; then Ctrl+C of the terminal is for it
    last_act: Callable[[], object] | None = (
        None  # of whoever ends this process from outside its main thread
    )

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._unpacker: Unpacker[ToWorker] = Unpacker(decode_to_worker)
        self._packer = Packer()
        self._lock = allocate_lock()
        self._door = allocate_lock()  # held by the one who is the next to have the lock

    def receive(self) -> list[ToWorker] | None:
        """Wait for bytes; return the messages they complete, None at the end of the stream."""
        if self._unpacker.broken:
            raise ProtocolError(self._unpacker.broken)
        chunk = os.read(self._read_fd, READ_BYTES_MAX)
        return self._unpacker.feed(chunk) if chunk else None

    def protect(self, seams: set[CodeType]) -> None:
        """Add the code of its own that may run in the middle of a tool, and must not be interrupted."""

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._read_fd

    @property
    def is_closed(self) -> bool:
        """True in a child that a tool has forked: it has no part in the conversation."""
        return self._write_fd < 0

    def send(self, message: ToHost) -> None:
        """Write the whole message. Raises OSError when the host is gone."""
        if self._write_fd < 0:
            _end_forked_child()
        frame = self._packer.pack(message)
        if frame is not None:
            if not self._lock.acquire(False):
                self._wait_for_lock()
            try:
                self._write(frame)
            finally:
                self._lock.release()
            return
        # Between the parts it is the turn of those who wait: a reply never waits for a large value.
        for head, data in self._packer.pack_parts(message):
            self._wait_for_lock()
            try:
                self._write(head)
                if data is not None:
                    self._write(data)
            finally:
                self._lock.release()

    def _wait_for_lock(self) -> None:
        """Take the lock in one's turn: a lock alone goes as a rule to the one who has just had it."""
        with self._door:
            self._lock.acquire()

    def send_taken(self, take: Callable[[], ToHost | None], *, wait: bool) -> bool:
        """Write the small message that `take` gives when it is its turn, and nothing if it gives None.

        False if other messages are being written and `wait` is False; then it is not asked. Raises OSError as `send`.
        """
        if self.is_closed:
            _end_forked_child()
        if not self._lock.acquire(False):
            if not wait:
                return False
            self._wait_for_lock()
        try:
            message = take()
            if message is not None:
                frame = self._packer.pack(message)
                assert frame is not None
                self._write(frame)
        finally:
            self._lock.release()
        return True

    def _write(self, data: Buffer) -> None:
        written = os.write(self._write_fd, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(self._write_fd, rest) :]

    def finish(self) -> None:
        """Wait until all that was sent is on its way, for a moment: the process ends next."""

    def begin_drain(self) -> bool:
        """SIGTERM came: True if whoever is behind this wire sees to a good end by itself."""
        return False

    def grace_of(self, number: int) -> float | None:
        """How long this call may take to end once it is cancelled, where it is not as Start says."""
        del number
        return None

    def close(self) -> None:
        """Close both descriptors; used in forked children, which must not hold the link open."""
        for fd in (self._read_fd, self._write_fd):
            try:
                os.close(fd)
            except OSError:
                pass
        self._read_fd = self._write_fd = -1  # the numbers may soon be those of other files


def open_wire() -> Wire:
    """Take fds 0 and 1 for the protocol and leave harmless ones in their place."""
    names = SHM_VARIABLE, GRPC_VARIABLE, GRACE_VARIABLE
    shm_fd, grpc_fd, grace = (os.environ.pop(name, None) for name in names)
    wire = _wire_of(os.dup(0), os.dup(1), shm_fd, grpc_fd)
    if grace is not None:
        wire.term_grace_s = float(grace)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    os.register_at_fork(after_in_child=wire.close)
    return wire


def _wire_of(read_fd: int, write_fd: int, shm_fd: str | None, grpc_fd: str | None) -> Wire:
    if grpc_fd is not None:
        try:
            from snakepit.worker._grpc_wire import open_grpc_wire
        except ModuleNotFoundError as error:
            end_without_grpc(error)
        return open_grpc_wire(read_fd, write_fd, int(grpc_fd))
    if shm_fd is None:
        return Wire(read_fd, write_fd)
    try:
        from snakepit.worker._shm_wire import open_shm_wire
    except ImportError:  # an interpreter without ctypes
        return Wire(read_fd, write_fd)
    return open_shm_wire(read_fd, write_fd, int(shm_fd)) or Wire(read_fd, write_fd)


def end_without_grpc(error: ModuleNotFoundError) -> NoReturn:
    """Say what to install where gRPC was asked for, and end."""
    if error.name is None or error.name.startswith("snakepit"):
        raise error
    complain(
        f"gRPC needs the extra: pip install 'snakepit-pool[grpc]' (no {error.name} in {sys.prefix})"
    )
    raise SystemExit(2)


def _end_forked_child() -> NoReturn:
    """Leave a forked child that came back from its tool: it is no worker, nobody waits for it."""
    flush_streams()
    os._exit(0)


def flush_streams() -> None:
    """Let out what tools have printed, and drop a stream that they have broken.

    Python flushes them again when it ends, and would exit with 120 where that fails.
    """
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except Exception:
            setattr(sys, name, None)


def fill_standard_fds() -> None:
    """Open those that are closed: what is opened next would be one of them, and printed into."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for as long as the process lives


def complain(text: str) -> None:
    """A line of the worker's own on stderr, for the host's log."""
    with contextlib.suppress(OSError):
        os.write(2, f"snakepit worker: {text}\n".encode(errors="backslashreplace"))


def complain_if_heard(text: str) -> None:
    """The same where it cannot block: whoever read it may be gone, and another hold its pipe open."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if any(events & select.POLLOUT for _, events in poll.poll(0)):
        complain(text)
