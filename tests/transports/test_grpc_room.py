"""The pile between the host and the thread of gRPC: each side may run at any step of the other's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _backends import asyncio_only

from snakepit.transports._grpc_stream import PILE_BYTES_MAX, GrpcStream

pytestmark = asyncio_only


class DirectHome:
    """Wakes the other side at once."""

    def to_grpc(self, act: Callable[[], object]) -> None:
        act()

    to_host = to_grpc


class SteppedStream(GrpcStream):
    """`meanwhile` runs once, as the host is about to tell that it has taken something."""

    meanwhile: Callable[[], object] | None = None
    taken = 0

    @property
    def _taken_bytes(self) -> int:  # type: ignore[override]
        return self.taken

    @_taken_bytes.setter
    def _taken_bytes(self, taken: int) -> None:
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        self.taken = taken


async def test_room_made_as_the_other_side_fills_the_pile_is_told() -> None:
    home: Any = DirectHome()
    stream = SteppedStream(home, None, "")
    stream._put(b"begun")
    waits = stream._until_room()
    waiting: list[Any] = []

    def fill() -> None:
        stream._put(bytes(PILE_BYTES_MAX - 1))
        waiting.append(waits.send(None))

    stream.meanwhile = fill
    assert stream.read(100) == b"begun"
    (woken,) = waiting
    try:
        assert woken.done()
    finally:
        waits.close()
