"""Values that come to a worker, read so that its other threads run meanwhile.

One of them hears the host, and answers other calls and pings where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Raw

from snakepit.protocol import decode_value

HELD_BYTES_MAX: Final = 2**22  # to copy more takes a millisecond and longer


def read_value(
    body: Raw | bytes, buffers: Sequence[Any], open_input: Callable[[int], Any] | None = None
) -> Any:
    """The value, as `decode_value` gives it."""
    return decode_value(body, buffers, open_input, make=_make)


def _make(kind: type, content: Any) -> Any:
    if len(content) <= HELD_BYTES_MAX:
        return kind(content)
    from snakepit.shm import private_bytes  # which loads ctypes

    return private_bytes(kind, content)
