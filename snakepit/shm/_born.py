"""Arrays and buffers born in shared memory, and in ordinary memory where there is none."""

from __future__ import annotations

import math
from typing import Any

from snakepit.shm._heap import Heap


def new_buffer(heap: Heap | None, nbytes: int) -> memoryview:
    """A writable buffer of so many bytes, all 0 or whatever was there before."""
    given: object = nbytes
    if not isinstance(given, int) or isinstance(nbytes, bool) or nbytes < 0:
        raise ValueError(f"a buffer has a whole number of bytes from 0 on, not {nbytes!r}")
    block = heap.take(nbytes) if heap is not None and nbytes else None
    return memoryview(bytearray(nbytes)) if block is None else block.view(nbytes)


def new_array(heap: Heap | None, shape: Any, dtype: Any) -> Any:
    """A NumPy array with arbitrary content, as `numpy.empty` makes it."""
    import numpy

    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of dtype {kind} holds references; memory cannot be shared so")
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(sizes) * kind.itemsize
    block = heap.take(nbytes) if heap is not None and nbytes > 0 else None
    if block is None:
        return numpy.empty(sizes, kind)
    return numpy.ndarray(sizes, kind, block.view(nbytes))
