"""Lanes with an event loop on the main thread, for adapters with async tools.

The loop lives from `initialize` to `cleanup`, so what a tool keeps running in the background goes
on between calls. Sync tools run inline on it. A cancelled async tool gets its loop's own
cancellation; if it does not answer, because it blocks the loop, the interrupt raises
`ToolCancelled` in its code: `Interruptible` drives the tool's coroutine step by step, so that
only the tool's own steps can be interrupted, never the loop's machinery.
"""

from __future__ import annotations

from _queue import Empty, SimpleQueue
from _thread import get_ident
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from snakepit.worker._execution import Execution
from snakepit.worker._inputs import AsyncInputIterator
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import Job
from snakepit.worker._lane import Hook, Lane
from snakepit.worker._toolbox import Tool

if TYPE_CHECKING:
    import asyncio

    import trio

    from snakepit.worker._inputs import Arrival, Input

T = TypeVar("T")


class Interruptible:
    """An awaitable that drives another one; only that one's steps count as user code."""

    __slots__ = ("_interrupt", "_job", "_steps")

    def __init__(self, interrupt: Interrupt, job: Job, steps: Any) -> None:
        self._interrupt, self._job, self._steps = interrupt, job, steps

    def __await__(self) -> Interruptible:  # a generator by its methods
        return self

    def __iter__(self) -> Interruptible:
        return self

    def __next__(self) -> Any:
        return self._step(self._steps.send, None)

    def send(self, value: Any) -> Any:
        """Resume the tool with a value."""
        return self._step(self._steps.send, value)

    def throw(self, *error: Any) -> Any:
        """Resume the tool with an exception."""
        try:
            return self._step(self._steps.throw, *error)
        finally:
            del error  # its traceback will hold this frame, and so all that the call was given

    def close(self) -> None:
        """Close the tool's coroutine."""
        self._steps.close()

    def _step(self, resume: Callable[..., Any], *arguments: Any) -> Any:
        # This frame is a seam: a signal that finds it running, when the tool has just suspended
        # itself, raises nothing. The tool hears of its cancellation where it goes on.
        interrupt = self._interrupt
        try:
            interrupt.call = self._job
            interrupt.in_user_code = True
            return resume(*arguments)
        finally:
            interrupt.in_user_code = False
            del arguments  # as in `throw`


class LoopLane(Lane):
    """What the two loops share: the way of one async call, in terms of a few loop primitives."""

    def __init__(
        self, execution: Execution, interrupt: Interrupt, initialize: Hook, cleanup: Hook
    ) -> None:
        super().__init__(execution, initialize, cleanup)
        self._interrupt = interrupt
        interrupt.seams.add(Interruptible._step.__code__)
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._poked: Any = None  # the loop's own kind of event
        self._thread_id = 0
        execution.host_calls.lane = self
        self._closing = False  # a generator: nothing cuts its `finally` short

    @abstractmethod
    def _begin(self) -> None:
        """The loop runs: take hold of it."""

    @abstractmethod
    def new_event(self) -> Any:
        """An event of the loop's own kind."""

    @abstractmethod
    def call_soon(self, function: Callable[[], object]) -> None:
        """Have the loop call this, from any thread; nothing if no loop runs."""

    @abstractmethod
    async def _until_poked(self) -> None:
        """Wait for a poke since the last return. A cancellation point."""

    @abstractmethod
    async def _cancellable(self, job: Job, run: Coroutine[Any, Any, T]) -> None:
        """Run the coroutine so that `_cancel_run` cancels it; never raises its cancellation."""

    @abstractmethod
    def _cancel_run(self) -> None:
        """Cancel what `_cancellable` runs, if it does. Runs on the loop."""

    def is_here(self) -> bool:
        """Is this the thread that runs the loop?"""
        return get_ident() == self._thread_id

    def submit(self, job: Job) -> None:
        self._inbox.put(job)
        self._poke()

    def grant(self, job: Job, count: int) -> None:
        super().grant(job, count)
        self._poke()

    def cancel(self, job: Job) -> None:
        super().cancel(job)
        self.call_soon(lambda: self._deliver(job))

    def supply(self, target: Input, arrival: Arrival) -> None:
        super().supply(target, arrival)
        if isinstance(target, AsyncInputIterator):
            self.call_soon(target.poke)

    def ask(self, job: Job) -> None:
        self.call_soon(lambda: setattr(job, "answered", True))

    def stop(self) -> None:
        self._inbox.put(None)
        self._poke()

    def _poke(self) -> None:
        """Wake whatever waits in `_until_poked`, from any thread."""
        self.call_soon(lambda: self._poked.set())  # noqa: PLW0108 - the event of *then*, not of now

    def _deliver(self, job: Job) -> None:
        job.answered = True
        if self.running is job:
            if not self._closing:
                self._cancel_run()
            job.wake_inputs()

    async def serve(self, ready: Callable[[], None]) -> None:
        """`run`, on the loop."""
        self._thread_id = get_ident()
        self._begin()
        await _maybe_await(self._initialize())
        self.started = True
        try:
            ready()
            while await self._serve_next():
                pass
        finally:
            self._execution.release()
            await _maybe_await(self._cleanup())  # noqa: ASYNC102 - the host bounds it

    async def _serve_next(self) -> bool:
        # A frame of its own for each call: an idle worker keeps nothing of the last one.
        job = await self._next()
        if job is None:
            return False
        if self._take(job):
            await self._execute(job)
            self.running = None
        else:
            job.skipped()
        return True

    async def _execute(self, job: Job) -> None:
        prepared = self._execution.prepare(job)
        if prepared is not None:
            await self._run(job, *prepared)
        self._execution.release()

    async def _next(self) -> Job | None:
        while True:
            try:
                return self._inbox.get_nowait()
            except Empty:
                await self._until_poked()

    async def _run(self, job: Job, tool: Tool, arguments: dict[str, Any]) -> None:
        job.is_async = tool.is_async
        if not tool.is_async:
            self._execution.run(job, tool, arguments)
        elif tool.streaming:
            await self._cancellable(job, self._run_generator(job, tool, arguments))
        else:
            await self._cancellable(job, self._run_coroutine(job, tool, arguments))

    async def _run_coroutine(self, job: Job, tool: Tool, arguments: dict[str, Any]) -> None:
        try:
            value = await self._guarded(job, tool.call(**arguments))
        except BaseException as error:
            self._execution.finish(job, error)
        else:
            self._execution.finish(job, None, value)

    async def _run_generator(self, job: Job, tool: Tool, arguments: dict[str, Any]) -> None:
        failure: BaseException | None = None
        generator: AsyncGenerator[Any, None] | None = None
        try:
            generator = tool.call(**arguments)
            assert job.credits is not None
            credit = job.message.window
            while not job.cancelled:
                try:
                    item = await self._guarded(job, generator.__anext__())
                except StopAsyncIteration:
                    generator = None
                    break
                while credit == 0 and not job.cancelled:
                    try:
                        credit += job.credits.get_nowait()
                    except Empty:
                        await self._until_poked()
                if not job.cancelled:
                    self._execution.send_item(job, item)
                    credit -= 1
        except BaseException as error:
            failure = error
        if generator is not None:
            failure = await self._close(job, generator) or failure
        try:
            self._execution.finish_stream(job, failure)
        finally:
            del failure  # as in `Execution`

    async def _close(self, job: Job, generator: Any) -> BaseException | None:
        """Close an unfinished generator. Its GeneratorExit is the notice: nothing else comes."""
        job.spared = self._closing = True
        try:
            await self._shielded(self._guarded(job, generator.aclose()))
        except BaseException as error:
            return error
        finally:
            self._closing = False
        return None

    @abstractmethod
    async def _shielded(self, closing: Any) -> None:
        """Await the closing of a generator although its call is cancelled."""

    def _guarded(self, job: Job, awaitable: Any, /) -> Any:
        steps = awaitable if hasattr(awaitable, "send") else awaitable.__await__()
        return Interruptible(self._interrupt, job, steps)


class AsyncioLane(LoopLane):
    """`tool_backend="asyncio"`."""

    def run(self, ready: Callable[[], None]) -> None:
        import asyncio

        asyncio.run(self.serve(ready))

    def _begin(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._poked = asyncio.Event()
        self._execution.loop = asyncio.Event, lambda: asyncio.sleep(0)
        self._task: asyncio.Task[Any] | None = None

    def new_event(self) -> Any:
        import asyncio

        return asyncio.Event()

    def _cancel_run(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def call_soon(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except (AttributeError, RuntimeError):
            pass  # before the loop runs nobody waits; after it nobody serves

    async def _until_poked(self) -> None:
        await self._poked.wait()
        self._poked.clear()

    async def _cancellable(self, job: Job, run: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(run)
        if job.cancelled:  # it came before there was a task to cancel
            self._task.cancel()
        try:
            await self._until_done(self._task)
            if self._task.cancelled():  # cancelled before its first step: nothing was answered
                self._execution.settle(job, ran=False)
            else:
                self._task.result()  # an error of the library's own must not be lost in a task
        finally:
            self._task = None

    async def _until_done(self, task: asyncio.Task[Any]) -> None:
        import asyncio

        await asyncio.wait([task])

    async def _shielded(self, closing: Any) -> None:
        await closing  # asyncio delivers a cancellation once; `_closing` keeps others away


class TrioLane(LoopLane):
    """`tool_backend="trio"`."""

    def run(self, ready: Callable[[], None]) -> None:
        import trio

        trio.run(self.serve, ready)

    def _begin(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        self._poked = trio.Event()
        self._execution.loop = trio.Event, trio.lowlevel.checkpoint
        self._scope: trio.CancelScope | None = None

    def new_event(self) -> Any:
        import trio

        return trio.Event()

    def _cancel_run(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def call_soon(self, function: Callable[[], object]) -> None:
        import trio

        try:
            self._token.run_sync_soon(function)
        except (AttributeError, trio.RunFinishedError):
            pass  # before the loop runs nobody waits; after it nobody serves

    async def _until_poked(self) -> None:
        import trio

        await self._poked.wait()
        self._poked = trio.Event()

    async def _cancellable(self, job: Job, run: Coroutine[Any, Any, T]) -> None:
        import trio

        with trio.CancelScope() as self._scope:
            if job.cancelled:  # it came before there was a scope to cancel
                self._scope.cancel()
            await run
        self._scope = None

    async def _shielded(self, closing: Any) -> None:
        import trio

        with trio.CancelScope(shield=True):
            await closing


async def _maybe_await(value: Any) -> None:
    if hasattr(value, "__await__"):
        await value
