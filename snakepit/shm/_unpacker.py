"""The messages of a link with shared memory: its references become views."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from snakepit.protocol import Drop, Part, Unpacker

if TYPE_CHECKING:
    from snakepit.shm._endpoint import Endpoint

M = TypeVar("M")


class ShmUnpacker(Unpacker[M]):
    """As any unpacker; what it cannot resolve breaks the stream. `endpoint`: asked for with the first reference."""

    def __init__(self, decode: Callable[[bytes], M], endpoint: Callable[[], Endpoint]) -> None:
        super().__init__(decode)
        self._endpoint = endpoint

    def _take_of_the_link(self, message: Part | Drop) -> None:
        if type(message) is Drop:
            self._endpoint().dropped(message.segments)
        else:
            super()._take_of_the_link(message)

    def _put_back(self, message: Any, transfers: tuple[Any, ...]) -> None:
        receipts: dict[tuple[int, int], Any] = {}
        numbers = tuple(one for one in transfers if type(one) is int)
        if len(numbers) == len(transfers):
            super()._put_back(message, transfers)
            return
        endpoint = self._endpoint()
        views = [None if type(one) is int else endpoint.resolve(one, receipts) for one in transfers]
        endpoint.received_all_of([one for one in transfers if type(one) is not int])
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
