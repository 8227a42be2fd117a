"""One call on the host, from the caller's `execute` until it is settled.

A call settles exactly once. Its caller does not return before that: when a call is given up
(cancelled, timed out, pool closed) it is stopped first, and only then does its caller learn its
`fate`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Raw

from snakepit._trace_context import Trace, current_trace
from snakepit.errors import (
    CallTimeoutError,
    PoolClosedError,
    SessionNotFoundError,
    WorkerDiedError,
)
from snakepit.process import shielded
from snakepit.protocol import Buffers, Call, Item

if TYPE_CHECKING:
    from snakepit._loops import Signal
    from snakepit.pool._ancestry import Link
    from snakepit.pool._attending import Attendants, Nursery
    from snakepit.pool._core import PoolCore
    from snakepit.pool._deadlines import Alarm
    from snakepit.pool._host_calls import HostCalls
    from snakepit.pool._progress import Feed
    from snakepit.pool._pumps import Pump
    from snakepit.pool._seat import Seat
    from snakepit.pool._sessions import SessionRecord
    from snakepit.pool._worker import Worker
    from snakepit.protocol import ToolInfo
    from snakepit.resilience import Suspect

PREFETCH_BODY_BYTES_MAX = 2**16
INPUT_WINDOW: Final = 16  # of calls that have no window of their own
STOPPED: Final = (CallTimeoutError, PoolClosedError, SessionNotFoundError)  # these are the pool's


class Follower(Protocol):
    """Who follows a call that no task waits for."""

    def begins(self) -> bool:
        """It is about to be sent to a worker; False: it is not wanted any more."""

    def settled(self, call: PendingCall) -> None:
        """It is over."""


class PendingCall:
    """What the pool knows of one call.

    `worker`: the one that has it, None while it waits. `given_up`: it is to be stopped, or has
    been; `fate` then is the error that its caller gets, None if the caller brings its own.
    """

    # Most calls never change these: they cost nothing until they do.
    worker: Worker | None = None
    sent: Call | None = None
    attended = False  # its caller is about to read the answer itself
    given_up = False
    may_have_run = False  # on a worker that died; it is being repeated
    wait_until: float | None = None  # the end of the time that it may wait
    alarm: Alarm | None = None  # rings when its time to wait is over, its time at all, or its grace
    reached_worker = True  # False once it is known that its worker never saw it
    fate: BaseException | None = None
    unstopped: BaseException | None = (
        None  # it may go on where we cannot see it: the caller must know
    )
    settled = False
    result: tuple[Raw, Buffers] | None = None
    error: BaseException | None = None
    session: SessionRecord | None = None
    suspect: Suspect | None = None  # workers have died of it
    pin: Seat[PendingCall] | None = None  # no other worker may run it
    hint: Seat[PendingCall] | None = None  # this one should
    feed: Feed | None = None  # of a caller that wants to hear of its progress
    on_settled: Callable[[PendingCall], None] | None = None  # of one who waits for many
    follower: Follower | None = None  # asked before it is sent
    pumps: Sequence[Pump] = ()  # of its arguments that are async iterables, by number
    input_window: int = 0  # how many items of each of these may be unread
    nursery: Nursery | None = None  # for tasks that belong to it; see `_attending.py`
    attendants: Attendants | None = None  # these tasks
    host_calls: HostCalls | None = None  # of its tool, once there was one
    # Of calls that are made for others, see `_ancestry.py`: for whom, in which pool, by which task.
    link: Link | None = None
    core: PoolCore | None = None
    task: object = None
    below: dict[PendingCall, None] | None = None  # those made for this one that have not settled
    reader: object = None  # of a stream: the task that reads, as far as is known
    awaited = False  # of a stream: it does so now
    _changed: Signal | None = None  # somebody waits for it

    def __init__(
        self,
        number: int,
        tool: str,
        body: Raw,
        buffers: Buffers,
        new_signal: Callable[[], Signal],
        *,
        info: ToolInfo | None = None,
        timeout: float | None = None,
        expires_at: float | None = None,
        retries_left: int = 0,
        window: int = 0,
        pumps: Sequence[Pump] = (),
    ) -> None:
        self.id: int = number
        self.tool: str = tool
        self.info: ToolInfo | None = info
        self.timeout: float | None = timeout
        self.expires_at: float | None = expires_at
        self.retries_left: int = retries_left
        self.window: int = window
        # Where cancelling a call ends its worker, no other may have begun there meanwhile.
        self.prefetchable: bool = (
            not window
            and not buffers
            and len(memoryview(body)) <= PREFETCH_BODY_BYTES_MAX
            and (info is None or info.on_cancel != "kill")
        )
        self.body: Raw = body
        self.buffers: Buffers = buffers
        self.trace: Trace = current_trace()  # of the code that makes the call
        self._new_signal = new_signal
        if pumps:
            self.pumps = pumps
            self.input_window = window or INPUT_WINDOW
            self.prefetchable = False
        if window:
            self.credit: int = window  # items that the worker may still send
            self.items: deque[Item] = deque()  # come and not yet taken

    def learn(self, info: ToolInfo | None) -> None:
        """What its tool is, where no worker had said so when the call was made."""
        self.info = info
        if info is not None and info.on_cancel == "kill":
            self.prefetchable = False

    def message(self, now: float) -> Call:
        """The message that starts this call; remembered in `sent`."""
        left = None if self.expires_at is None else max(0.0, self.expires_at - now)
        session = None if self.session is None else self.session.id
        self.sent = Call(
            self.id,
            self.tool,
            self.body,
            self.buffers,
            left,
            self.window,
            session,
            self.input_window,
            self.trace,
        )
        return self.sent

    def ended_with(self, death: WorkerDiedError) -> None:
        """It was given up, and what stopped it was the end of its worker: its error says so."""
        if isinstance(self.fate, STOPPED):
            self.fate.__cause__ = WorkerDiedError(*death.args)

    def wake(self) -> None:
        """Let the caller look: it has settled, or an item has come."""
        signal = self._changed
        if signal is not None:
            self._changed = None
            signal.set()

    def next_change(self) -> Signal:
        """What the next `wake` sets."""
        signal = self._changed
        if signal is None:
            signal = self._changed = self._new_signal()
        return signal

    async def changed(self) -> None:
        """Wait for the next `wake`. Always a checkpoint."""
        await self.next_change().wait()

    async def until_settled(self) -> None:  # noqa: ASYNC910 - at once if it has settled
        """Wait until the call has settled, whatever cancels us; bounded by the stop ladder."""
        if not self.settled:
            await shielded(self._until_settled)

    async def _until_settled(self) -> None:  # noqa: ASYNC910 - as above
        while not self.settled:
            await self.changed()

    def check_stopped(self) -> None:
        """Raise what a caller who has left must know: that its tool may still run."""
        if self.unstopped is not None:
            raise self.unstopped

    def outcome_of_stream(self) -> None:
        """Raise what the stream failed with; nothing if it came to its end."""
        if self.fate is not None:
            raise self.fate
        if self.error is not None:
            raise self.error

    def outcome(self) -> tuple[Raw, Buffers]:
        """The result, or raises what it failed with."""
        if self.fate is not None or self.error is not None:
            self.outcome_of_stream()
        assert self.settled
        assert self.result is not None
        return self.result
