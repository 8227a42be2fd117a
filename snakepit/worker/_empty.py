"""`snakepit.empty`: an array for a tool's result, where it can travel without a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from snakepit.worker._context import current_context

if TYPE_CHECKING:
    from snakepit.shm import Heap


def _nowhere() -> Heap | None:
    return None


find_heap: Callable[[], Heap | None] = (
    _nowhere  # of this worker, where its transport has shared memory
)


def empty(shape: Any, dtype: Any = float) -> Any:
    """An array with arbitrary content, as `numpy.empty` makes it, born in shared memory.

    A tool that returns it, or a contiguous part of it, sends a reference: nothing is copied, however
    large it is. Its content must not change once it has been returned or yielded: the receiver sees
    the same memory. Where there is no shared memory, or none is left of its budget, and outside of
    workers, it is an ordinary array. Works in tools of every kind, and in threads of theirs.

    Args:
        shape: a size, or a tuple of them.
        dtype: anything that `numpy.dtype` takes, without references to Python objects.

    Raises: TypeError: such a dtype. ImportError: there is no NumPy.
    """
    from snakepit.shm._born import new_array

    made: list[Any] = []
    call = current_context.get()
    if call is None:
        return new_array(find_heap(), shape, dtype)
    call._reporter.masked(lambda: made.append(new_array(find_heap(), shape, dtype)))
    return made[0]
