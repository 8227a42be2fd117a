"""The desk behind `pool.as_executor()`: calls on behalf of futures, from any thread.

Any thread puts errands on the pool's one desk. A task in the pool's own nursery takes them to the
core, and gives each future its outcome when the core has settled its call: no task per future, and
no code of the user's inside a change of the core's state. A future runs from when its call is sent to
a worker that has no other; before that `cancel` succeeds, and then the call is never sent.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from weakref import WeakSet

import anyio.lowlevel
from msgspec import Raw
from trio.lowlevel import enable_ki_protection

from snakepit._trace_context import Trace, be_part_of, current_trace
from snakepit.errors import SnakepitError
from snakepit.pool._call import PendingCall
from snakepit.pool._functions import outcome_of
from snakepit.process import fork_generation
from snakepit.protocol import Buffers
from snakepit.worker._functions import RUN_SYNC

if TYPE_CHECKING:
    from snakepit.pool._core import PoolCore
    from snakepit.pool._executor import PoolExecutor

T = TypeVar("T")
Outcome: TypeAlias = tuple[Any, BaseException | None]

TURN_MAX: Final = 32  # errands and outcomes that the desk sees to before others have their turn
CATCH_UP_S: Final = 1.0  # for a loop that something blocks

_log = logging.getLogger("snakepit.pool")


class Errand:
    """One call on behalf of a future. The core calls `begins` and `settled`."""

    call: PendingCall | None = None
    _wanted: bool | None = None  # None until the future has been told that it runs, or is over

    def __init__(self, desk: Desk, body: Raw, buffers: Buffers) -> None:
        self.desk: Desk = desk
        self.body: Raw = body
        self.buffers: Buffers = buffers
        self.trace: Trace = current_trace()  # of whoever wants the future
        self.future: PoolFuture = PoolFuture(self)

    def begins(self) -> bool:
        """Tell the future, once, that it runs now; False if it has been cancelled."""
        if self._wanted is None:
            self._wanted = self.future.set_running_or_notify_cancel()
        return self._wanted

    def settled(self, call: PendingCall) -> None:
        """The core is done with it; the future hears of it from the desk's task."""
        self.call = call
        self.desk.finish(self)

    def conclude(self, error: BaseException | None = None, outcome: Outcome | None = None) -> None:
        """Give the future its outcome, the error or what the call ended with. Runs its callbacks.

        `outcome`: of the call, if it has been read.
        """
        future, call, self.call = self.future, self.call, None  # no cycle is left
        if self.begins():
            value = None
            if error is None:
                assert call is not None
                value, error = outcome or _outcome(call)
            try:
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(error)
            except BaseException:  # Exceptions the future logs itself; nothing may end the desk
                _log.exception("a callback of a future raised")
        future.errand = None


def _outcome(call: PendingCall) -> Outcome:
    try:
        return outcome_of(*call.outcome())
    except BaseException as error:  # for the future, whatever it is
        return None, error.with_traceback(None)


class PoolFuture(Future[Any]):
    """The future of one call."""

    def __init__(self, errand: Errand | None) -> None:
        super().__init__()
        self.errand: Errand | None = errand  # None once it is over

    def cancel(self) -> bool:
        """Cancel the call if no worker has it: it never runs then."""
        if not super().cancel():
            return False
        errand = self.errand
        if errand is not None:
            errand.desk.withdraw(errand)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """As `Future.result`. Raises RuntimeError where the wait could not end."""
        self._refuse_endless_wait(timeout)
        error: BaseException | None = None
        try:
            value = super().result(timeout)
            if value is None and (error := super().exception(0)) is not None:
                raise error  # it is false, which older Pythons take for none
            return value
        finally:
            del self, error  # the traceback of what is raised holds this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `Future.exception`. Raises RuntimeError where the wait could not end."""
        self._refuse_endless_wait(timeout)
        return super().exception(timeout)

    def _refuse_endless_wait(self, timeout: float | None) -> None:
        errand = self.errand
        if timeout is None and errand is not None and errand.desk.is_own_thread():
            if self.done():
                return
            raise RuntimeError(
                "this thread runs the pool's event loop, and would wait for itself for ever; use "
                "`await asyncio.wrap_future(future)`, or "
                "`await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True)`"
            )


class Desk:
    """Where one pool takes errands from any thread. `serve` runs in the pool's nursery."""

    def __init__(self, core: PoolCore) -> None:
        self.core: PoolCore = core
        settings = core.settings
        most = settings.queue.max_size
        # What the core would refuse if it came in one go is refused before it is kept.
        self._inbox_max = None if most is None else most + settings.size
        self._inbox: deque[Errand] = deque()
        self._withdrawn: deque[Errand] = deque()
        self._finished: deque[Errand] = deque()
        self._unread: dict[Errand, None] = {}  # large ones, each with a task that has yet to begin
        self._watched: deque[threading.Event] = deque()
        self.executors: WeakSet[PoolExecutor] = WeakSet()  # those with futures live with them
        self._signal = core.loop.new_signal()
        self._told = False  # the loop will look into the inbox
        self._closed = False
        self._thread = threading.get_ident()
        self._generation = fork_generation()
        self._lock = threading.RLock()
        self._refused = 0  # and not yet counted by the core

    # -- from any thread ---------------------------------------------------------------------

    def is_own_thread(self) -> bool:
        """Does the pool's event loop run in this thread?"""
        return threading.get_ident() == self._thread

    def refuse_if_shut(self) -> None:
        """Raise as an executor does, if no call can be taken any more."""
        if self._generation != fork_generation():
            raise RuntimeError("this executor belongs to the process that opened its pool")
        broken = self.core.broken
        if broken is not None:
            raise BrokenExecutor(str(broken)) from broken
        if self._closed or self.core.closing.is_set():
            closed = self.core.closed_error()
            raise RuntimeError(f"cannot schedule new futures after shutdown: {closed}") from closed

    def put(self, errand: Errand) -> None:
        """Have the errand done, or refuse it."""
        if self._inbox_max is not None and len(self._inbox) >= self._inbox_max:
            with self._lock:
                self._refused += 1
            errand.conclude(self.core.saturated_error(len(self._inbox)))
            return
        self._inbox.append(errand)
        self._tell()

    def withdraw(self, errand: Errand) -> None:
        """Its future has been cancelled."""
        self._withdrawn.append(errand)
        self._tell()

    def catch_up(self) -> None:
        """Let what was put here so far begin where a worker is free."""
        looked = threading.Event()
        self._watched.append(looked)
        self._tell()
        looked.wait(CATCH_UP_S)

    def _tell(self) -> None:
        """Have the loop look at what was put here."""
        if self._closed:  # asked after the append: either we see it, or `close` sees the errand
            self._sweep()
        elif self.core.loop.is_here():
            self._signal.set()
        elif not self._told:
            try:
                self._told = True
                self.core.loop.call_soon(self._wake)
            except RuntimeError:  # the loop has ended, and the pool's block was never left
                self.close()
            except BaseException:  # Ctrl+C
                self._told = False
                raise

    # -- on the loop -------------------------------------------------------------------------

    def finish(self, errand: Errand) -> None:
        """The errand's call has settled."""
        self._finished.append(errand)
        if self._closed:
            self._sweep()
        else:
            self._signal.set()

    @enable_ki_protection
    async def serve(self) -> None:
        """Run until cancelled; then no future is left without an outcome, or will be."""
        try:
            while True:
                self._signal = self.core.loop.new_signal()
                if self._look():
                    await anyio.lowlevel.checkpoint()
                else:
                    self._tell_watchers()
                    await self._signal.wait()
        finally:
            self.close()

    def close(self) -> None:
        """From now on nothing waits here."""
        self._closed = True
        self._sweep()

    def _wake(self) -> None:
        self._told = False  # before the look: who puts something there meanwhile tells again
        self._signal.set()

    def _look(self) -> bool:
        """See to some of what is here; True if there is more."""
        for _ in range(TURN_MAX):
            if self._finished:
                self._conclude(self._finished.popleft())
            if self._withdrawn:
                self._give_up(self._withdrawn.popleft())
            if self._inbox:
                self._submit(self._inbox.popleft())
        if self._refused:
            with self._lock:
                self.core.saturated += self._refused
                self._refused = 0
        return bool(self._finished or self._withdrawn or self._inbox)

    def _conclude(self, errand: Errand) -> None:
        """Give it its outcome, or have a task do that where it takes a thread to read it."""
        call, nursery = errand.call, self.core.nursery
        if call is None or nursery is None or not self.core.codec.takes_long(call.result):
            errand.conclude()
            return
        self._unread[errand] = None
        nursery.start(
            partial(self._read, errand, call), f"{self.core.settings.name}: a large value"
        )

    async def _read(self, errand: Errand, call: PendingCall) -> None:
        outcome: Outcome | None = None
        if errand not in self._unread:
            return  # noqa: ASYNC910 - it was concluded when the pool closed
        del self._unread[errand]
        try:
            outcome = await self.core.codec.in_thread(partial(_outcome, call))
        finally:
            errand.conclude(outcome=outcome)

    def _give_up(self, errand: Errand) -> None:
        if errand.call is not None:
            self.core.give_up(errand.call)
        else:  # it was quicker than its submission
            errand.conclude()

    def _submit(self, errand: Errand) -> None:
        if errand.future.cancelled():
            errand.conclude()
            return
        core = self.core
        be_part_of(errand.trace)
        try:
            core.refuse_if_shut()
            errand.call = core.submit(
                RUN_SYNC,
                errand.body,
                errand.buffers,
                info=None,
                timeout=None,
                follower=errand,
            )
        except SnakepitError as error:
            errand.conclude(error)

    def _sweep(self) -> None:
        """End everything here, in whatever thread. Calls that the core still has end with the pool."""
        for errand in _popping(self._finished):
            errand.conclude()
        while self._unread:  # whose tasks were cancelled before they began
            self._unread.popitem()[0].conclude()
        for errand in _popping(self._inbox):
            errand.conclude(self.core.closed_error())
        self._withdrawn.clear()
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        for looked in _popping(self._watched):
            looked.set()


def _popping(things: deque[T]) -> Iterator[T]:
    while True:
        try:
            yield things.popleft()
        except IndexError:  # it is empty, or another thread sweeps too
            return
