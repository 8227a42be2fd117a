"""What the checks look with: messages of any size, sentences for what is wrong, cancels in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel
from msgspec import Raw

from snakepit.errors import ProtocolError
from snakepit.protocol import NIL, Call, Failure, Message, ToWorker, encode_value
from snakepit.testing._pair import Peer
from snakepit.transports import Channel

# What a link may hold without anybody reading: pipe buffers, windows, queues, all together.
LINK_BYTES_MAX: Final = 8 * 2**20
LARGE_BYTES: Final = LINK_BYTES_MAX + 4 * 2**20
PATIENCE_S: Final = 5.0  # for what has been sent to arrive, on a slow machine
QUIET_S: Final = 0.01  # for what another thread or process does when all tasks here wait

LINK_ERRORS: Final = (
    anyio.BrokenResourceError,
    anyio.BusyResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    ProtocolError,
)

Operation: TypeAlias = Callable[[], Awaitable[object]]


# -- what is wrong ---------------------------------------------------------------------------------


def expect(condition: object, otherwise: str) -> None:
    """`assert`, but not taken out by `python -O`."""
    if not condition:
        raise AssertionError(otherwise)


@contextmanager
def must_raise(kind: type[Exception], what: str) -> Generator[None]:
    """The block must raise that error; `what` says what it does."""
    try:
        yield
    except kind:
        return
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what} raises {error!r}, not {kind.__name__}") from error
    raise AssertionError(f"{what} raises no {kind.__name__}")


@contextmanager
def in_time(otherwise: str) -> Generator[None]:
    """The block must not take longer than `PATIENCE_S`."""
    with anyio.move_on_after(PATIENCE_S) as scope:
        yield
    expect(not scope.cancelled_caught, otherwise)


# -- messages --------------------------------------------------------------------------------------


def body(size: int) -> Raw:
    """A value of about that size, in the message itself."""
    return encode_value(bytes(size), buffer_threshold=2**40)[0]


def large_call(number: int) -> Call:
    """A call that no link takes at once."""
    return Call(number, "large", NIL, (bytes([number]) * LARGE_BYTES,))


def content(message: Message) -> tuple[Any, ...]:
    """A message as something that can be compared, whatever holds its bytes."""
    buffers = tuple(bytes(memoryview(buffer)) for buffer in getattr(message, "buffers", ()))
    texts = (message.error,) if isinstance(message, Failure) else ()
    return (
        type(message).__name__,
        getattr(message, "id", None),
        getattr(message, "tool", None),
        bytes(memoryview(getattr(message, "body", b""))),
        buffers,
        texts,
    )


def contents(messages: Iterable[Message]) -> list[tuple[Any, ...]]:
    """As `content`, of each."""
    return [content(message) for message in messages]


async def receive_all(channel: Channel, count: int, otherwise: str) -> list[Any]:
    """So many messages from the peer, in time and no more."""
    messages: list[Any] = []
    await anyio.lowlevel.checkpoint()
    with in_time(otherwise):
        while len(messages) < count:
            try:
                messages += await channel.receive()
            except LINK_ERRORS as error:
                raise AssertionError(f"{otherwise}: {error!r}") from error
    expect(len(messages) == count, f"{len(messages)} messages came of {count} that were sent")
    return messages


async def peer_receives(peer: Peer, otherwise: str) -> Any:
    """The peer's next message, in time."""
    received: list[ToWorker] = []
    await anyio.lowlevel.checkpoint()
    with in_time(otherwise):
        received.append(await peer.receive())
    return received[0]


async def send_in_time(channel: Channel, message: Any) -> None:
    """Send to a peer that reads, or is gone."""
    await anyio.lowlevel.checkpoint()
    with in_time("`send` to a peer that reads, or is gone, never returns"):
        await channel.send(message)


async def receive_in_time(channel: Channel, otherwise: str) -> list[Any]:
    """What one `receive` returns, or its error."""
    messages: list[Any] = []
    await anyio.lowlevel.checkpoint()
    with in_time(otherwise):
        messages += await channel.receive()
    return messages


# -- time ------------------------------------------------------------------------------------------


async def until_quiet() -> None:
    """Wait until nothing moves any more, the transport's own tasks and threads included."""
    await anyio.wait_all_tasks_blocked()
    await anyio.sleep(QUIET_S)
    await anyio.wait_all_tasks_blocked()


class Yields:
    """Awaits an operation, and calls `look` each time that it lets others run.

    The errors of a link end it as its return does.
    """

    def __init__(self, operation: Operation, look: Callable[[], object] = lambda: None) -> None:
        self.operation, self.look = operation, look
        self.seen: list[Any] = []

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self.operation().__await__()
        advance: Callable[[], Any] = inner.__next__
        while True:
            try:
                yielded = advance()
            except (StopIteration, *LINK_ERRORS):
                return
            self.seen.append(self.look())
            try:
                value = yield yielded
                advance = partial(inner.send, value)
            except BaseException as error:
                advance = partial(inner.throw, error)


async def must_checkpoint(operation: Operation, what: str) -> None:
    """It must let others run, and itself be cancelled, whatever it has to say then."""
    await must_be_cancellable(operation, what)
    yields = Yields(operation)
    await yields
    expect(yields.seen, f"{what} lets nobody else run")


async def must_be_cancellable(operation: Operation, what: str) -> None:
    """In a cancelled scope it must do nothing but end as cancelled."""
    await anyio.lowlevel.checkpoint()
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await operation()
        except LINK_ERRORS:
            pass
    expect(scope.cancelled_caught, f"{what} cannot be cancelled")


async def cancelled_at(step: int, operation: Operation) -> bool:
    """Cancel it when it lets others run for the `step`-th time; False if it does so less often."""
    await anyio.lowlevel.checkpoint()
    with anyio.CancelScope() as scope:

        def look() -> None:
            nonlocal step
            step -= 1
            if step == 0:
                scope.cancel()

        await Yields(operation, look)
    return step <= 0
