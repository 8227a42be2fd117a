"""Memory that a pool's callers fill and its workers see: `empty` and `buffer`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from snakepit.shm._born import new_array, new_buffer

if TYPE_CHECKING:
    from snakepit.pool._core import PoolCore
    from snakepit.shm import Heap


class SharedMemory:
    """The part of a pool's face that gives out memory. Callable from any thread."""

    _core: PoolCore

    def empty(self, shape: int | tuple[int, ...], dtype: Any = float) -> Any:
        """An array with arbitrary content, as `numpy.empty` makes it, born in shared memory.

        As an argument it, or a contiguous part of it, travels without a copy, however large it is. A
        tool that still looks at it sees what is written later. It stays usable after the pool
        has closed. On transports without shared memory, and once the budget is spent, it is an
        ordinary array.

        Args:
            shape: a size, or a tuple of them.
            dtype: anything that `numpy.dtype` takes, without references to Python objects.

        Raises: TypeError: such a dtype. ImportError: there is no NumPy.

        Source: docs/zero-copy.md.
        """
        heap = self._heap()
        array = new_array(heap, shape, dtype)
        self._tell_of(heap)
        return array

    def buffer(self, nbytes: int) -> memoryview:
        """A writable memoryview of so many bytes with arbitrary content; as `empty`, without NumPy.

        Raises: ValueError: there is no such number of bytes.

        Source: docs/zero-copy.md.
        """
        heap = self._heap()
        buffer = new_buffer(heap, nbytes)
        self._tell_of(heap)
        return buffer

    def _tell_of(self, heap: Heap | None) -> None:
        """Have workers told of the segments that made room for it, which they need not map any more."""
        if heap is not None and heap.has_news:
            with suppress(RuntimeError):  # the loop has ended, and so have they
                self._core.loop.call_soon(heap.speak)

    def _heap(self) -> Heap | None:
        transport = self._core.settings.shm
        return None if transport is None else transport.heap
