"""Waiting that no cancellation cuts short.

anyio's shield does not stop a native `Task.cancel()` on asyncio: each one still raises in the
shielded `await`. What must be seen to its end (a call that settles, a process that is reaped)
waits here: every cancellation is remembered, the wait goes on, and the last one is raised after.
Only for waits that something else bounds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio


async def shielded(wait: Callable[[], Awaitable[object]]) -> None:  # noqa: ASYNC910 - as wait does
    """Await `wait()` to its end, again and again if need be; then raise the last cancellation."""
    cancellation: BaseException | None = None
    cancelled = anyio.get_cancelled_exc_class()
    while True:
        try:
            with anyio.CancelScope(shield=True):
                await wait()
            break
        except cancelled as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation


async def seen_through(wait: Callable[[], Awaitable[object]]) -> None:  # noqa: ASYNC910 - as wait
    """As `shielded`, for one who is on his way out already: a cancellation is dropped."""
    with suppress(anyio.get_cancelled_exc_class()):
        await shielded(wait)


async def hold_until(event: anyio.Event, timeout_s: float) -> bool:
    """Wait for the event, at most so long, whatever cancels us; True if it was set.

    A cancellation that came meanwhile is dropped: the caller is on its way out already.
    """
    deadline = anyio.current_time() + timeout_s
    cancelled = anyio.get_cancelled_exc_class()
    while not event.is_set():
        left = deadline - anyio.current_time()
        if left <= 0:
            return False  # noqa: ASYNC910 - a step of a ladder, not a public operation
        try:
            with anyio.move_on_after(left, shield=True):
                await event.wait()
        except cancelled:
            continue
    return True  # noqa: ASYNC910 - as above
