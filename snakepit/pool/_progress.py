"""`pool.execute(..., on_progress=)`: what a running call tells, shown to its caller.

The worker's reader never waits for a caller: it puts the latest update in the call's `Feed`, in
the place of one that has not been shown yet. The caller's own task takes them out, so a slow
`on_progress` skips updates and holds up nobody.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import anyio

from snakepit.pool._attending import attending
from snakepit.protocol import Progress

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore

# done, total, message. What it returns is awaited if it can be.
OnProgress: TypeAlias = Callable[[float, float | None, str | None], object]


class Feed:
    """The updates of one call: at most one is kept, the latest."""

    def __init__(self) -> None:
        self._latest: Progress | None = None
        self.listening: anyio.CancelScope = anyio.CancelScope()

    def put(self, update: Progress) -> None:
        """An update has come."""
        self._latest = update

    def take(self) -> Progress | None:
        """The latest update, once."""
        update, self._latest = self._latest, None
        return update

    def stop(self) -> None:
        """No answer will come: whatever the caller does with an update ends, too."""
        self.listening.cancel()


async def listen(  # noqa: ASYNC910 - no call settles before it was sent
    core: PoolCore, call: PendingCall, on_progress: OnProgress
) -> None:
    """Show updates until the call has settled and all of them have been shown.

    Raises what `on_progress` raises, a cancellation in it too, when the call has been stopped.
    """
    feed = call.feed = Feed()
    async with attending(core, call):  # its tasks run while an update is being shown
        with feed.listening:
            while True:
                update = feed.take()
                if update is not None:
                    shown = on_progress(update.done, update.total, update.message)
                    if inspect.isawaitable(shown):
                        await shown
                elif call.settled:
                    break
                else:
                    await call.changed()


def check_on_progress(on_progress: object) -> None:
    """Raise TypeError for what cannot be called."""
    if not callable(on_progress):
        raise TypeError(
            f"on_progress must be a function of (done, total, message), not {on_progress!r}"
        )
