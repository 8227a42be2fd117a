"""The worker's end of a link in memory: messages in and out, and the faults on their way."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from threading import Lock

import anyio

from snakepit.errors import ProtocolError
from snakepit.launchers._host_loop import HostLoop
from snakepit.process import ExitStatus, fork_generation
from snakepit.protocol import Packer, Places, ToHost, ToWorker, Unpacker, decode_to_worker
from snakepit.transports._faults import Delay, Die, Direction, Fault, Garbage, Passage, Silence
from snakepit.transports._memory import MemoryLink

READ_BYTES_MAX = 2**16


class MemoryWire:
    """One duplex link of messages. `send` from the loop and the tools' thread, the rest on the loop.

    `die` ends the worker as a signal would, and closes this.
    """

    places: Places | None = None

    def __init__(
        self, link: MemoryLink, loop: HostLoop, die: Callable[[ExitStatus], object]
    ) -> None:
        self.is_silent: bool = False
        self._closed = False
        self._generation = fork_generation()
        self._taking = Lock()
        self._end = link.worker_end
        self._worker, self._plan = link.ordinal, link.faults
        self._loop, self._die = loop, die
        self._packer = Packer()
        self._unpacker = Unpacker(decode_to_worker)
        self._passed = 0
        self._outbox: deque[tuple[ToHost, bytes]] = deque()  # where there is a plan
        self._posted = anyio.Event()
        self._emptied = anyio.Event()

    def send(self, message: ToHost) -> None:
        """Send the whole message; a host that is gone does not hear it.

        It is packed here and now: what a tool does to its value afterwards changes nothing.
        """
        data = self._packer.pack(message)
        if data is None:
            frames = self._packer.pack_parts(message)
            data = b"".join(part for frame in frames for part in frame if part is not None)
        self._loop.call(self._put, message, data)

    def send_taken(self, take: Callable[[], ToHost | None], *, wait: bool) -> bool:
        """Send what `take` gives when it is its turn, if that is anything; see `Wire.send_taken`."""
        if not self._taking.acquire(blocking=wait):
            return False
        try:
            message = take()
            if message is not None:
                self.send(message)
        finally:
            self._taking.release()
        return True

    @property
    def is_closed(self) -> bool:
        """True in a child that a tool has forked, and for a worker that has ended."""
        return self._closed or self._generation != fork_generation()

    async def read(self, handle: Callable[[list[ToWorker]], object]) -> bool:
        """Wait for bytes and act on the messages that they complete; False at the end of the stream.

        Raises ProtocolError.
        """
        if self._unpacker.broken:
            raise ProtocolError(self._unpacker.broken)
        try:
            await self._end.until_readable()
            chunk = self._end.read(READ_BYTES_MAX)
        except (anyio.ClosedResourceError, OSError):
            return False  # noqa: ASYNC910 - until_readable is one
        messages = self._unpacker.feed(chunk) if chunk else []
        if self._plan is None:
            handle(messages)
        else:
            for message in messages:
                await self._let_in(message, handle)
                if self._closed:  # it died of this one
                    return False
        return bool(chunk)

    def close(self) -> None:
        """Send nothing more and read nothing more: the worker has ended."""
        self._closed = True
        self._end.close()

    async def deliver(self) -> None:  # noqa: ASYNC910 - only without a plan
        """Carry what is sent past the faults, until cancelled; without a plan it needs no carrying."""
        while self._plan is not None:
            while self._outbox:
                await self._let_out(*self._outbox[0])
                self._outbox.popleft()
            self._emptied.set()
            self._posted = anyio.Event()
            await self._posted.wait()

    async def drained(self) -> None:  # noqa: ASYNC910 - at once where nothing waits
        """Wait until all that was sent has been carried."""
        if self._outbox:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    async def _let_in(self, message: ToWorker, handle: Callable[[list[ToWorker]], object]) -> None:
        fault = await self._meet("to_worker", message)
        if isinstance(fault, Die) and fault.when != "after":
            self._end_by(fault)
        elif not (isinstance(fault, Garbage) and fault.instead):
            handle([message])
        if isinstance(fault, Garbage):
            handle(self._unpacker.feed(fault.data))
        elif isinstance(fault, Die):
            self._end_by(fault)

    async def _let_out(self, message: ToHost, data: bytes) -> None:
        fault = await self._meet("to_host", message)
        if isinstance(fault, Die) and fault.when != "after":
            self._write(data[: len(data) // 2] if fault.when == "within" else b"")
        elif not (isinstance(fault, Garbage) and fault.instead):
            self._write(data)
        if isinstance(fault, Garbage):
            self._write(fault.data)
        elif isinstance(fault, Die):
            self._end_by(fault)

    async def _meet(self, direction: Direction, message: ToWorker | ToHost) -> Fault | None:
        """The fault that meets this message, its delay or silence done."""
        assert self._plan is not None
        fault = None
        if not self.is_silent:
            self._passed += 1
            fault = self._plan(Passage(self._worker, self._passed, direction, message))
        if isinstance(fault, Delay):
            await anyio.sleep(fault.seconds)
        elif isinstance(fault, Silence):
            self.is_silent = True
        if self.is_silent:
            await anyio.sleep_forever()
        return fault  # noqa: ASYNC910 - a step on the way of a message

    def _put(self, message: ToHost, data: bytes) -> None:
        if self._plan is None:
            self._write(data)
        else:
            self._outbox.append((message, data))
            self._posted.set()

    def _write(self, data: bytes) -> None:
        try:
            self._end.write(data)
        except OSError:
            pass  # the host is gone, or this worker is dead

    def _end_by(self, fault: Die) -> None:
        if fault.exit_code is None:
            self._die(ExitStatus(signal=signal.SIGKILL))
        else:
            self._die(ExitStatus(exit_code=fault.exit_code))
