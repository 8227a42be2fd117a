"""Segments: pieces of shared memory without a name, shown to others by descriptor.

A segment is written by the process that made it and read by the others. Its size is fixed and its
pages exist before anybody looks: on Linux a memfd, allocated, and sealed so that it can
neither shrink nor grow and that nobody else can write it; who is shown one checks that before
he maps it, so no access of ours can end in SIGBUS. Elsewhere, as on macOS, POSIX shared memory
whose name is gone before anybody else could open it, shown by a descriptor that cannot write;
this way is not tested there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import sys
from typing import TYPE_CHECKING, Final

from snakepit.errors import ProtocolError
from snakepit.shm._memory import Mapping

if TYPE_CHECKING:
    from weakref import ref

    from snakepit.shm._holds import Hold

HAS_MEMFD: Final = sys.platform == "linux"
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
SEALS_LENGTH: Final = 0x1 | 0x2 | 0x4  # SEAL, SHRINK, GROW
SEAL_FUTURE_WRITE: Final = 0x10  # not in `fcntl` before Python 3.13
SEALS: Final = SEALS_LENGTH | SEAL_FUTURE_WRITE
MFD_NOEXEC_SEAL: Final = 0x8  # not in `os` before Python 3.14, nor in kernels before 6.3
NAME: Final = "snakepit"
FDS_RESERVED: Final = 16


def is_spare(fd: int) -> bool:
    """Are there others left beyond this descriptor, for whoever else needs one?

    The lowest that is free is given out, so its number tells. Without some in reserve, what a peer
    shows could not be received, which ends the link, and no worker could be started.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit == resource.RLIM_INFINITY or fd < limit - FDS_RESERVED


class Segment:
    """One piece of shared memory, mapped here: ours, or what a peer has shown.

    `number`: how this process calls it. `owner`: the endpoint of the peer that has shown it, None if it
    is ours; `owners_number`: how that peer calls it. `fd`: -1 once it is closed. `holds`: what keeps
    parts of it in use.
    """

    __slots__ = ("__weakref__", "fd", "holds", "mapping", "number", "owner", "owners_number")

    def __init__(self, fd: int, mapping: Mapping, number: int) -> None:
        self.fd: int = fd
        self.mapping: Mapping = mapping
        self.number: int = number
        self.holds: set[ref[Hold]] = set()
        self.owner: object = None
        self.owners_number: int = 0

    @property
    def size(self) -> int:
        return self.mapping.size

    def hold_of(self, offset: int, size: int) -> Hold | None:
        """What keeps all of that in use."""
        alive = (hold() for hold in list(self.holds))
        return next((hold for hold in alive if hold and hold.covers(offset, size)), None)

    def close_fd(self) -> None:
        """Show it to nobody any more; the mapping lives on while it is used. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def create(size: int, *, others_write: bool = False) -> tuple[int, Mapping]:
    """Make a segment of that size: a descriptor to show, and the writable mapping.

    `others_write`: whoever is shown it may write it as well. Raises OSError: there is no memory, or no
    descriptor left.
    """
    if not HAS_MEMFD:
        return _create_posix(size, others_write=others_write)
    fd = create_memfd()
    try:
        if not is_spare(fd) and not others_write:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)  # ENOSPC now, not SIGBUS later
        mapping = Mapping(fd, size, writable=True)
        mapping.advise()
        fcntl.fcntl(fd, F_ADD_SEALS, SEALS_LENGTH if others_write else SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd, mapping


def create_memfd() -> int:
    """A memfd that can be sealed, and never executed. Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(NAME, flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(NAME, flags)  # a kernel that does not know it


def open_shown(fd: int, size: int, *, others_write: bool = False) -> Mapping:
    """Map what a peer has shown, if it is what it should be. The descriptor stays the caller's.

    Raises ProtocolError.
    """
    status = os.fstat(fd)
    if size <= 0 or status.st_size < size or not (stat.S_ISREG(status.st_mode) or not HAS_MEMFD):
        raise ProtocolError(f"a segment of {size} bytes was shown whose file has {status.st_size}")
    if HAS_MEMFD:
        wanted = SEALS_LENGTH if others_write else SEALS
        try:
            seals = fcntl.fcntl(fd, F_GET_SEALS)
        except OSError:
            seals = 0  # no memfd
        if seals & wanted != wanted:
            raise ProtocolError("a segment was shown whose seals are missing")
        if status.st_blocks * 512 < size:  # a look at what is not there would take our memory
            raise ProtocolError(
                f"a segment was shown that has {status.st_blocks * 512} of {size} bytes"
            )
    try:
        return Mapping(fd, size, writable=others_write)
    except OSError as error:
        raise ProtocolError(f"a segment that was shown cannot be mapped: {error}") from error


def _create_posix(size: int, *, others_write: bool) -> tuple[int, Mapping]:
    """The same without memfd: the descriptor that is shown was opened for reading alone."""
    import _posixshmem  # type: ignore[import-not-found,unused-ignore]

    name = f"/{NAME}-{os.urandom(8).hex()}"
    fd = _posixshmem.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    shown = fd
    try:
        try:
            if not others_write:
                shown = _posixshmem.shm_open(name, os.O_RDONLY, mode=0o600)
        finally:
            _posixshmem.shm_unlink(name)
        os.ftruncate(fd, size)
        mapping = Mapping(fd, size, writable=True)
        if shown != fd:
            os.close(fd)
    except BaseException:
        os.close(fd)
        if shown != fd:
            os.close(shown)
        raise
    return shown, mapping
