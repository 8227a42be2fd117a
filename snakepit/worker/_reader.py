"""Who reads the wire: the main thread while it waits, the I/O thread while that one is busy.

A call that the main thread reads itself costs no hand-over between threads, which is a good part
of a round trip. But a thread that runs a tool hears nothing, so once it has been busy with one
thing for a tick the I/O thread takes over: then cancels, recalls and the end of the host
are noticed at once, whatever the tool does.

The baton says who may read. The I/O thread lets go of it when it has queued a call, and takes it
again as long as the main thread waits for one in vain. While nothing runs it rests without a
timer. A lane with an event loop never reads; the I/O thread then holds the baton for good.
"""

from __future__ import annotations

import os
import select
import signal
import time
from _queue import SimpleQueue
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from snakepit._busy_wait import BusyWait
from snakepit.errors import ProtocolError
from snakepit.protocol import ToWorker
from snakepit.worker._wire import Wire, complain, complain_if_heard

if TYPE_CHECKING:
    from snakepit.worker._job import Job
    from snakepit.worker._service import Service

T = TypeVar("T")

TICK_S = 0.002
IDLE_TICKS_MAX = 50  # then the I/O thread rests until something begins
NAG_INTERVAL_S = 0.01
ORPHAN_GRACE_S = 6.0  # for what runs, and for `cleanup`, of a worker whose host has named no grace
ORPHAN_MARGIN_S = 1.0  # on top of the grace: the host's guardian, if there is one, is the first
ORPHAN_EXIT_CODE = 70
HOST_GONE = "it ends because its host is gone"

IDLE, HOOK = 0, -1  # what the main thread is busy with, else the number of a call


class StopReading(BaseException):
    """SIGTERM came while the main thread was waiting for the host."""


class Reader:
    """Reads the wire and has the service act on what comes."""

    def __init__(self, wire: Wire) -> None:  # on the main thread
        self.service: Service  # set before anything is read
        self.last_act: Callable[[], object] = lambda: (
            None
        )  # before the process of a host that is gone exits
        self.reap: Callable[[], object] = lambda: None  # what nobody else will
        self.calls: SimpleQueue[Job | None] = SimpleQueue()  # for the main thread; None: stop
        self._wire = wire
        self._busy_wait = BusyWait() if wire.is_direct else None
        self._poll = select.poll()  # of whoever holds the baton: two at a time it refuses
        self._poll.register(wire.fileno(), select.POLLIN)
        self._baton = allocate_lock()
        self._end = allocate_lock()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._busy_with = HOOK
        self._resting = False
        self._main_waits = False
        self._is_blocked = False
        self._host_gone = False
        self._has_explained = False
        self._main_thread = get_ident()

    # -- on the main thread ------------------------------------------------------------------

    def wait(self, queue: SimpleQueue[T]) -> T:
        """The next of the queue. While it is empty, read what may fill it."""
        while True:
            if not queue.empty():
                return queue.get()
            self._main_waits = True
            if self._host_gone or not self._baton.acquire(blocking=False):
                item = queue.get()
                self._main_waits = False
                return item
            self._main_waits = False
            try:
                self._read_if_empty(queue)
            finally:
                self._baton.release()

    def wait_anywhere(self, queue: SimpleQueue[T]) -> T:
        """The same for any thread: one that a tool has started leaves the reading to others."""
        return self.wait(queue) if get_ident() == self._main_thread else queue.get()

    def begin(self, what: int) -> None:
        """The main thread is busy from now on, with this call or with a hook."""
        self._busy_with = what
        if self._resting:
            self._resting = False
            self._bell.put(None)

    def end(self) -> None:
        """The main thread is not busy any more."""
        self._busy_with = IDLE

    def interrupt(self) -> None:
        """Get out of a blocked read; for a signal handler that has put something into `calls`."""
        if self._is_blocked:
            self._is_blocked = False
            raise StopReading

    def _read_if_empty(self, queue: SimpleQueue[Any]) -> None:
        if self._host_gone:  # the I/O thread has just read the end
            return
        busy_wait = self._busy_wait
        if busy_wait is not None and busy_wait.is_due():
            busy_wait.look(lambda: not queue.empty() or self._poll.poll(0))
        try:
            # From this store on the handler raises; what it queued before it is seen here.
            self._is_blocked = True
            messages = self._wire.receive() if queue.empty() else []
            self._is_blocked = False
            if messages is not None:
                self.service.handle_all(messages)
                return
        except StopReading:
            return
        except BaseException as error:
            self._is_blocked = False
            self._explain(error)
        self._host_gone = True
        self._bell.put(None)  # the I/O thread bounds the time that is left
        self.service.terminate()

    # -- the I/O thread ----------------------------------------------------------------------

    def serve(self, early: list[ToWorker], *, alone: bool) -> None:
        """Read whenever the main thread does not, until the host is gone. Never raises.

        `alone`: the main thread never reads.
        """
        try:
            self.service.handle_all(early)
            early.clear()
            while not self._host_gone:
                if not alone:
                    self._until_needed()
                if self._baton.acquire(blocking=alone):
                    self._read(alone=alone)
        except BaseException as error:  # whatever it is: nobody hears the host any more
            self._explain(error)
        finally:
            self.end_orphan()

    def _until_needed(self) -> None:
        """Wait until the main thread has been busy with one thing for a tick."""
        seen, idle_ticks = IDLE, 0
        while not self._host_gone:
            time.sleep(TICK_S)
            busy_with = self._busy_with
            if busy_with == IDLE:
                idle_ticks += 1
                if idle_ticks > IDLE_TICKS_MAX:
                    self._rest()
                    idle_ticks = 0
            elif busy_with == seen:
                return
            else:
                idle_ticks = 0
            seen = busy_with

    def _rest(self) -> None:
        self.reap()
        self._resting = True
        if self._busy_with == IDLE and not self._host_gone:
            self._bell.get()
        self._resting = False

    def _read(self, *, alone: bool) -> None:
        """Read in the main thread's place; the baton is held, and let go of at the end."""
        while True:
            try:
                if self._host_gone:  # the main thread has just read the end, or what is none
                    return
                while self.service.nag() and not self._poll.poll(NAG_INTERVAL_S * 1000):
                    pass
                if not self._receive():
                    self._host_gone = True
                    return
            except BaseException:
                self._host_gone = True  # before another thread may read
                raise
            finally:
                if not alone:
                    self._baton.release()
            if alone:
                self.reap()
                continue
            # It may have found the baton taken, and wait for what only this thread could read.
            missed = self.calls.empty() and (self._main_waits or self._busy_with != IDLE)
            if not (missed and self._baton.acquire(blocking=False)):
                return

    def _receive(self) -> bool:
        # In a frame of its own: what has been handled is not kept while nothing comes.
        messages = self._wire.receive()
        if messages is None:
            return False
        self.service.handle_all(messages)
        return True

    def retire(self) -> None:
        """The main thread is about to end the process: the end of the host is of no interest any more."""
        self._end.acquire(blocking=False)

    def end_orphan(self) -> None:
        """The host is gone: let the lane clean up, within bounds; the process ends in any case.

        Called by whichever thread notices it; the first one does it.
        """
        if not self._end.acquire(blocking=False):
            return
        self._host_gone = True
        try:
            if self.service.begin_end():
                grace_s = self._wire.term_grace_s
                grace_s = ORPHAN_GRACE_S if grace_s is None else grace_s + ORPHAN_MARGIN_S
                deadline = time.monotonic() + grace_s
                while time.monotonic() < deadline:
                    if self._is_blocked:  # nothing will come that could wake it
                        signal.pthread_kill(self._main_thread, signal.SIGTERM)
                    self.service.nag()
                    time.sleep(NAG_INTERVAL_S)
        finally:
            if not (self._wire.has_own_host or self._has_explained):
                complain_if_heard(HOST_GONE)
            self.last_act()
            os._exit(ORPHAN_EXIT_CODE)

    def _explain(self, error: BaseException) -> None:
        if isinstance(error, ConnectionError):
            return
        self._has_explained = True
        if isinstance(error, ProtocolError):
            complain(str(error))
        else:
            complain(f"it hears its host no more: {' '.join(repr(error).split())}")
