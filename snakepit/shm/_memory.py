"""Memory as numbers: mappings, addresses, copies, views. Without NumPy; ctypes lets go of the GIL.

The mappings are made by libc itself: `mmap.mmap` keeps a second descriptor of each file, does not
tell its address, and cannot be closed while a view is alive. Here a mapping lives as long as
somebody refers to it, and a view refers to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import Any, Final, TypeVar

from snakepit.protocol import Buffer

_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_MADVICE: Final = [
    getattr(mmap, name) for name in ("MADV_HUGEPAGE", "MADV_DONTDUMP") if hasattr(mmap, name)
]

COPIED_IN_PLACE_MAX: Final = 2**20

B = TypeVar("B", bytes, bytearray)

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_munmap = _libc.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_madvise = _libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("format", "shape", "strides", "suboffsets", "own")),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None
_new: Final[dict[type, Any]] = {
    bytes: ctypes.pythonapi.PyBytes_FromStringAndSize,
    bytearray: ctypes.pythonapi.PyByteArray_FromStringAndSize,
}
for _function in _new.values():
    _function.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
    _function.restype = ctypes.py_object
_untrack = ctypes.pythonapi.PyObject_GC_UnTrack
_untrack.argtypes = [ctypes.py_object]
_untrack.restype = None


class Mapping:
    """A file mapped into this process, shared, until nobody refers to it any more."""

    __slots__ = ("__weakref__", "address", "size")

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        """Raises OSError."""
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = _mmap(None, size, protection, mmap.MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self.address: int = address
        self.size: int = size
        # The garbage collector runs the finalizers of all that it has found in any order, and those of
        # others look at this memory: a receipt writes there, and so may what users make. It refers to
        # nothing, so it need not be known there: then it dies when the last reference to it does, after them.
        _untrack(self)

    def view(self, offset: int, size: int) -> memoryview:
        """A part of it, which can be written; it keeps the mapping."""
        return view_of(self.address + offset, size, self, writable=True)

    def advise(self) -> None:
        """Ask for huge pages, and to be left out of core dumps; the kernel may do neither."""
        for advice in _MADVICE:
            _madvise(self.address, self.size, advice)

    def __del__(self, munmap: Any = _munmap) -> None:
        address = getattr(self, "address", None)
        if address is not None:
            munmap(address, self.size)


def address_of(buffer: Buffer) -> int:
    """Where the bytes of a contiguous buffer lie."""
    found = _PyBuffer()
    _get_buffer(buffer, ctypes.byref(found), 0)
    try:
        return found.buf or 0
    finally:
        _release_buffer(ctypes.byref(found))


def copy_to(address: int, source: Buffer) -> None:
    """Copy a contiguous buffer to that address; other threads run meanwhile."""
    found = _PyBuffer()
    _get_buffer(source, ctypes.byref(found), 0)
    try:
        ctypes.memmove(address, found.buf, found.len)
    finally:
        _release_buffer(ctypes.byref(found))


def private_copy(source: Buffer) -> Any:
    """A writable copy of a contiguous buffer, in memory of this process alone.

    Where it is large, other threads run meanwhile: the kernel makes its pages as they are written.
    """
    size = len(source)
    if size < COPIED_IN_PLACE_MAX:
        return bytearray(source)
    target = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # a kernel or a platform without them
        target.madvise(mmap.MADV_HUGEPAGE)
    copy_to(address_of(memoryview(target)), source)
    return target


def private_bytes(kind: type[B], source: Buffer) -> B:
    """The bytes of a contiguous buffer as bytes or a bytearray; other threads run meanwhile, where they are many."""
    size = len(source)
    if size < COPIED_IN_PLACE_MAX:
        return kind(source)
    target: B = _new[kind](None, size)  # of arbitrary content, for whoever made it to fill
    copy_to(address_of(target), source)
    return target


def view_of(address: int, size: int, keep: object, *, writable: bool = False) -> memoryview:
    """These bytes as a memoryview; it, and whatever is made of it, keeps `keep` alive."""
    root: Any = (ctypes.c_ubyte * size).from_address(address)
    root.keep = keep
    view = memoryview(root).cast("B")
    return view if writable else view.toreadonly()


def huge_pages() -> str | None:
    """How the machine is set to use huge pages for shared memory; None where it has no such thing."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled") as file:
            return file.read().partition("[")[2].partition("]")[0] or None
    except OSError:
        return None
