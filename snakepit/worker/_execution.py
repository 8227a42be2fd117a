"""How one call becomes its outcome: look up, check, run, write. The sync half of every lane.

Everything here runs on the main thread. User code runs only between the two stores to
`interrupt.in_user_code` in `_guarded`; the rest is library code, where no interrupt is raised.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections.abc import Callable, Mapping
from typing import Any

from snakepit.errors import (
    InvalidParamsError,
    ProtocolError,
    SerializationError,
    ToolNotFoundError,
)
from snakepit.protocol import (
    End,
    Failure,
    Item,
    Result,
    Settled,
    ToHost,
    describe,
    encode_value,
)
from snakepit.worker._context import CallContext, current_context
from snakepit.worker._host_calls import HostCalls
from snakepit.worker._inputs import AsyncInputIterator, Input, InputIterator, LoopPrimitives
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import Job
from snakepit.worker._offspring import now
from snakepit.worker._progress import Reporter
from snakepit.worker._service import Sender
from snakepit.worker._sessions import SessionStates
from snakepit.worker._toolbox import Tool, find
from snakepit.worker._values import read_value

_KINDS = (
    (ToolNotFoundError, "not_found"),
    (InvalidParamsError, "params"),
    (SerializationError, "serialization"),
    (ProtocolError, "serialization"),
)


class Execution:
    """Runs the calls of one worker, one at a time. `wait` takes the next of a queue that the host fills."""

    def __init__(
        self,
        wire: Sender,
        interrupt: Interrupt,
        tools: Mapping[str, Tool],
        wait: Callable[[SimpleQueue[Any]], Any] = SimpleQueue.get,
        reporter: Reporter | None = None,
        host_calls: HostCalls | None = None,
    ) -> None:
        self._wire = wire
        self._wait = wait
        self._interrupt = interrupt
        self._tools = tools
        self._reporter = reporter or Reporter(wire, interrupt)
        self.host_calls: HostCalls = host_calls or HostCalls(wire, interrupt)
        self.sessions = SessionStates()
        # Ends the processes that a cancelled call has started; None where they are not ours alone.
        self.end_started: Callable[[Job], None] | None = None
        self.tells_time = True  # how long calls take; not where the host's time is virtual
        self.loop: LoopPrimitives | None = None  # where async tools run

    def prepare(self, job: Job) -> tuple[Tool, dict[str, Any]] | None:
        """The tool and its checked arguments; None if the call has already been answered.

        `release` must follow in any case.
        """
        if job.cancelled:
            self.settle(job, ran=False)
            return None
        message = job.message
        state = None if message.session is None else self.sessions.of(message.session)
        current_context.set(CallContext(job, self._reporter, self.host_calls, state))
        try:
            tool = find(self._tools, message.tool)
            if tool.streaming != (message.window > 0):
                raise InvalidParamsError(tool.name, _WRONG_CALL[tool.streaming])
            if message.input_window:
                params = self._with_inputs(job, tool)
            else:
                params = read_value(message.body, message.buffers)
            if type(params) is not dict:
                raise InvalidParamsError(tool.name, "params must be a dict of argument names")
            arguments = tool.bind(params)
        except BaseException as error:  # conversion runs constructors of the user's
            self._settle_or_fail(job, error, _kind(error, "params"))
            return None
        return tool, arguments

    def _with_inputs(self, job: Job, tool: Tool) -> Any:
        """The arguments, iterators for the inputs among them."""
        inputs: dict[int, Input] = {}

        def open_input(number: int) -> Input:
            if tool.is_async:
                assert self.loop is not None
                opened: Input = AsyncInputIterator(
                    job, number, self._wire, self._interrupt, *self.loop
                )
            else:
                opened = InputIterator(job, number, self._wire, self._interrupt, self._wait)
            inputs[number] = opened
            return opened

        message = job.message
        params = read_value(message.body, message.buffers, open_input)
        if type(params) is dict:
            for name, value in params.items():
                if isinstance(value, Input):
                    value.name, value.check = name, tool.check_of_items(name)
        job.inputs = inputs
        return params

    def release(self) -> None:
        """Let go of the call that has ended, of its arguments and its value."""
        self._interrupt.call = None
        current_context.set(None)

    def run(self, job: Job, tool: Tool, arguments: dict[str, Any]) -> None:
        """Run a sync tool to its end and write the outcome."""
        if tool.streaming:
            self._run_generator(job, tool, arguments)
            return
        try:
            value = self._guarded(job, tool.call, **arguments)
        except BaseException as error:
            self.finish(job, error)
        else:
            self.finish(job, None, value)

    def finish(self, job: Job, error: BaseException | None, value: object = None) -> None:
        """Write the outcome of a call that ran: exactly one message."""
        if job.cancelled:
            self.settle(job)
        elif error is not None:
            self._fail(job, error, "tool")
        elif job.message.window:
            self._answer(job, End(job.id))
        else:
            try:
                body, buffers = encode_value(value, places=self._wire.places)
            except BaseException as problem:  # encoding runs properties of the user's
                self._fail(job, problem, _kind(problem, "serialization"))
            else:
                took_us = int((now() - job.begun) * 1e6) if self.tells_time else None
                self._answer(job, Result(job.id, body, buffers, took_us))

    def settle(self, job: Job, *, ran: bool = True) -> None:
        """Tell the host that its cancel has been followed.

        A call that SIGTERM has ended is not answered: it ends with its worker's death.
        """
        if job.host_asked:
            if ran and self.end_started is not None:
                self.end_started(job)
            self._answer(job, Settled(job.id, ran))

    def finish_stream(self, job: Job, failure: BaseException | None) -> None:
        """Write the outcome of a stream; an item that could not travel is its own kind of failure."""
        if isinstance(failure, SerializationError):
            self._settle_or_fail(job, failure, "serialization")
        else:
            self.finish(job, failure)

    def send_item(self, job: Job, value: object) -> None:
        """Write one item of a stream. Raises SerializationError."""
        body, buffers = encode_value(value, places=self._wire.places)
        try:
            self.send(Item(job.id, body, buffers))
        except Exception as error:
            raise SerializationError(f"an item could not be sent: {error}") from error

    def send(self, message: ToHost) -> None:
        """Write to the host; a host that is gone is the I/O thread's business.

        Raises, before the first byte, what keeps a value from being written, as MemoryError.
        """
        try:
            self._wire.send(message)
        except OSError:
            pass

    def _run_generator(self, job: Job, tool: Tool, arguments: dict[str, Any]) -> None:
        generator: Any = None
        failure: BaseException | None = None
        try:
            generator = iter(self._guarded(job, tool.call, **arguments))
            credit, end = job.message.window, object()
            while not job.cancelled:
                item = self._guarded(job, next, generator, end)
                if item is end:
                    generator = None
                    break
                while credit == 0 and not job.cancelled:
                    assert job.credits is not None
                    credit += self._wait(job.credits)
                if not job.cancelled:
                    self.send_item(job, item)
                    credit -= 1
        except BaseException as error:
            failure = error
        if generator is not None:
            failure = self._close(job, generator) or failure
        try:
            self.finish_stream(job, failure)
        finally:
            del failure  # its traceback holds this frame, and so all that the call was given

    def _close(self, job: Job, generator: Any) -> BaseException | None:
        """Close an unfinished generator. Its GeneratorExit is the notice: no interrupt comes."""
        job.spared = True
        try:
            self._guarded(job, getattr(generator, "close", lambda: None))
        except BaseException as error:
            return error
        return None

    def _guarded(
        self, job: Job, user_code: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run user code, interruptibly. The stores are inside the `try`s on purpose: see Interrupt."""
        interrupt = self._interrupt
        try:
            interrupt.call = job
            interrupt.in_user_code = True
            value = user_code(*args, **kwargs)
            interrupt.in_user_code = False
        except BaseException:
            interrupt.in_user_code = False
            raise
        return value

    def _settle_or_fail(self, job: Job, error: BaseException, kind: str) -> None:
        if job.cancelled:
            self.settle(job)
        else:
            self._fail(job, error, kind)

    def _fail(self, job: Job, error: BaseException, kind: str) -> None:
        self._answer(job, Failure(job.id, kind, describe(error)))

    def _answer(self, job: Job, outcome: ToHost) -> None:
        """Write the last message of a call, behind its last update."""
        job.over = True
        if job.asked_host:
            self.host_calls.finish(job)
        if job.inputs is not None:
            job.wake_inputs()
            job.inputs = None
        if job.report is not job.reported:
            self._reporter.send_last(job)
        try:
            self.send(outcome)
        except Exception as error:
            self.send(Failure(job.id, "serialization", describe(error)))


_WRONG_CALL = {
    True: "this tool streams; call it with pool.stream(...)",
    False: "this tool returns one value; call it with pool.execute(...)",
}


def _kind(error: BaseException, default: str) -> str:
    return next((kind for cls, kind in _KINDS if isinstance(error, cls)), default)
