"""One worker: its process, its channel, its seat in the scheduler; from start to burial.

The task that runs `live` owns the process: it starts it, walks the stop ladder and reaps it, and
nobody else does any of that. Others only ask (`send`, `cancel`, `condemn`), synchronously; the
task acts. A reader task routes what the worker says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from signal import SIGKILL
from typing import TYPE_CHECKING

import anyio
from trio.lowlevel import enable_ki_protection

from snakepit.errors import (
    ProtocolError,
    WorkerDiedError,
    WorkerStartError,
)
from snakepit.launchers import CannotLaunchError
from snakepit.pool._call import PendingCall
from snakepit.pool._handshake import StartFailedError, shake_hands
from snakepit.pool._obituary import obituary
from snakepit.pool._reading import Reading
from snakepit.pool._routing import route
from snakepit.pool._seat import Phase, Seat
from snakepit.pool._start_error import start_error
from snakepit.pool._stopping import StopsCalls
from snakepit.process import ExitStatus, climb, hold_until, shielded
from snakepit.protocol import (
    PART_BYTES_MAX,
    InputItem,
    Recall,
    Shutdown,
    ToHost,
    ToWorker,
)

if TYPE_CHECKING:
    from snakepit.launchers import Launched
    from snakepit.pool._core import PoolCore
    from snakepit.transports import Channel

LAST_WORDS_S = 1.0  # for what a dead worker has written to be read to its end
OWN_EXIT_S = 1.0  # for a worker that has closed its pipe to end by itself

_log = logging.getLogger("snakepit.pool")


class Worker(StopsCalls):
    """One worker process. `live` runs once."""

    def __init__(
        self, core: PoolCore, worker_id: str, slot: int, *, tainted_until: float = 0.0
    ) -> None:
        self._core, self._slot = core, slot
        self._is_spawned: bool = not core.settings.connects  # else it is not ours to end
        self.id: str = worker_id
        self.seat: Seat[PendingCall] = Seat(tainted_until=tainted_until, name=worker_id)
        self.pid: int | None = None
        self.started_at: float = time.time()
        self.start_error: WorkerStartError | None = None
        self.death: WorkerDiedError | None = None
        self.was_fruitful: bool = False
        self.died_by_itself: bool = False  # or somebody other than this pool ended it
        self.said_goodbye: bool = False
        self.status: ExitStatus = ExitStatus()  # once it has been reaped
        self.reading: Reading | None = None  # from Ready on
        self.running: Launched | None = None  # while its task has it
        self.heard_out: bool = False  # all that it said has been understood, to the end
        self._channel: Channel | None = None
        self._condemned = anyio.Event()
        self._exited = anyio.Event()
        self._read_all = anyio.Event()
        self._hatching: anyio.CancelScope | None = None
        self._reason = "died"
        self._ask: Callable[[], object] | None = None
        self._ask_grace_s = 0.0
        self._dump = False
        self._queued_unattended = False

    # -- what others ask; all synchronous ----------------------------------------------------

    def send(self, call: PendingCall, now: float) -> None:
        """Send a call that the scheduler has leased to this seat."""
        assert self._channel is not None
        call.worker = self
        call.reached_worker = self._channel.send_nowait(call.message(now))
        # What waits may be withdrawn, and is then settled without a word that could be read.
        if not call.attended or self._channel.is_sending:
            self._need_reading()

    def queue(self, call: PendingCall, now: float) -> None:
        """As `send`, where `flush` follows: several calls share one write."""
        assert self._channel is not None
        call.worker = self
        call.reached_worker = self._channel.queue_nowait(call.message(now))
        if not call.attended:
            self._queued_unattended = True

    def flush(self) -> None:
        """Write what was queued."""
        assert self._channel is not None
        self._channel.flush_nowait()
        if self._queued_unattended or self._channel.is_sending:  # as above
            self._queued_unattended = False
            self._need_reading()

    @property
    def lent_bytes(self) -> int:
        """How much shared memory it looks at."""
        return 0 if self._channel is None else self._channel.lent_bytes

    @property
    def peer_counts(self) -> tuple[int, ...] | None:
        """What it has told of the shared memory for its results."""
        return None if self._channel is None else self._channel.peer_counts

    def tell(self, message: ToWorker) -> None:
        """Send any other message, unless the link is gone."""
        if self._channel is not None:
            self._channel.send_nowait(message)

    async def feed(self, item: InputItem) -> None:  # noqa: ASYNC910 - waits only for room
        """Send an item of an input; wait where the link has no room, so that no more is pulled.

        If that is cancelled the worker never sees it. Nothing if the link is gone.
        """
        channel = self._channel
        if channel is None:
            return  # noqa: ASYNC910 - as above
        if channel.is_sending or item.buffers or len(memoryview(item.body)) > PART_BYTES_MAX:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await channel.send(item)
        else:
            channel.send_nowait(item)

    def recall(self, ids: tuple[int, ...]) -> None:
        """Ask prefetched calls back."""
        if ids:
            self.tell(Recall(ids))

    def condemn(
        self,
        reason: str,
        *,
        ask: Callable[[], object] | None = None,
        ask_grace_s: float = 0.0,
        dump: bool = False,
        fruitful: bool = False,
        by_itself: bool = False,
    ) -> None:
        """This worker is to be stopped; its task does it. The first reason counts.

        With `ask` the ladder begins with a request and so much time to follow it. `fruitful`: it
        is no fault of the worker's, so the start counts as a good one. `by_itself`: it has ended.
        """
        if self._condemned.is_set():
            return
        self.was_fruitful, self.died_by_itself = fruitful, by_itself
        self._reason, self._ask, self._ask_grace_s = reason, ask, ask_grace_s
        # Only our own workers know that request; to any other process it means: dump core.
        self._dump = dump and self._core.settings.spawns_python
        self.seat.stop()
        self._core.scheduler.update(self.seat, self._core.now())
        self._condemned.set()
        self._need_reading()
        if self._hatching is not None:
            self._hatching.cancel()

    def close(self) -> None:
        """The pool closes: stop the calls here, then the worker."""
        if self.seat.phase is Phase.STARTING:
            self.condemn("pool closed")
            return
        self.seat.drain()
        for call in list(self.seat.calls.values()):
            self._core.give_up(call, self._core.closed_error())
        # Whatever grace its tool has of its own: closing has one bound.
        stop = self._core.settings.stop
        grace = stop.cancel_grace + (0 if self._is_spawned else stop.term_grace)
        reason = "was ended because it had a call when the pool was closed"
        self._core.deadlines.at(self._core.now() + grace, lambda: self._end_for(reason))
        self.seat_changed(self._core.now())

    def goodbye(self) -> None:
        """It ends in good order. One that is not ours says so first, and ends what it has."""
        self.said_goodbye = True
        if not self._is_spawned:
            self.seat.drain()

    def seat_changed(self, now: float) -> None:
        """File the seat anew, hand out work, and end a worker that has drained."""
        if self.seat.phase is Phase.DRAINING and not self.seat.calls:
            grace = self._core.settings.stop.drain_timeout
            reason = "pool closed" if self._core.closing.is_set() else "said goodbye"
            self.condemn(reason, ask=lambda: self.tell(Shutdown(grace)), ask_grace_s=grace)
        self._core.scheduler.update(self.seat, now)
        self._core.dispatch(now)

    # -- the task that owns the process ------------------------------------------------------

    async def live(self, hatched: Callable[[], None]) -> None:  # noqa: ASYNC910 - a program that cannot be executed
        """The whole life of the worker; `hatched` is called when it is ready."""
        try:
            with self._core.settings.launcher.launch(self.id, self._slot) as running:
                self.pid = running.pid
                self._channel, self.running = running.channel, running
                try:
                    await self._serve(running, hatched)
                finally:
                    self.running = None
                    await running.channel.aclose()  # noqa: ASYNC102 - closing never waits
        except CannotLaunchError as error:
            self.start_error = WorkerStartError(self.id, str(error))
        finally:
            if self.death is None:  # whatever went wrong: its callers must not wait for ever
                self._bury(ExitStatus(), "")

    async def _serve(self, running: Launched, hatched: Callable[[], None]) -> None:
        failed: StartFailedError | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, running)
                tasks.start_soon(running.run)
                try:
                    early = await self._hatch(running.channel)
                    hatched()
                    tasks.start_soon(self._read, running, early)
                    await self._condemned.wait()
                except StartFailedError as error:
                    failed = error
                    self._read_all.set()
                    if error.exits_by_itself:
                        self._end_of_channel("could not start")
                    else:
                        self.condemn("could not start", dump=True)
                finally:
                    await climb(  # noqa: ASYNC102 - bounded, and seen to its end
                        running,
                        self._exited,
                        ask=self._ask,
                        ask_grace_s=self._ask_grace_s,
                        term_grace_s=self._core.settings.stop.term_grace,
                        dump=self._dump,
                    )
                    await hold_until(self._read_all, LAST_WORDS_S)  # noqa: ASYNC102 - as above
                    tasks.cancel_scope.cancel()
        finally:
            status = running.kill_and_reap()
            if failed is not None:
                self.start_error = start_error(self.id, failed, status, running)
            self._bury(status, running.output_tail)

    @enable_ki_protection
    async def _watch(self, running: Launched) -> None:
        # Held to the exit: `asyncio.run` cancels every task when it returns, and the ladder in the
        # other task must still see the worker end. It climbs high enough for this to come soon.
        try:
            await shielded(running.wait_exit)
        finally:
            self._exited.set()
            self.condemn(running.died, by_itself=True)

    async def _hatch(self, channel: Channel) -> list[ToHost]:
        """The handshake; returns what came right behind it."""
        with anyio.CancelScope() as self._hatching:
            if self._condemned.is_set():
                self._hatching.cancel()
            ready, early = await shake_hands(channel, self.id, self._core.settings)
            if not self._condemned.is_set():  # it may have been since Ready woke this task
                channel.on_unsendable = self.unsendable
                self._core.ready(self, {tool.name: tool for tool in ready.tools})
                return early
        raise StartFailedError(self._reason, exits_by_itself=self._exited.is_set())

    def _begin_reading(self, channel: Channel) -> Reading:
        self.reading = Reading(
            channel,
            self._core.loop,
            self._core.deadlines,
            take=self._take,
            is_quiet=lambda: not self.seat.calls and not self._condemned.is_set(),
        )
        return self.reading

    @enable_ki_protection
    async def _read(self, running: Launched, early: list[ToHost]) -> None:  # noqa: ASYNC910 - if early is bad
        """Read what the worker says, to the very last word, but for what callers read."""
        try:
            await self._begin_reading(running.channel).run(early)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self.heard_out = self._is_spawned  # else it may go on: it has only lost us
            self._end_of_channel(running.died)
        except ProtocolError as error:
            self.condemn(f"broke the protocol ({error}) and was ended")
        finally:
            self._read_all.set()

    def _end_of_channel(self, reason: str) -> None:
        self.condemn(reason, ask=lambda: None, ask_grace_s=OWN_EXIT_S, by_itself=True)

    @enable_ki_protection
    def _take(self, messages: list[ToHost]) -> bool:
        """Route the messages; False if nothing that may follow counts any more."""
        now = self._core.now()
        try:
            route(self._core, self, messages, now)
        except ProtocolError as error:
            self.condemn(f"broke the protocol ({error}) and was ended")
            return False
        finally:
            self.seat_changed(now)  # after the verdict: the guilty one gets nothing more
        return True

    def _tried_in_vain_again(self) -> bool:
        """Those that others see to may be away for days, and are called every few seconds."""
        before, now = self._core.slots[self._slot - 1].start_error, self.start_error
        known = before is not None and now is not None and before.reason == now.reason
        return known and not self._is_spawned

    def _need_reading(self) -> None:
        if self.reading is not None:
            self.reading.need()

    def _bury(self, status: ExitStatus, stderr_tail: str) -> None:
        self.status = status
        if self.said_goodbye and self._reason == "died":
            self._reason = "ended in good order, as at a SIGTERM from outside"
        calls = list(self.seat.calls.values())
        self.death = WorkerDiedError(
            self.id,
            self.pid,
            status.exit_code,
            status.signal,
            self._reason,
            any(call.reached_worker for call in calls),
            stderr_tail,
            status.certificate,
        )
        # When the pool closes each of them is gone; but that it took SIGKILL is worth a word.
        if not self._core.closing.is_set() or status.signal == SIGKILL:
            level = logging.DEBUG if self._tried_in_vain_again() else logging.WARNING
            text = self.start_error or obituary(self.death, calls, dumped=self._dump)
            _log.log(level, "%s", text)
        self._core.gone(self, self.death)
