"""Async iterables as arguments: each is pulled as its tool asks for items, in a task of its call.

The worker gives credit for items, and nothing is pulled for which there is none: at most `window`
items have been pulled that the tool has not taken. A pump begins with the first credit, runs among
the tasks that belong to its call (see `_attending.py`), and closes the iterable when the tool has
ended, or wants no more of it. An iterable that was never asked for is closed all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from snakepit.errors import ProtocolError, SerializationError
from snakepit.pool._attending import Attendant, start_for
from snakepit.pool._inputs import AsyncInput
from snakepit.protocol import (
    InputCredit,
    InputEnd,
    InputItem,
    InputStop,
    TakesLongError,
    encode_value,
)

if TYPE_CHECKING:
    from snakepit._loops import Signal
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore
    from snakepit.pool._worker import Worker


class Pump:
    """One input of one call. `credit`: how many items may be pulled."""

    def __init__(self, number: int, name: str, iterable: AsyncIterable[Any]) -> None:
        self.name: str = name
        self.iterable: AsyncIterable[Any] = iterable
        self.begun: bool = False  # then it closes the iterable itself
        self._number = number
        self._credit = self._pulled_count = 0
        self._stopped = False
        self._attendant: Attendant | None = None
        self._pulling = anyio.CancelScope()
        self._granted: Signal | None = None

    def grant(self, core: PoolCore, call: PendingCall, count: int) -> None:
        """The worker gives credit. Raises ProtocolError if it is too much."""
        if not 0 < count <= call.input_window - self._credit:
            raise ProtocolError(
                f"call {call.id} gave credit for {count} items of an input, more than its window allows"
            )
        self._credit += count
        if self._attendant is None:
            call.retries_left = 0  # what was pulled cannot be pulled again
            name = f"{core.settings.name}: input {self.name!r} of {call.tool!r}"
            run = partial(self._run, core, call)
            self._attendant = start_for(core, call, run, name, end=self.stop)
        elif self._granted is not None:
            self._granted.set()

    def stop(self) -> None:
        """No more is wanted: close the iterable, in good order."""
        self._stopped = True
        self._pulling.cancel()

    async def _run(self, core: PoolCore, call: PendingCall) -> None:  # noqa: ASYNC910 - as the iterable
        """Pull and send, until the iterable is exhausted or nobody wants more; then close it."""
        self.begun = True
        source: AsyncInput | None = None
        try:
            with self._pulling:
                source = AsyncInput(aiter(self.iterable))
                await self._pull(core, call, source)
        finally:
            if source is not None:
                await source.aclose()  # noqa: ASYNC102 - cancelled if the call was given up

    async def _pull(self, core: PoolCore, call: PendingCall, source: AsyncInput) -> None:  # noqa: ASYNC910 - as above
        while not self._stopped:
            while not self._credit:
                self._granted = core.loop.new_signal()
                await self._granted.wait()
            self._credit -= 1
            try:
                item = await source.next()
            except StopAsyncIteration:
                if call.worker is not None:
                    call.worker.tell(InputEnd(call.id, self._number))
                break
            message = await self._message(core, call, item)
            self._pulled_count += 1
            if call.worker is not None:
                await call.worker.feed(message)

    async def _message(self, core: PoolCore, call: PendingCall, item: object) -> InputItem:  # noqa: ASYNC910 - only for a thread
        try:
            try:
                body, buffers = encode_value(item, places=core.places, work_max=core.codec.work_max)
            except TakesLongError:
                encode = partial(encode_value, item, places=core.places)
                body, buffers = await core.codec.in_thread(encode)
        except SerializationError as error:
            where = f"item {self._pulled_count} of argument {self.name!r}"
            raise SerializationError(f"{where}: {error.message}", error.where) from error
        return InputItem(call.id, self._number, body, buffers)  # noqa: ASYNC910 - as above


def pumps_of(params: Mapping[str, Any], inputs: Sequence[AsyncIterable[Any]]) -> list[Pump]:
    """The pumps of a call with these params, of which `inputs` are async iterables."""
    names = {id(value): name for name, value in params.items()}
    return [Pump(number, names[id(one)], one) for number, one in enumerate(inputs)]


def route_to_pump(core: PoolCore, worker: Worker, message: InputCredit | InputStop) -> None:
    """Act on what a worker says of an input. Raises ProtocolError."""
    call = worker.seat.calls.get(message.id)
    if call is None or not 0 <= message.input < len(call.pumps):
        raise ProtocolError(f"call {message.id} has no input {message.input} on this worker")
    pump = call.pumps[message.input]
    if call.given_up or call.settled:
        return
    if isinstance(message, InputStop):
        pump.stop()
    else:
        pump.grant(core, call, message.count)


async def close_unpulled(params: object, call: PendingCall | None) -> None:  # noqa: ASYNC910 - as the iterables
    """Close the inputs of a call that is over and never asked for them, or was refused."""
    if call is not None:
        iterables = [pump.iterable for pump in call.pumps if not pump.begun]
    else:
        iterables = inputs_in(params)
    with anyio.CancelScope() as scope:
        if call is not None and call.given_up:
            scope.cancel()
        async with AsyncExitStack() as stack:
            for one in iterables:
                if (close := getattr(one, "aclose", None)) is not None:
                    stack.push_async_callback(close)


def inputs_in(params: object) -> list[AsyncIterable[Any]]:
    """The async iterables among the arguments of a call."""
    values = params.values() if isinstance(params, Mapping) else ()
    return [value for value in values if isinstance(value, AsyncIterable)]
