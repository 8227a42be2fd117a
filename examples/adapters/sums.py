"""Tools for large arrays: what they get is not copied, and neither is what they return."""

from typing import Any

import snakepit


class Sums(snakepit.Adapter):
    """Sums, halves and sequences."""

    @snakepit.tool
    def total(self, array: Any) -> float:
        """Add all up."""
        return float(array.sum())

    @snakepit.tool
    def upper_half(self, array: Any) -> Any:
        """Return a part of what came: the same memory."""
        return array[len(array) // 2 :]

    @snakepit.tool
    def count(self, size: int) -> Any:
        """Make a large result where the host can see it."""
        array = snakepit.empty(size, int)
        array[:] = range(size)
        return array
