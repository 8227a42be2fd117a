"""Inputs: arguments whose items come one by one, as the tool asks for them.

A sync tool gets an iterator that blocks, an async one an async iterator. Nothing is asked of the
host before the tool asks for the first item; then as many items as the call's window allows are on
the way or wait here. They come by whoever reads the wire, who puts them into `arrived`.

An input belongs to its call: it raises `ToolCancelled` once that is cancelled, `RuntimeError`
when it is over. A sync tool that waits here is masked from the interrupt (see `Interrupt`); the
cancellation wakes it by a None in `arrived`.
"""

from __future__ import annotations

from _queue import Empty, SimpleQueue
from _thread import allocate_lock, get_ident
from abc import ABC
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from snakepit.errors import ToolCancelled
from snakepit.protocol import InputCredit, InputEnd, InputItem, InputStop
from snakepit.worker._checks import Check, failure_of
from snakepit.worker._values import read_value

if TYPE_CHECKING:
    from snakepit.worker._interrupt import Interrupt
    from snakepit.worker._job import Job
    from snakepit.worker._service import Sender

Arrival: TypeAlias = InputItem | InputEnd | None  # None: look at what became of the call
Wait: TypeAlias = Callable[[SimpleQueue[Any]], Any]
# Of an event loop: how to make an event, and a checkpoint.
LoopPrimitives: TypeAlias = tuple[Callable[[], Any], Callable[[], Awaitable[object]]]


class Input(ABC):
    """What the two kinds of iterators share. `name`: of the argument; `check`: of its items."""

    is_async: bool

    def __init__(self, job: Job, number: int, wire: Sender, interrupt: Interrupt) -> None:
        self.arrived: Final[SimpleQueue[Arrival]] = SimpleQueue()
        self.name = ""
        self.check: Check = None
        self._job, self._number = job, number
        self._wire, self._interrupt = wire, interrupt
        self._window = job.message.input_window
        self._owed = self._window  # items that were taken and for which no others were asked
        self._taken_count = 0
        self._ended = False  # there is nothing more, or nothing more is wanted

    def __repr__(self) -> str:
        return f"<input {self.name!r} of call {self._job.id}>"

    def close(self) -> None:
        """Want no more of it; the caller's iterable is closed. The tool's end does this, too."""
        if not self._ended:
            self._ended = True
            self.wake()
            if not (self._job.over or self._job.cancelled):
                self._interrupt.masked(self._send_stop)

    def wake(self) -> None:
        """Let who waits look at what became of the call. On the loop's thread, if there is a loop."""
        self.arrived.put(None)

    def _check_call(self) -> None:
        job = self._job
        if job.over:
            raise RuntimeError(
                f"the input {self.name!r} ended with its call of {job.tool!r}; make it a list to keep it"
            )
        if job.cancelled:
            job.interrupted = True
            raise ToolCancelled("this call was cancelled")

    def _ask(self) -> None:
        """Ask for further items, once half of the window has been taken. The caller is masked."""
        if self._owed >= (self._window + 1) // 2:
            count, self._owed = self._owed, 0
            self._send(InputCredit(self._job.id, self._number, count), wait=True)

    def _accept(self, arrival: InputItem | InputEnd) -> None:
        """Count it, and ask for more. The caller is masked."""
        if type(arrival) is InputItem:
            self._owed += 1
            self._taken_count += 1
            self._ask()
        else:
            self._ended = True

    def _value(self, item: InputItem) -> Any:
        """The item's value, as the annotation of the argument has it."""
        value = read_value(item.body, item.buffers)
        check = self.check
        if check is None or type(value) in check[0]:
            return value
        try:
            return check[1](value)
        except Exception as error:
            which = f"item {self._taken_count - 1} of argument {self.name!r}"
            raise TypeError(f"{which}: {failure_of(error)}") from error

    def _send_stop(self) -> None:
        # Advice, so it is left out where the wire is busy: this may be a generator's `finally` that
        # the garbage collector runs while this very thread writes.
        self._send(InputStop(self._job.id, self._number), wait=False)

    def _send(self, message: InputCredit | InputStop, *, wait: bool) -> None:
        try:  # behind the answer to the call nothing more may be said about it
            self._wire.send_taken(lambda: None if self._job.over else message, wait=wait)
        except OSError:
            pass  # the host is gone, which is noticed elsewhere


class InputIterator(Input):
    """What a sync tool gets. `wait` takes the next of a queue, on the thread that made this."""

    is_async = False

    def __init__(
        self, job: Job, number: int, wire: Sender, interrupt: Interrupt, wait: Wait
    ) -> None:
        super().__init__(job, number, wire, interrupt)
        self._wait = wait
        self._thread_id = get_ident()
        self._reading = allocate_lock()

    def __iter__(self) -> InputIterator:
        return self

    def __next__(self) -> Any:
        """The next item. Blocks until it has come; interruptible.

        Raises: ToolCancelled: the call was cancelled. RuntimeError: it is over. ValueError: another
        thread waits here. TypeError: an item is not what the annotation says.
        """
        item = self._interrupt.masked(self._take)
        if item is None:
            raise StopIteration
        return self._value(item)

    def _take(self) -> InputItem | None:
        if not self._reading.acquire(blocking=False):
            raise ValueError(f"another thread waits for the next item of input {self.name!r}")
        try:
            arrival: Arrival = None
            while arrival is None:
                self._check_call()
                if self._ended:
                    return None
                self._ask()
                on_lane = get_ident() == self._thread_id
                arrival = self._wait(self.arrived) if on_lane else self.arrived.get()
            self._accept(arrival)
            return arrival if type(arrival) is InputItem else None
        finally:
            self._reading.release()


class AsyncInputIterator(Input):
    """What an async tool gets. `new_event` and `checkpoint` are those of its loop."""

    is_async = True

    def __init__(
        self,
        job: Job,
        number: int,
        wire: Sender,
        interrupt: Interrupt,
        new_event: Callable[[], Any],
        checkpoint: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(job, number, wire, interrupt)
        self._new_event, self._checkpoint = new_event, checkpoint
        self._event: Any = None
        self._reading = False

    def __aiter__(self) -> AsyncInputIterator:
        return self

    async def __anext__(self) -> Any:
        """The next item. Always a checkpoint; cancelling loses no item.

        Raises: ToolCancelled: the call was cancelled, and the tool goes on. RuntimeError: it is over,
        or another task waits here. TypeError: an item is not what the annotation says.
        """
        if self._reading:
            raise RuntimeError(f"another task waits for the next item of input {self.name!r}")
        self._reading = True
        try:
            await self._checkpoint()
            while (arrival := self._next_arrival()) is None:
                await self._event.wait()
                await self._checkpoint()  # the loop's own cancellation goes before ours
        finally:
            self._reading = False
        if type(arrival) is not InputItem:
            raise StopAsyncIteration
        return self._value(arrival)

    async def aclose(self) -> None:
        """Want no more of it; the caller's iterable is closed. The tool's end does this, too."""
        self.close()
        await self._checkpoint()

    def wake(self) -> None:
        super().wake()
        self.poke()

    def poke(self) -> None:
        """Something has arrived. On the loop's thread."""
        if self._event is not None:
            self._event.set()

    def _next_arrival(self) -> Arrival:
        """What has arrived; else None, and an event to wait for."""
        while True:
            self._check_call()
            if self._ended:
                return InputEnd(self._job.id, self._number)
            self._interrupt.masked(self._ask)
            self._event = self._new_event()  # before the look: what arrives after it is told
            try:
                arrival = self.arrived.get_nowait()
            except Empty:
                return None
            if arrival is not None:
                self._interrupt.masked(self._accept, arrival)
                return arrival
