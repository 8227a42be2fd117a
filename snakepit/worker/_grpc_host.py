"""The host of a worker that serves any gRPC client: it speaks the wire protocol for all of them.

A worker behind a pool has its host in another process; this one has it in the thread that serves
gRPC, at the other end of the wire. Everything behind the wire is the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Final

from msgspec import Raw

from snakepit.errors import ToolNotFoundError
from snakepit.protocol import (
    Call,
    Cancel,
    Credit,
    End,
    EndSession,
    Failure,
    HostCall,
    HostFailure,
    Item,
    Packer,
    Ready,
    Result,
    Settled,
    Shutdown,
    Start,
    ToHost,
    ToolInfo,
    ToWorker,
    Unpacker,
    decode_to_host,
    describe,
)
from snakepit.worker._wire import complain

READ_BYTES_MAX: Final = 2**18
WINDOW: Final = 16  # items of a stream that the client has not taken
SESSIONS_MAX: Final = 10_000
SESSION_IDLE_S: Final = 3600.0

Outcome = Result | Failure | Item | End | Settled


class WorkerGoneError(Exception):
    """The worker has ended, or does so: it answers nothing more."""


class OwnHost:
    """Sends the calls of all clients, and gives each what comes for it. One event loop's."""

    def __init__(self, adapter: str) -> None:
        self._adapter = adapter
        self.tools: tuple[ToolInfo, ...] = ()
        self.ready = asyncio.Event()
        self.changed = asyncio.Event()  # whether it serves; a new one each time
        self.is_ending = False
        self._writer: asyncio.StreamWriter
        self._packer = Packer()
        self._numbers = count(1)
        self._calls: dict[int, asyncio.Queue[Outcome | None]] = {}
        self._sessions: dict[str, float] = {}  # when each was last used, the oldest first

    @property
    def is_serving(self) -> bool:
        """Initialised, and not ending."""
        return self.ready.is_set() and not self.is_ending

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Start the worker and route what it says, until it has said everything."""
        self._writer = writer
        unpacker: Unpacker[ToHost] = Unpacker(decode_to_host)
        try:
            await self._send(Start("worker", self._adapter))
            while data := await reader.read(READ_BYTES_MAX):
                for message in unpacker.feed(data):
                    self._route(message)
        finally:
            self.end()
            for waiting in self._calls.values():
                waiting.put_nowait(None)
            self._calls.clear()
            self.ready.set()  # who waits for it finds that it is not serving

    def end(self) -> None:
        """It takes no more calls."""
        self.is_ending = True
        self._changed()

    async def shut_down(self, grace_s: float) -> None:
        """Let the worker clean up and end."""
        await self._send(Shutdown(grace_s))

    def _changed(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def _route(self, message: ToHost) -> None:
        if isinstance(message, Failure) and message.id == 0:
            complain(f"it could not start:\n{message.error.traceback or message.error.message}")
        elif isinstance(message, Ready):
            self.tools = message.tools
            self.ready.set()
            self._changed()
        elif isinstance(message, HostCall):
            error = describe(ToolNotFoundError(message.tool, (), "host"))
            self._write(HostFailure(message.id, "not_found", error))
        elif isinstance(message, Outcome):
            waiting = self._calls.get(message.id)
            if waiting is not None:
                waiting.put_nowait(message)
                if not isinstance(message, Item):
                    del self._calls[message.id]

    @asynccontextmanager
    async def call(
        self, tool: str, params: Raw, *, session: str, timeout_s: float | None, streams: bool
    ) -> AsyncGenerator[asyncio.Queue[Outcome | None]]:
        """A call, and what comes for it; None if the worker is gone.

        When the block is left before its outcome has come, the tool is cancelled, and has ended.
        """
        await self.ready.wait()
        if not self.is_serving:
            raise WorkerGoneError
        number = next(self._numbers)
        comes: asyncio.Queue[Outcome | None] = asyncio.Queue()
        self._calls[number] = comes
        self._use_session(session)
        window = WINDOW if streams else 0
        message = Call(number, tool, params, (), timeout_s, window, session or None)
        # In a task of its own: a message of which a part has been written is written to its end.
        sending = asyncio.ensure_future(self._send(message))
        try:
            await asyncio.shield(sending)
            yield comes
        finally:
            if number in self._calls:
                with suppress(OSError):
                    await sending
                self._write(Cancel(number))
                while number in self._calls:
                    await comes.get()

    def credit(self, number: int) -> None:
        """The client has taken an item."""
        if number in self._calls:
            self._write(Credit(number, 1))

    def _use_session(self, session: str) -> None:
        now = time.monotonic()
        if session:
            self._sessions.pop(session, None)
            self._sessions[session] = now
        while self._sessions:
            oldest, used_at = next(iter(self._sessions.items()))
            if len(self._sessions) <= SESSIONS_MAX and now - used_at <= SESSION_IDLE_S:
                return
            del self._sessions[oldest]
            self._write(EndSession(oldest))

    def _write(self, message: ToWorker) -> None:
        frame = self._packer.pack(message)
        assert frame is not None, "only calls are large"
        self._writer.write(frame)

    async def _send(self, message: ToWorker) -> None:
        frame = self._packer.pack(message)
        if frame is not None:
            self._writer.write(frame)
            await self._writer.drain()
            return
        for head, data in self._packer.pack_parts(message):
            self._writer.write(head)
            if data is not None:
                self._writer.write(data)
            await self._writer.drain()  # other calls go between the parts
