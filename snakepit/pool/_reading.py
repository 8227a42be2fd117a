"""Who reads what a worker says: the caller of its only call, or the worker's own task.

A caller that reads its answer itself saves a task switch and a turn of the event loop, a good part
of a round trip. So the worker's task keeps off the channel while calls come one by one: it
sleeps, and takes over whenever something is to be read that no caller reads (a stream, calls sent
ahead, a call that is being cancelled, the worker's end), or when nobody has called for a while.

A caller that reads hears nothing but the worker. So it reads only while its call cannot be settled
in another way than by a word of the worker's, or by the end of the link: it is the first of its
worker's calls, and written in full, so that nobody can withdraw it. It keeps on reading while it
answers the host calls of its tool: nobody else may read in between. Where answers come quickly it
looks for its own for a moment before it sleeps (`_busy_wait.py`), and lets others run before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio
from trio.lowlevel import enable_ki_protection

from snakepit._busy_wait import BusyWait
from snakepit.errors import ProtocolError

if TYPE_CHECKING:
    from snakepit._loops import Loop, Signal
    from snakepit.pool._call import PendingCall
    from snakepit.pool._deadlines import Deadlines
    from snakepit.protocol import ToHost
    from snakepit.transports import Channel

LINGER_S: Final = 0.02  # how long an idle worker is left to its next caller
LINK_ERRORS: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    ProtocolError,
)


class Reading:
    """The reading end of one worker's channel.

    `take` acts on messages, in the order in which they came, and returns False if nothing
    further may come; `is_quiet` tells that no answer and no end of the worker is due.
    """

    def __init__(
        self,
        channel: Channel,
        loop: Loop,
        deadlines: Deadlines,
        *,
        take: Callable[[list[ToHost]], bool],
        is_quiet: Callable[[], bool],
    ) -> None:
        self._channel, self._loop, self._deadlines = channel, loop, deadlines
        self._take, self._is_quiet = take, is_quiet
        self._asleep: Signal | None = None  # wakes the worker's task, which leaves us to callers
        self._busy_wait = BusyWait() if channel.is_direct else None
        self._caller_reads = False
        self._link_failed = False
        self._stopped = False
        self._uses = 0
        self._uses_seen = -1  # by the alarm that ends the sleep; -1: there is no alarm

    @property
    def is_free(self) -> bool:
        """May a caller read now?"""
        return (
            self._asleep is not None
            and not self._caller_reads
            and not self._link_failed
            and not self._stopped
            and not self._asleep.is_set()
        )

    def need(self) -> None:
        """There is something to read, and no caller that will."""
        if self._asleep is not None and not self._caller_reads:
            self._asleep.set()

    @enable_ki_protection
    async def read_as_caller(self, call: PendingCall) -> None:  # noqa: ASYNC910 - receive is a checkpoint
        """Read once and take what has come; go on as long as the call's host calls are all that comes.

        Cancelling loses nothing. Raises what `HostCalls.answer` does.
        """
        self._caller_reads = True
        quiet = False
        worker, channel, busy_wait = call.worker, self._channel, self._busy_wait
        try:
            while True:
                messages: list[ToHost] = []
                if busy_wait is not None and busy_wait.is_due():
                    await self._loop.checkpoint()  # the worker is at it meanwhile
                    messages = busy_wait.look(channel.receive_nowait)
                self._stopped = not self._take(messages or await channel.receive())
                if call.host_calls is None or call.worker is not worker or self._stopped:
                    break
                await call.host_calls.answer()
                if call.attendants is not None or call.worker is not worker:
                    break
            quiet = not self._stopped and self._is_quiet()
        except LINK_ERRORS:
            self._link_failed = True  # the worker's task will meet the same error, and tell
        finally:
            self._caller_reads = False
            if not quiet:
                self.need()
            else:
                self._uses += 1
                if self._uses_seen < 0:
                    self._set_alarm()

    async def run(self, early: list[ToHost]) -> None:  # noqa: ASYNC910 - no more than one take
        """Read for the worker, to its very last word; raises what ends the link."""
        self._stopped = not self._take(early)
        while not self._stopped:
            self._stopped = not self._take(await self._channel.receive())
            if not self._stopped and self._is_quiet():
                await self._sleep()

    async def _sleep(self) -> None:
        self._asleep = self._loop.new_signal()
        if self._uses_seen < 0:
            self._set_alarm()
        try:
            await self._asleep.wait()
        finally:
            self._asleep = None

    def _set_alarm(self) -> None:
        self._uses_seen = self._uses
        self._deadlines.at(self._loop.now() + LINGER_S, self._lingered)

    def _lingered(self) -> None:
        unused, self._uses_seen = self._uses == self._uses_seen, -1
        if self._asleep is None or self._caller_reads:
            return
        if unused:
            self._asleep.set()
        else:
            self._set_alarm()
