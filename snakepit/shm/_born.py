"""Arrays and buffers born in shared memory, and in ordinary memory where there is none."""

from __future__ import annotations

import math
from operator import index
from typing import Any

from snakepit.shm._heap import Heap


def new_buffer(heap: Heap | None, nbytes: int) -> memoryview:
    """A writable buffer of so many bytes, all 0 or whatever was there before."""
    try:
        size = -1 if isinstance(nbytes, bool) else index(nbytes)
    except TypeError:
        size = -1
    if size < 0:
        raise ValueError(f"a buffer has a whole number of bytes from 0 on, not {nbytes!r}")
    block = heap.take(size) if heap is not None and size else None
    return memoryview(bytearray(size)) if block is None else block.view(size)


def new_array(heap: Heap | None, shape: Any, dtype: Any) -> Any:
    """A NumPy array with arbitrary content, as `numpy.empty` makes it."""
    import numpy

    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of dtype {kind} holds references; memory cannot be shared so")
    sizes = _sizes(shape)
    nbytes = math.prod(sizes) * kind.itemsize
    block = heap.take(nbytes) if heap is not None and nbytes > 0 else None
    if block is None:
        return numpy.empty(sizes, kind)
    return numpy.ndarray(sizes, kind, block.view(nbytes))


def _sizes(shape: Any) -> tuple[int, ...]:
    """As ints: NumPy's own overflow, and would get into the books of the arena."""
    try:
        return (index(shape),)
    except TypeError:
        return tuple(map(index, shape))
