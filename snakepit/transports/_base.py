"""The channel seam: one reliable link of messages to one worker.

Everything above deals in whole messages and knows nothing of pipes, frames or parts; everything
below knows nothing of calls. The messages of one call arrive in order; small ones of other calls
may overtake a large value. A message is delivered whole or not at all, and a link that lost its
place never finds it again: it is broken for good.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from snakepit.protocol import ToHost, ToWorker


class Channel(ABC):
    """Duplex messages with one worker. Closed with the block it was opened in.

    `is_direct`: what the worker writes can be read at once by `receive_nowait`, whether this
    process does anything meanwhile or not; so an answer may come sooner than a task sleeps and wakes up.

    `on_unsendable` is called, in the task of `run`, with a message of `send_nowait` that turns out not to be
    writable, and why: a MemoryError or SerializationError. The worker never sees it, and the link goes on;
    without such a function it is broken.
    """

    is_direct: bool = False
    on_unsendable: Callable[[ToWorker, Exception], object] | None = None

    @abstractmethod
    def send_nowait(self, message: ToWorker) -> bool:
        """Take the message for sending, at once where the link has room, and return.

        It has been copied or is kept until it is sent; a frame once begun is always finished.
        Returns False if the worker is known to be gone: it will never see the message.
        """

    @property
    def is_sending(self) -> bool:
        """Does anything wait to be sent, so that it could still be withdrawn?"""
        return False

    @property
    def stalled_at(self) -> int | None:
        """How many bytes the worker has taken, while more wait for it to read; else None."""
        return None

    @property
    def shares_memory(self) -> bool:
        """Has its worker said that large values may come as references?"""
        return False

    @property
    def lent_bytes(self) -> int:
        """How much shared memory its worker looks at."""
        return 0

    @property
    def peer_counts(self) -> tuple[int, ...] | None:
        """What its worker has told of the shared memory for its results; None where there is none."""
        return None

    def queue_nowait(self, message: ToWorker) -> bool:
        """As `send_nowait`, but `flush_nowait` follows at once: messages may share a write."""
        return self.send_nowait(message)

    def flush_nowait(self) -> None:  # noqa: B027 - nothing to do where nothing is held back
        """Begin to send what was queued."""

    @abstractmethod
    async def send(self, message: ToWorker) -> None:
        """Send the message and wait until the link has taken all of it.

        If cancelled before its last frame began, it is withdrawn: the worker never sees it.
        Raises: anyio.BrokenResourceError: the worker is gone. anyio.ClosedResourceError. MemoryError,
        SerializationError: it cannot be written; the link goes on.
        """

    @abstractmethod
    def withdraw(self, message: ToWorker) -> bool:
        """Take a message back that has not been sent in full; False if it is too late."""

    @abstractmethod
    async def receive(self) -> list[ToHost]:
        """Wait until messages have come and return all of them, at least one.

        Cancelling loses nothing. Raises: anyio.EndOfStream: the worker closed its end in good
        order. anyio.BrokenResourceError: it was cut off inside a message. ProtocolError: what came
        is no message. anyio.BusyResourceError: two receivers. anyio.ClosedResourceError.
        """

    def receive_nowait(self) -> list[ToHost]:
        """What has come by now; [] if nothing has, and where the link is not direct. Raises as `receive`."""
        return []

    @abstractmethod
    async def run(self) -> None:
        """Do the link's background work, sending what had to wait, until cancelled or closed."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the link at once; idempotent. Not a checkpoint."""


class BaseLink(ABC):
    """A channel in the making, for one worker.

    Usage: `with transport.open_link() as link:` bring the worker to its end, `link.connect()`.
    """

    @abstractmethod
    def connect(self) -> Channel:
        """The host's end; somebody has to run its `run`."""

    @abstractmethod
    def close(self) -> None:
        """Close whatever is still open; idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Link(BaseLink):
    """The link of a worker that is a process: what to hand it, and our end.

    Usage: `with transport.open_link() as link:` start the process with `link.stdin` and
    `link.stdout`, then `link.worker_started()`, then use `link.connect()`. `pass_fds`: what else it
    inherits, under the same numbers. `env`: added to its environment.
    """

    stdin: int
    stdout: int
    pass_fds: tuple[int, ...] = ()
    env: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def worker_started(self) -> None:
        """Close the ends that the process has inherited by now."""


class Transport(ABC):
    """A way to reach workers that this host starts."""

    name: str

    @abstractmethod
    def open_link(self) -> BaseLink:
        """Make a link for one worker: for one that is a process, a `Link`."""
