"""`pool.map`: many calls of one tool, as few at a time as needed, read one by one.

One task takes from the input and starts the calls; no task waits for any of them. Each call tells
when it has settled, and the reader decodes what it takes. An item is *held* from when it leaves the
input until its result is read, and never are more than `limit` of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import anyio
import anyio.lowlevel

from snakepit.errors import ConfigError, PoolBrokenError, PoolClosedError
from snakepit.pool._attending import Nursery
from snakepit.pool._groups import raise_lone
from snakepit.pool._inputs import Input, length_of, open_input
from snakepit.pool._long_read import Values
from snakepit.pool._pumps import close_unpulled, inputs_in
from snakepit.pool._seat import PREFETCH_AVERAGE_MAX_S, PREFETCH_MAX
from snakepit.process import shielded
from snakepit.protocol import TakesLongError, decode_value

if TYPE_CHECKING:
    from snakepit._loops import Signal
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore

    Entry: TypeAlias = PendingCall | Exception  # the latter for what never became a call

HELD_PER_WORKER: Final = 10  # more than a worker may have
CALLS_PER_WORKER_MAX: Final = 1 + PREFETCH_MAX
TURN_S: Final = 0.001  # an input that never waits lets others run as often
ON_ERROR: Final = ("cancel", "return")


@asynccontextmanager
async def open_map(
    core: PoolCore,
    start: Callable[..., PendingCall],
    start_long: Callable[[Any], Awaitable[PendingCall]],
    params: object,
    *,
    limit: int | None,
    ordered: bool,
    on_error: str,
) -> AsyncGenerator[Results]:
    """The block of `pool.map`. `start` makes the call of an item, or `start_long` where that takes a thread."""
    _check_options(limit, ordered, on_error)
    results = Results(
        core,
        start,
        start_long,
        open_input(params),
        limit=HELD_PER_WORKER * core.settings.size if limit is None else limit,
        ordered=ordered,
        returns_errors=on_error == "return",
        length=length_of(params),
    )
    try:
        async with anyio.create_task_group() as tasks:
            results._nursery = Nursery(tasks)
            tasks.start_soon(results._run, name=f"{core.settings.name}: input of map")
            try:
                yield results
            finally:
                results._close()
                await results._until_settled()  # noqa: ASYNC102 - shields itself
    except BaseExceptionGroup as group:
        raise_lone(group)


class Results(AsyncIterator[Any]):
    """The results of `pool.map`, as they are read. One task reads at a time."""

    def __init__(
        self,
        core: PoolCore,
        start: Callable[..., PendingCall],
        start_long: Callable[[Any], Awaitable[PendingCall]],
        source: Input,
        *,
        limit: int,
        ordered: bool,
        returns_errors: bool,
        length: int | None,
    ) -> None:
        self._core, self._start, self._start_long, self._source = core, start, start_long, source
        self._limit, self._ordered, self._returns_errors = limit, ordered, returns_errors
        self._length = length
        self._reading = anyio.ResourceGuard("reading")
        self._values = Values(core.codec)
        # Ordered: an entry for each item held. Else for those alone that can be read.
        self._line: deque[Entry] = deque()
        self._running: dict[PendingCall, None] = {}
        self._held = self._settled_count = self._taken_count = 0
        self._nursery: Nursery | None = None  # for tasks of its calls
        self._task = core.loop.current_task()  # whoever waits for them
        # Shielded: it ends because the block does, and not sooner than the block's own clean-up.
        self._scope = anyio.CancelScope(shield=True)
        self._exhausted = self._closed = False
        self._failure: BaseException | None = None  # ends it all
        self._input_error: Exception | None = None  # comes after what was begun before it
        self._for_reader: Signal | None = None
        self._for_input: Signal | None = None
        self._turn_ends = 0.0
        self._wake_below = 0  # when the input waits: how few calls wake it; 0: a result read does

    def __aiter__(self) -> Results:
        return self

    def __length_hint__(self) -> int:
        """How many results are still to be read, where the input has a length."""
        if self._length is None:
            return NotImplemented  # type: ignore[no-any-return]
        return max(0, self._length - self._taken_count)

    async def __anext__(self) -> Any:
        """The next result. Always a checkpoint; cancelling loses no result.

        Raises: what a call failed with, or the input, when the other calls have stopped, as often
        as one asks; anyio.BusyResourceError: another task reads; anyio.ClosedResourceError: after
        the block.
        """
        with self._reading:
            self._check_open()
            if self._has_news():
                await anyio.lowlevel.checkpoint()  # else the wait is one
            while True:
                while not self._has_news():
                    if self._for_reader is None:
                        self._for_reader = self._core.loop.new_signal()
                    await self._for_reader.wait()
                self._check_open()
                if self._failure is not None:
                    raise self._failure
                if not self._held:
                    if self._input_error is not None:
                        raise self._input_error
                    raise StopAsyncIteration
                value, error = await self._take()
                if error is None:
                    return value  # noqa: ASYNC910 - there was a checkpoint, or a wait
                if not self._is_final(error):
                    return error  # noqa: ASYNC910 - as above
                self._fail(error)
                self._give_up_all()

    def _has_news(self) -> bool:
        """Is there something for the reader: a result, an error, or the end?"""
        if self._closed:
            return True
        if self._failure is not None:
            return not self._running
        if self._line:
            first = self._line[0]
            return isinstance(first, Exception) or first not in self._running
        return self._exhausted and not self._held

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    async def _take(self) -> tuple[Any, Exception | None]:  # noqa: ASYNC910 - as above
        """The first result in line, or its error; makes room for another item. Cancelled, it stays."""
        entry = self._line[0]
        taken: tuple[Any, Exception | None]
        if isinstance(entry, Exception):
            taken = None, entry
        else:
            try:
                body, buffers = entry.outcome()
                if buffers or self._core.codec.own:
                    taken = await self._values.take(entry, body, buffers), None
                else:
                    taken = decode_value(body), None
            except Exception as error:
                taken = None, error
        self._drop_first()
        return taken  # noqa: ASYNC910 - as above

    def _drop_first(self) -> None:
        self._line.popleft()
        self._held -= 1
        self._taken_count += 1
        if self._wake_below == 0:
            self._wake_input()

    # -- the task that takes from the input --------------------------------------------------

    async def _run(self) -> None:  # noqa: ASYNC910 - the block may be left before it begins
        """Start a call of each item, in time; then close the input."""
        try:
            with self._scope:
                await self._start_all()
        except Exception as error:
            if self._returns_errors:
                self._input_error, self._exhausted = error, True
            else:
                self._fail(error)
        finally:
            if not self._exhausted and not self._closed:
                # By now it has failed, unless the task was cancelled by itself, as only asyncio can.
                self._fail(RuntimeError("the task that reads the input of map was cancelled"))
            if self._failure is not None:
                self._give_up_all()
            self._wake_reader()
            await self._source.aclose()  # noqa: ASYNC102 - cancelled if the block is

    async def _start_all(self) -> None:  # noqa: ASYNC910 - as above
        while not self._is_over():
            if self._core.now() >= self._turn_ends:
                await anyio.lowlevel.checkpoint()
                self._turn_ends = self._core.now() + TURN_S
            if self._held >= self._limit:
                await self._pause(0)
                continue
            try:
                item = await self._source.next()
            except StopAsyncIteration:
                self._exhausted = True
                break
            self._held += 1
            try:
                while self._running and (enough := self._enough()):
                    await self._pause(enough)
                if not self._is_over():
                    await self._begin(item)
                    continue
            except BaseException:
                self._close_inputs(item)
                raise
            self._close_inputs(item)
        while self._running and not self._is_over():
            await self._pause(1)  # if one fails meanwhile, this task stops the others

    def _is_over(self) -> bool:
        return self._closed or self._failure is not None

    def _enough(self) -> int:
        """Would one more call only wait? Then below how many one is due; else 0.

        So its time to wait does not begin yet. One call for each worker, until it is known that
        calls are short: then a few more, which the pool sends ahead, several at a time.
        """
        slots, running = self._core.slots, len(self._running)
        if self._core.scheduler.is_full():
            return running
        if running < len(slots):
            return 0
        if self._settled_count < CALLS_PER_WORKER_MAX * len(slots):
            return len(slots)
        short = sum(slot.worker.seat.average_s < PREFETCH_AVERAGE_MAX_S for slot in slots)
        most = len(slots) + PREFETCH_MAX * short
        return 0 if running < most else max(len(slots), most // 2)

    async def _pause(self, wake_below: int) -> None:
        """Wait until fewer calls run, or, for 0, until a result has been read."""
        self._wake_below = wake_below
        self._for_input = self._core.loop.new_signal()
        await self._for_input.wait()
        self._turn_ends = self._core.now() + TURN_S

    async def _begin(self, item: Any) -> None:  # noqa: ASYNC910 - only for a thread
        try:
            try:
                call = self._start(item)
            except TakesLongError:
                call = await self._start_long(item)
        except Exception as error:
            self._close_inputs(item)
            self._line.append(error)
            if self._is_final(error):
                self._fail(error)
            self._wake_reader()
            return  # noqa: ASYNC910 - as above
        self._running[call] = None
        if self._ordered:
            self._line.append(call)
        call.on_settled, call.nursery, call.task = self._settled, self._nursery, self._task
        if call.settled:
            self._settled(call)

    # -- what happens to calls; synchronous, on the pool's loop ------------------------------

    def _settled(self, call: PendingCall) -> None:
        """A call is over. It is not ours to end others from here: the pool is in mid-step."""
        del self._running[call]
        self._settled_count += 1
        error = call.fate or call.error
        if error is not None and self._is_final(error):
            self._fail(error)
        if not self._ordered:
            self._line.append(call)
        if call.pumps:
            self._close_inputs(None, call)
        if len(self._running) < self._wake_below:
            self._wake_input()
        if self._for_reader is not None and self._has_news():
            self._wake_reader()

    def _close_inputs(self, item: object, call: PendingCall | None = None) -> None:
        """Close the inputs of a call that no pump has closed, in a task of the block."""
        if call is not None or inputs_in(item):
            assert self._nursery is not None
            self._nursery.start(partial(close_unpulled, item, call), "inputs of map")

    def _is_final(self, error: BaseException) -> bool:
        """Does it end all, and not only its own call?"""
        return not self._returns_errors or isinstance(error, PoolClosedError | PoolBrokenError)

    def _fail(self, error: BaseException) -> None:
        if not self._is_over():
            self._failure = error
            self._scope.cancel()  # that task then stops the other calls
            self._wake_reader()

    def _give_up_all(self) -> None:
        for call in list(self._running):
            self._core.give_up(call)

    def _close(self) -> None:
        self._closed = True
        self._scope.cancel()
        self._give_up_all()
        self._wake_reader()

    async def _until_settled(self) -> None:  # noqa: ASYNC910 - at once if nothing runs
        if self._running:
            await shielded(self._wait_until_settled)

    async def _wait_until_settled(self) -> None:  # noqa: ASYNC910 - as above
        calls = list(self._running)
        for call in calls:
            await call.until_settled()
        for call in calls:
            call.check_stopped()

    def _wake_reader(self) -> None:
        if self._for_reader is not None:
            self._for_reader.set()
            self._for_reader = None

    def _wake_input(self) -> None:
        if self._for_input is not None:
            self._for_input.set()
            self._for_input = None


def _check_options(limit: object, ordered: object, on_error: object) -> None:
    if limit is not None:
        whole = isinstance(limit, int) and not isinstance(limit, bool)
        if not whole or cast("int", limit) < 1:
            raise ConfigError("limit", limit, "a whole number of at least 1, or None")
    if not isinstance(ordered, bool):
        raise ConfigError("ordered", ordered, "True or False")
    if on_error not in ON_ERROR:
        raise ConfigError("on_error", on_error, "'cancel' or 'return'")
