"""Segments are what they should be, and those that are not are refused before they are touched."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import io
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

import pytest

from snakepit.errors import ProtocolError
from snakepit.shm import Heap, _memory, _segments, huge_pages
from snakepit.shm._memory import address_of, copy_to, view_of
from snakepit.shm._segments import SEALS, create, open_shown

SIZE = 4 * mmap.PAGESIZE
linux = pytest.mark.skipif(not _segments.HAS_MEMFD, reason="seals are Linux's")


def test_what_is_written_is_seen_by_who_was_shown_it() -> None:
    fd, ours = create(SIZE)
    theirs = open_shown(fd, SIZE)
    os.close(fd)
    copy_to(ours.address + 5, b"snake")
    view = view_of(theirs.address, SIZE, theirs)
    assert bytes(view[5:10]) == b"snake"
    assert view.readonly
    assert theirs.address != ours.address


@linux
def test_who_was_shown_a_segment_can_neither_write_nor_shrink_it() -> None:
    fd, _ = create(SIZE)
    try:
        for misdeed in (
            lambda: os.ftruncate(fd, 0),
            lambda: os.ftruncate(fd, 2 * SIZE),
            lambda: os.pwrite(fd, b"x", 0),
            lambda: mmap.mmap(fd, SIZE),
        ):
            with pytest.raises(PermissionError):
                misdeed()
    finally:
        os.close(fd)


@linux
def test_its_pages_are_there_before_anybody_looks() -> None:
    fd, _ = create(2**20)
    assert os.fstat(fd).st_blocks * 512 >= 2**20
    os.close(fd)


@linux
@pytest.mark.parametrize("knows", [True, False], ids=["a kernel that knows", "an older one"])
def test_it_is_never_executable_where_the_kernel_can_say_so(
    knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which `vm.memfd_noexec` may ask of everybody."""
    asked: list[int] = []

    def memfd_create(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & _segments.MFD_NOEXEC_SEAL:
            if not knows:
                raise OSError(errno.EINVAL, "unknown flag")
            flags &= ~_segments.MFD_NOEXEC_SEAL  # this machine's own kernel may be an older one
        return real(name, flags)

    real = os.memfd_create
    monkeypatch.setattr(os, "memfd_create", memfd_create)
    fd, _ = create(SIZE)
    assert open_shown(fd, SIZE).size == SIZE
    os.close(fd)
    assert [bool(flags & _segments.MFD_NOEXEC_SEAL) for flags in asked] == [True, False][
        : 2 - knows
    ]


@linux
def test_other_refusals_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "memfd_noexec")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(PermissionError):
        create(SIZE)


@linux
def test_huge_pages_are_asked_for_and_the_dump_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(_memory, "_madvise", lambda *args: asked.append(args))
    fd, mapping = create(2**21)
    os.close(fd)
    assert asked == [
        (mapping.address, 2**21, mmap.MADV_HUGEPAGE),
        (mapping.address, 2**21, mmap.MADV_DONTDUMP),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("always within_size advise [never] deny force\n", "never"),
        ("[always]", "always"),
        ("", None),
    ],
)
def test_what_the_machine_does_with_huge_pages_is_told(
    content: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.open", lambda path: io.StringIO(content))
    assert huge_pages() == told


def unsealed() -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    return fd


def sparse() -> int:
    fd = unsealed()
    fcntl.fcntl(fd, _segments.F_ADD_SEALS, SEALS)
    return fd


def too_short() -> int:
    return create(SIZE // 2)[0]


def a_file() -> int:
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE)
        return os.dup(file.fileno())


def a_pipe() -> int:
    read_fd, write_fd = os.pipe()
    os.close(write_fd)
    return read_fd


@linux
@pytest.mark.parametrize("make", [unsealed, sparse, too_short, a_file, a_pipe])
def test_what_is_no_segment_of_that_size_is_refused(make: Callable[[], int]) -> None:
    fd = make()
    try:
        with pytest.raises(ProtocolError, match="was shown"):
            open_shown(fd, SIZE)
    finally:
        os.close(fd)


@linux
@pytest.mark.parametrize("missing", [1, 2, 4, 0x10])
def test_each_seal_counts(missing: int) -> None:
    fd = unsealed()
    fcntl.fcntl(fd, _segments.F_ADD_SEALS, SEALS & ~missing)
    try:
        with pytest.raises(ProtocolError, match="seals are missing"):
            open_shown(fd, SIZE)
    finally:
        os.close(fd)


@linux
def test_memory_that_cannot_be_had_is_an_error_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked of a stand-in: a real machine would give all that it has before it says no."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    before = os.listdir("/dev/fd")
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="no space left"):
        create(SIZE)
    assert Heap(2**20).take(SIZE) is None
    assert os.listdir("/dev/fd") == before


def test_a_view_keeps_its_mapping_and_what_is_made_of_it_does_too() -> None:
    import weakref

    fd, mapping = create(SIZE)
    os.close(fd)
    gone = weakref.ref(mapping)
    part = view_of(mapping.address, SIZE, mapping)[8:16]
    del mapping
    assert gone() is not None
    assert bytes(part) == bytes(8)
    del part
    assert gone() is None


GARBAGE = """
import gc, os
from snakepit.shm._leases import Echoes, Receipt
from snakepit.shm._memory import view_of
from snakepit.shm._segments import create

class Cycle: pass

gc.disable()
for late in (False, True):  # whichever of the two the collector comes to first
    fd, mapping = create(8 * 4096, others_write=True)
    os.close(fd)
    ledger = view_of(mapping.address, mapping.size, mapping, writable=True).cast("Q")
    cycle = Cycle()
    cycle.all = [cycle, ledger, Receipt(ledger, 0, 1, Echoes())]
    if late:
        cycle.all.append(Receipt(cycle.all.pop()._ledger, 1, 1, Echoes()))
    del mapping, ledger, cycle
    gc.collect()
print("alive")
"""


def test_a_mapping_in_garbage_is_there_for_the_finalizers_of_all_the_rest() -> None:
    """Else the process would die of a write to what is mapped no more."""
    ran = subprocess.run(
        [sys.executable, "-c", GARBAGE], capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("alive\n", "", 0)


@pytest.mark.parametrize("buffer", [b"abc", bytearray(b"abc"), memoryview(b"xabc")[1:]])
def test_an_address_is_where_the_bytes_are(buffer: bytes | bytearray | memoryview) -> None:
    assert ctypes.string_at(address_of(buffer), 3) == b"abc"


def test_without_memfd_posix_memory_does_and_leaves_no_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as Linux can tell."""
    pytest.importorskip("_posixshmem")
    monkeypatch.setattr(_segments, "HAS_MEMFD", False)
    before = set(os.listdir("/dev/shm"))
    for others_write in (False, True):
        fd, ours = create(SIZE, others_write=others_write)
        theirs = open_shown(fd, SIZE, others_write=others_write)
        os.close(fd)
        copy_to(ours.address, b"snake")
        assert bytes(view_of(theirs.address, 5, theirs)) == b"snake"
    fd, _ = create(SIZE)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, SIZE)
    os.close(fd)
    assert set(os.listdir("/dev/shm")) == before
