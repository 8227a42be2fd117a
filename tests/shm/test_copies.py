"""Copies of large values let other threads run meanwhile: those are where the event loop is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow
import pytest

from snakepit.protocol import decode_value, encode_value
from snakepit.shm import Block, Heap, private_bytes, private_copy

SIZE = 2**24


class Counter(threading.Thread):
    """Counts for as long as it may run; it gives way at once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.is_over = False

    def run(self) -> None:
        while not self.is_over:
            self.count += 1
            time.sleep(0)


@pytest.fixture
def counter() -> Iterator[Counter]:
    """Nobody is made to let go of the interpreter; only who does so lets this thread count."""
    counter, interval = Counter(), sys.getswitchinterval()
    counter.start()
    sys.setswitchinterval(1000)
    yield counter
    sys.setswitchinterval(interval)
    counter.is_over = True
    counter.join()


def copies(block: Block) -> dict[str, Callable[[], object]]:
    """What is done to large values."""
    source = memoryview(bytes(SIZE))
    array = np.ones(SIZE // 4)[::2]
    table = pyarrow.table({"n": np.ones(SIZE // 9)})
    (strided,), (stream,) = (
        encode_value(value, places=block_heap)[1]
        for value in (array, table)
        for block_heap in [Heap(2**20)]
    )
    return {
        "into a block": lambda: block.fill(source),
        "out of one": lambda: private_copy(source),
        "out of one, as bytes": lambda: private_bytes(bytes, source),
        "out of one, as a bytearray": lambda: private_bytes(bytearray, source),
        "of an array that is not contiguous": lambda: block.fill(strided),
        "of a table": lambda: block.fill(stream),
    }


KINDS = [
    "into a block",
    "out of one",
    "out of one, as bytes",
    "of an array that is not contiguous",
    "of a table",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_lets_other_threads_run(kind: str, counter: Counter) -> None:
    heap = Heap(2**27)
    block = heap.take(SIZE)
    assert block is not None
    copy = copies(block)[kind]
    deadline = time.monotonic() + 30
    before = counter.count
    while counter.count == before and time.monotonic() < deadline:
        copy()
    assert counter.count > before
    heap.close()


def test_a_private_copy_can_be_written_and_is_its_own() -> None:
    for size in (0, 1, 2**20 - 1, 2**20, 2**22 + 1):
        source = np.full(size, 7, "u1")
        view = memoryview(private_copy(source.data))
        assert view.nbytes == size
        assert not view.readonly
        assert view == source.data
        if size:
            view[0] = 1
            assert source[0] == 7


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_of_a_buffer_are_its_bytes(kind: type) -> None:
    for size in (0, 1, 2**20 - 1, 2**20, 2**22 + 1):
        source = np.arange(size, dtype="u4").astype("u1")
        made = private_bytes(kind, source.data)
        assert type(made) is kind
        assert made == source.tobytes()
        if kind is bytes:
            assert hash(made) == hash(source.tobytes())
        else:
            made.append(7)  # as any other
            assert made == source.tobytes() + b"\x07"


def test_a_value_that_there_is_no_memory_for_is_no_fault_of_its_sender_s() -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError

    body, buffers = encode_value(bytes(2**20))
    with pytest.raises(MemoryError):
        decode_value(body, buffers, make=fail)
