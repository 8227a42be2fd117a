"""Values whose arrays and memoryviews can be written by whoever gets them.

What came through a pipe lies in a bytearray that nobody else has, so it is given out as it is. What
lies elsewhere, in shared memory or within a body, is copied, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ._ext import Reader

Copy: TypeAlias = "Callable[[bytes | memoryview], Any]"  # a buffer to a writable one of its own


class WritableReader(Reader):
    """Reads values whose arrays and memoryviews are their receiver's own."""

    __slots__ = ("_copy",)

    writes = True

    def __init__(self, buffers: Sequence[Any], copy: Copy, bytes_left: int | None) -> None:
        super().__init__(buffers, bytes_left)
        self._copy = copy

    def view(self, value: Any) -> Any:
        data = self.data(value)  # which checks it
        if type(value) is int and type(buffer := self.buffers[value]) is bytearray:
            return memoryview(buffer)
        self.charge(len(data))
        return memoryview(self._copy(data))
