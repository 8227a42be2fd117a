"""One call on the host, from the caller's `execute` until it is settled.

A call settles exactly once. Its caller does not return before that: when a call is given up
(cancelled, timed out, pool closed) it is stopped first, and only then does its caller learn its
`fate`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio
from msgspec import Raw

from snakepit.process import shielded
from snakepit.protocol import Buffers, Call, Item

if TYPE_CHECKING:
    from snakepit.pool._deadlines import Alarm
    from snakepit.pool._worker import Worker
    from snakepit.protocol import ToolInfo

PREFETCH_BODY_BYTES_MAX = 2**16


class PendingCall:
    """What the pool knows of one call.

    `worker`: the one that has it, None while it waits. `given_up`: it is to be stopped, or has
    been; `fate` then is the error that its caller gets, None if the caller brings its own.
    """

    def __init__(
        self,
        number: int,
        tool: str,
        body: Raw,
        buffers: Buffers,
        *,
        info: ToolInfo | None = None,
        timeout: float | None = None,
        expires_at: float | None = None,
        retries_left: int = 0,
        window: int = 0,
    ) -> None:
        self.id: int = number
        self.tool: str = tool
        self.info: ToolInfo | None = info
        self.timeout: float | None = timeout
        self.expires_at: float | None = expires_at
        self.retries_left: int = retries_left
        self.window: int = window
        self.prefetchable: bool = (
            not window and not buffers and len(memoryview(body)) <= PREFETCH_BODY_BYTES_MAX
        )
        self.worker: Worker | None = None
        self.sent: Call | None = None
        self.given_up: bool = False
        self.may_have_run: bool = False  # on a worker that died; it is being repeated
        self.wait_until: float | None = None  # the end of the time that it may wait
        self.reached_worker: bool = True  # False once it is known that its worker never saw it
        self.fate: BaseException | None = None
        self.settled: bool = False
        self.body: Raw = body
        self.buffers: Buffers = buffers
        self.result: tuple[Raw, Buffers] | None = None
        self.error: BaseException | None = None
        self.alarms: list[Alarm] = []
        self.credit: int = window  # items that the worker may still send
        self.items: deque[Item] = deque()  # of a stream, come and not yet taken
        self._changed = anyio.Event()

    def message(self, now: float) -> Call:
        """The message that starts this call; remembered in `sent`."""
        left = None if self.expires_at is None else max(0.0, self.expires_at - now)
        self.sent = Call(self.id, self.tool, self.body, self.buffers, left, self.window)
        return self.sent

    def wake(self) -> None:
        """Let the caller look: it has settled, or an item has come."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait for the next `wake`. Always a checkpoint."""
        await self._changed.wait()
        # Whoever comes first replaces the event; another one may wait for the new one already.
        if not self.settled and self._changed.is_set():
            self._changed = anyio.Event()

    async def until_settled(self) -> None:  # noqa: ASYNC910 - at once if it has settled
        """Wait until the call has settled, whatever cancels us; bounded by the stop ladder."""
        if not self.settled:
            await shielded(self._until_settled)

    async def _until_settled(self) -> None:  # noqa: ASYNC910 - as above
        while not self.settled:
            await self.changed()

    def outcome_of_stream(self) -> None:
        """Raise what the stream failed with; nothing if it came to its end."""
        if self.fate is not None:
            raise self.fate
        if self.error is not None:
            raise self.error

    def outcome(self) -> tuple[Raw, Buffers]:
        """The result, or raises what it failed with."""
        self.outcome_of_stream()
        assert self.settled
        assert self.result is not None
        return self.result
