"""The messages of a link with shared memory: its references become views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from snakepit.protocol import Drop, Part, Unpacker
from snakepit.shm._endpoint import Endpoint

M = TypeVar("M")


class ShmUnpacker(Unpacker[M]):
    """As any unpacker; what it cannot resolve breaks the stream."""

    def __init__(self, decode: Callable[[bytes], M], endpoint: Endpoint) -> None:
        super().__init__(decode)
        self._endpoint = endpoint

    def _take_of_the_link(self, message: Part | Drop) -> None:
        if type(message) is Drop:
            self._endpoint.dropped(message.segments)
        else:
            super()._take_of_the_link(message)

    def _put_back(self, message: Any, transfers: tuple[Any, ...]) -> None:
        receipts: dict[tuple[int, int], Any] = {}
        views = [
            None if type(one) is int else self._endpoint.resolve(one, receipts) for one in transfers
        ]
        self._endpoint.received_all_of([one for one in transfers if type(one) is not int])
        numbers = tuple(one for one in transfers if type(one) is int)
        message.buffers = ()
        if numbers:
            super()._put_back(message, numbers)
        inline = iter(message.buffers)
        # The last number may have been the body's.
        message.buffers = tuple(
            view if view is not None else buffer
            for view in views
            if view is not None or (buffer := next(inline, None)) is not None
        )
