"""Arrays and buffers born in shared memory: whatever says how large they are, the books stay right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from snakepit.shm import Heap
from snakepit.shm._born import new_array, new_buffer

MIB = 2**20
SHAPES: list[Any] = [
    5,
    (),
    (3, 4),
    [3, 4],
    (0, 2**40),
    np.int64(5),
    np.int64(3 * MIB),
    (np.int32(3), 4),
    (np.uint8(200), np.uint8(200)),
    np.array([3, 4]),
    np.array(7),
]


@pytest.fixture
def heap() -> Iterator[Heap]:
    heap = Heap(64 * MIB)
    yield heap
    heap.close()


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_every_shape_that_numpy_takes_is_taken(shape: Any, heap: Heap) -> None:
    array = new_array(heap, shape, "f4")
    assert array.shape == np.empty(shape, "f4").shape
    assert heap.arena.used_bytes >= array.nbytes
    block = heap.take(100)  # of the next who needs memory
    assert block is not None
    books = [heap.arena.used_bytes, heap.arena.total_bytes]
    for slots in heap.arena.segments.values():
        books += [number for part in slots.free for number in part]
        books += [*slots.used, *slots.used.values()]
    assert {type(number) for number in books} == {int}


@pytest.mark.parametrize(
    "shape", [-1, (-1024, -1024), 3.0, (3, None), "3", (2**40, 2**40)], ids=repr
)
def test_what_is_no_shape_is_refused_and_takes_nothing(shape: Any, heap: Heap) -> None:
    with pytest.raises((TypeError, ValueError)):
        new_array(heap, shape, float)
    heap.reclaim()
    assert heap.arena.used_bytes == 0


@pytest.mark.parametrize("nbytes", [-1, 1.5, True, None, "3", np.float64(3)], ids=repr)
def test_what_is_no_number_of_bytes_is_refused(nbytes: Any, heap: Heap) -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        new_buffer(heap, nbytes)


def test_a_buffer_has_as_many_bytes_as_were_asked_for(heap: Heap) -> None:
    assert [len(new_buffer(heap, size)) for size in (0, 1, MIB, np.int32(MIB))] == [0, 1, MIB, MIB]


def test_an_array_of_objects_is_refused(heap: Heap) -> None:
    with pytest.raises(TypeError, match="holds references"):
        new_array(heap, 3, object)
