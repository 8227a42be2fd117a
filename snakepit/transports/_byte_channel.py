"""Frames over any stream of bytes: what every byte transport shares.

A transport brings a `ByteStream` (pipes, a socket, memory) and gets a `Channel` that passes
`snakepit.testing.FRAMING_CHECKS`. Reading and writing never block: what the stream does not
take at once waits in the outbox for `run`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Final

import anyio
import anyio.lowlevel

from snakepit.errors import ProtocolError
from snakepit.protocol import Buffer, OnSent, Outbox, ToHost, ToWorker, Unpacker, decode_to_host
from snakepit.transports._base import Channel

READ_BYTES_MAX: Final = 2**16
READS_MAX: Final = 8  # in a row, before others may run
LAST_WORDS_S: Final = 0.5  # of silence, from a worker that has closed its stdin and not its stdout


class ByteStream(ABC):
    """Bytes to and from one worker, without blocking. One task waits in each direction.

    `is_direct`: what the worker writes can be read at once, without anything that runs in this process.
    """

    is_direct: bool = True

    @abstractmethod
    def read(self, count_max: int) -> bytes:
        """What has come, b"" at the end of the stream.

        Raises BlockingIOError: nothing has come yet. OSError: the stream was cut off.
        """

    @abstractmethod
    def write(self, data: Buffer) -> int:
        """Take some of the data and return how much.

        Raises BlockingIOError: there is no room now. OSError: nobody reads any more.
        """

    @abstractmethod
    def until_readable(self) -> Awaitable[None]:
        """Wait until `read` has something to say. Always a checkpoint.

        Raises: anyio.ClosedResourceError: `wake_reader` or `close` was called meanwhile.
        anyio.BrokenResourceError: nothing can ever come.
        """

    @abstractmethod
    async def until_writable(self) -> None:
        """Wait until `write` takes something, or fails. Raises anyio.ClosedResourceError: closed."""

    @abstractmethod
    def wake_reader(self) -> None:
        """Let the task in `until_readable`, if there is one, look again."""

    @abstractmethod
    def close(self) -> None:
        """Close both directions at once, and wake who waits; idempotent."""


class ByteChannel(Channel):
    """The host's end of a stream of bytes."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._unpacker: Unpacker[ToHost] = Unpacker(decode_to_host)
        self._outbox = Outbox()
        self._poked = anyio.Event()
        self.is_direct: bool = stream.is_direct
        self._receiving = False
        self._peer_gone = self._closed = False

    def send_nowait(self, message: ToWorker) -> bool:
        if self._closed or self._peer_gone:
            return False
        outbox = self._outbox
        if outbox:
            outbox.put(message)
        elif (frame := outbox.pack(message)) is None:
            outbox.put(message)
            self._flush()
        else:
            self._write_now(frame)
        if outbox:
            self._poked.set()
        return not self._peer_gone

    @property
    def is_sending(self) -> bool:
        return bool(self._outbox)

    @property
    def stalled_at(self) -> int | None:
        return self._outbox.written if self._outbox else None

    def queue_nowait(self, message: ToWorker) -> bool:
        if self._closed or self._peer_gone:
            return False
        self._outbox.put(message)
        return True

    def flush_nowait(self) -> None:
        if not self._flush():
            self._poked.set()

    def _write_now(self, frame: bytes) -> None:
        """Write a frame while nothing waits; what the stream does not take waits."""
        try:
            written = self._stream.write(frame)
        except BlockingIOError:
            written = 0
        except OSError:
            self._lose_peer()
            return
        if written < len(frame):
            self._outbox.put_rest(memoryview(frame)[written:])

    async def send(self, message: ToWorker) -> None:
        await anyio.lowlevel.checkpoint()
        self._check_open()
        sent = anyio.Event()
        self._put(message, sent.set)
        self._poked.set()
        try:
            await sent.wait()
        except BaseException:
            self.withdraw(message)
            raise
        self._check_open()

    def _put(self, message: ToWorker, on_sent: OnSent) -> None:
        """Queue the message for `run`."""
        self._outbox.put(message, on_sent)

    def withdraw(self, message: ToWorker) -> bool:
        withdrawn = self._outbox.withdraw(message)
        if self._outbox:
            self._poked.set()
        return withdrawn

    async def receive(self) -> list[ToHost]:
        if self._receiving:
            await anyio.lowlevel.checkpoint()
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            while True:
                if self._closed:
                    await anyio.lowlevel.checkpoint()
                    raise anyio.ClosedResourceError
                if self._unpacker.broken:
                    await anyio.lowlevel.checkpoint()
                    raise ProtocolError(self._unpacker.broken)
                if self._peer_gone:
                    await self._last_words()
                else:
                    try:
                        await self._stream.until_readable()
                    except anyio.ClosedResourceError:
                        continue  # `aclose` or `_flush` has woken us
                messages = self._read_available()
                if messages:
                    return messages  # noqa: ASYNC910 - until_readable is one
        finally:
            self._receiving = False

    def receive_nowait(self) -> list[ToHost]:
        if self._receiving or self._closed or self._peer_gone or self._unpacker.broken:
            return []  # `receive` will tell
        return self._read_available() if self.is_direct else []

    async def _last_words(self) -> None:
        """Wait for what a worker that hears no more has still to say.

        One that has ended said it before. One that lives on would take every call without a word.
        """
        with anyio.move_on_after(LAST_WORDS_S):
            await self._stream.until_readable()
            return
        raise anyio.BrokenResourceError

    def _read_available(self) -> list[ToHost]:
        messages: list[ToHost] = []
        for _ in range(READS_MAX):
            try:
                chunk = self._stream.read(READ_BYTES_MAX)
            except BlockingIOError:
                return messages
            except OSError as error:
                raise anyio.BrokenResourceError from error
            if not chunk:
                if messages:
                    return messages  # the end is still there for the next call
                if self._unpacker.mid_message:
                    raise anyio.BrokenResourceError
                raise anyio.EndOfStream
            messages += self._unpacker.feed(chunk)
            if len(chunk) < READ_BYTES_MAX or self._unpacker.broken:
                break
        return messages

    async def run(self) -> None:
        while True:
            await self._poked.wait()
            if self._closed:
                return
            self._poked = anyio.Event()
            while not self._flush():
                try:
                    await self._stream.until_writable()
                except anyio.ClosedResourceError:
                    return  # by `aclose`, which has told those who wait

    def _flush(self) -> bool:
        """Write what the pipe takes; True when nothing waits any more."""
        outbox = self._outbox
        while (data := outbox.next_bytes()) is not None:
            try:
                outbox.wrote(self._stream.write(data))
            except BlockingIOError:
                return False
            except OSError:
                self._lose_peer()
        return True

    def _lose_peer(self) -> None:
        """Nobody reads any more: `receive` will tell. What waited can reach nobody."""
        self._peer_gone = True
        self._outbox.clear()
        self._stream.wake_reader()

    async def aclose(self) -> None:  # noqa: ASYNC910 - closing never waits
        if self._closed:
            return  # noqa: ASYNC910 - as above
        self._closed = True
        self._outbox.clear()
        self._stream.close()
        self._poked.set()  # `run` returns

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._peer_gone:
            raise anyio.BrokenResourceError
