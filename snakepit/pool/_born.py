"""Memory that a pool's callers fill and its workers see: `empty` and `buffer`."""

from __future__ import annotations

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
        return new_array(self._heap(), shape, dtype)

    def buffer(self, nbytes: int) -> memoryview:
        """A writable memoryview of so many bytes with arbitrary content; as `empty`, without NumPy.

        Raises: ValueError: there is no such number of bytes.

        Source: docs/zero-copy.md.
        """
        return new_buffer(self._heap(), nbytes)

    def _heap(self) -> Heap | None:
        transport = self._core.settings.shm
        return None if transport is None else transport.heap
