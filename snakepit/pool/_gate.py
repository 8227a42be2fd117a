"""Whether a pool takes calls, and what it says where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from snakepit.errors import PoolBrokenError, PoolClosedError, PoolSaturatedError

if TYPE_CHECKING:
    from snakepit.pool._settings import Settings


class Gate:
    """Open, until the pool closes or breaks."""

    def __init__(self, settings: Settings) -> None:
        self.settings: Settings = settings
        self.closing: anyio.Event = anyio.Event()
        self.broken: PoolBrokenError | None = None
        self.is_shut: bool = False  # closing or broken

    def shut_as_closing(self) -> None:
        """No call is taken from now on: the pool closes."""
        self.closing.set()
        self.is_shut = True

    def shut_as_broken(self, certificate: str) -> PoolBrokenError:
        """No call is taken from now on: every slot was given up, the last one for this."""
        self.broken = PoolBrokenError(
            f"pool {self.settings.name!r}: every slot was given up after "
            f"{self.settings.crash_barrier.max_restarts} fruitless restarts",
            certificate,
        )
        self.is_shut = True
        return self.broken

    def closed_error(self) -> PoolClosedError:
        """The error of calls that the closing of the pool ends."""
        return PoolClosedError(f"pool {self.settings.name!r} is closed")

    def saturated_error(self, waiting: int) -> PoolSaturatedError:
        """The error of a call that finds so many others waiting."""
        return PoolSaturatedError(
            f"pool {self.settings.name!r}: {waiting} calls wait already "
            f"(Queue.max_size={self.settings.queue.max_size})"
        )

    def refuse_if_shut(self) -> None:
        """Raise if no call can be taken any more."""
        if not self.is_shut:
            return
        if self.closing.is_set():
            raise self.closed_error()
        if self.broken is not None:
            raise PoolBrokenError(*self.broken.args)
