"""The host of a worker that serves any gRPC client: it speaks the wire protocol for all of them.

A worker behind a pool has its host in another process; this one has it in the thread that serves
gRPC, at the other end of the wire. Everything behind the wire is the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from itertools import count
from typing import Final, Protocol

from msgspec import Raw

from snakepit.errors import ToolNotFoundError
from snakepit.protocol import (
    Buffer,
    Buffers,
    Call,
    Cancel,
    Credit,
    End,
    EndSession,
    Failure,
    HostCall,
    HostCancel,
    HostFailure,
    InputCredit,
    InputStop,
    Item,
    Packer,
    Progress,
    Ready,
    Recall,
    Result,
    Returned,
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
from snakepit.worker._grpc_sessions import ClientSessions
from snakepit.worker._wire import complain

WINDOW: Final = 16  # items of a stream that the client has not taken

Outcome = Result | Failure | Item | End | Settled
Last = Result | Failure | End | Settled
OfCall = Outcome | Progress | HostCall | HostCancel | InputCredit | InputStop


class WorkerGoneError(Exception):
    """The worker has ended, or does so: it answers nothing more."""


class Inbox:
    """What comes for one call of a client's, in order. One task waits at a time."""

    def __init__(self) -> None:
        self._come: deque[Outcome | None] = deque()
        self._more: asyncio.Future[None] | None = None

    def put_nowait(self, outcome: Outcome | None) -> None:
        """It has come; None: the worker is gone."""
        self._come.append(outcome)
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def get(self) -> Outcome | None:  # noqa: ASYNC910 - at once if something has come
        """The next."""
        while not self._come:
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        return self._come.popleft()


class Comes(Protocol):
    """Takes what comes for a call of a pool's. `cancel_grace_s`: as the pool has it."""

    cancel_grace_s: float

    def put_nowait(self, message: OfCall | None, /) -> None:
        """None: the worker is gone."""


class Guest(Protocol):
    """A pool that is connected, as far as this file is concerned."""

    def host_ends(self) -> None:
        """The worker takes no more calls."""

    def returned(self, numbers: tuple[int, ...]) -> None:
        """The answer to its oldest unanswered recall."""


class WorkersEnd(Protocol):
    """The way to the worker, and its end."""

    def write(self, data: Buffer, /) -> None:
        """Send it; the worker may be gone."""

    async def drain(self) -> None:
        """Wait until there is room for more. Raises OSError."""

    async def until_ended(self) -> None:
        """Return when the worker has said everything. Raises ProtocolError."""


class OwnHost:
    """Sends the calls of all clients, and gives each what comes for it. One event loop's."""

    def __init__(self, adapter: str) -> None:
        self._adapter = adapter
        self.tools: tuple[ToolInfo, ...] = ()
        self.timeouts: dict[str, float] = {}  # of tools that have their own
        self.failure: Failure | None = None  # why it could not start
        self.guests: set[Guest] = set()
        self.ready = asyncio.Event()
        self.changed = asyncio.Event()  # whether it serves; a new one each time
        self.is_ending = False
        self._worker: WorkersEnd
        self._packer, self._unpacker = Packer(), Unpacker(decode_to_host)
        self._numbers = count(1)
        self._calls: dict[int, Inbox] = {}
        self._leaving: set[asyncio.Future[None]] = set()  # calls that clients have left
        self._guests_calls: dict[int, Comes] = {}
        self._recalls: deque[Guest] = deque()  # who waits for an answer
        self.sessions = ClientSessions(lambda session: self.write(EndSession(session)))

    @property
    def is_serving(self) -> bool:
        """Initialised, and not ending."""
        return self.ready.is_set() and not self.is_ending

    async def run(self, worker: WorkersEnd) -> None:
        """Start the worker, and see to its clients until it has said everything, by `hear`."""
        self._worker = worker
        try:
            await self.send(Start("worker", self._adapter))
            await worker.until_ended()
        finally:
            self.end()
            for waiting in self._calls.values():
                waiting.put_nowait(None)
            for guests_call in self._guests_calls.values():
                guests_call.put_nowait(None)
            self._calls.clear()
            self._guests_calls.clear()
            self.ready.set()  # who waits for it finds that it is not serving

    def hear(self, data: bytes) -> None:
        """The next bytes that the worker has said. Raises ProtocolError."""
        for message in self._unpacker.feed(data):
            self._route(message)

    def end(self) -> None:
        """It takes no more calls."""
        if not self.is_ending:
            for guest in self.guests:
                guest.host_ends()
        self.is_ending = True
        self._changed()

    async def until_ending(self) -> None:
        """Return once it takes no more calls."""
        while not self.is_ending:
            await self.changed.wait()

    def grace_of(self, number: int) -> float | None:
        """How long a cancelled call may take to end, if it is a pool's, which says so. From any thread."""
        call = self._guests_calls.get(number)
        return None if call is None else call.cancel_grace_s

    @property
    def has_calls(self) -> bool:
        """Has the worker calls whose outcome has not come?"""
        return bool(self._calls or self._guests_calls)

    async def shut_down(self, grace_s: float) -> None:
        """Let the worker clean up and end."""
        await self.send(Shutdown(grace_s))

    def _changed(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def _route(self, message: ToHost) -> None:
        if isinstance(message, Failure) and message.id == 0:
            self.failure = message
            complain(f"it could not start:\n{message.error.traceback or message.error.message}")
        elif isinstance(message, Ready):
            self.tools = message.tools
            named = {tool.name: tool.timeout_s for tool in message.tools}
            self.timeouts = {name: time for name, time in named.items() if time is not None}
            self.ready.set()
            self._changed()
        elif isinstance(message, Returned):
            for number in message.ids:
                self._guests_calls.pop(number, None)
            self._recalls.popleft().returned(message.ids)
        elif isinstance(message, OfCall):
            number = message.call if isinstance(message, HostCall | HostCancel) else message.id
            guests_call = self._guests_calls.get(number)
            if guests_call is None:
                self._route_of_client(message)
                return
            if isinstance(message, Last):
                del self._guests_calls[number]
            guests_call.put_nowait(message)

    def _route_of_client(self, message: OfCall) -> None:
        if isinstance(message, HostCall):
            error = describe(ToolNotFoundError(message.tool, (), "host"))
            self.write(HostFailure(message.id, "not_found", error))
        elif isinstance(message, Outcome) and message.id in self._calls:
            self._calls[message.id].put_nowait(message)
            if not isinstance(message, Item):
                del self._calls[message.id]

    # -- for pools ---------------------------------------------------------------------------

    def admit(self, call: Comes) -> int:
        """The worker's number of a call that will be sent for a pool."""
        number = next(self._numbers)
        self._guests_calls[number] = call
        return number

    def recall(self, guest: Guest, numbers: tuple[int, ...]) -> None:
        """Ask calls back for a pool, which is told by `returned`."""
        self._recalls.append(guest)
        self.write(Recall(numbers))

    def forget(self, sessions: set[str]) -> None:
        """Sessions of a pool are over; not those that other clients use too."""
        for session in sessions:
            if session not in self.sessions:
                self.write(EndSession(session))

    # -- for other clients ---------------------------------------------------------------------

    def call(
        self,
        tool: str,
        params: Raw,
        buffers: Buffers = (),
        *,
        session: str,
        timeout_s: float | None,
        streams: bool,
        trace: tuple[str, ...] = (),
        comes: Inbox,
    ) -> OwnCall:
        """A call, for a block; what comes for it is put into `comes`, None if the worker is gone.

        When the block is left before its outcome has come, the tool is cancelled, and has ended;
        who is cancelled once more meanwhile does not wait for that.
        """
        window = WINDOW if streams else 0
        number = next(self._numbers)
        message = Call(number, tool, params, buffers, timeout_s, window, session or None, 0, trace)
        return OwnCall(self, message, comes)

    async def begin_call(self, message: Call, comes: Inbox) -> asyncio.Future[None] | None:
        """Send a client's call; None: all of it is on its way, else it goes in parts. Raises WorkerGoneError."""
        if not self.ready.is_set():
            await self.ready.wait()
        if not self.is_serving:
            raise WorkerGoneError
        frame = self._packer.pack(message)  # may raise: nothing is known of the call yet
        self._calls[message.id] = comes
        self.sessions.begin(message.session or "")
        if frame is not None:
            self._worker.write(frame)
            return None
        # In a task of its own: what has been written in part is written to its end.
        return asyncio.ensure_future(self._send_parts(message))

    async def end_call(
        self, message: Call, comes: Inbox, sending: asyncio.Future[None] | None
    ) -> None:
        """The client has left its call."""
        session = message.session or ""
        if message.id not in self._calls:
            self.sessions.end(session)
            return
        # A deadline and the client's reset cancel twice: what has begun goes on all the same.
        leaving = asyncio.ensure_future(self._leave(message.id, comes, sending))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        leaving.add_done_callback(lambda _: self.sessions.end(session))
        await asyncio.shield(leaving)

    async def _leave(self, number: int, comes: Inbox, sending: asyncio.Future[None] | None) -> None:
        """Cancel a call, once all of it has been sent, and wait for its outcome."""
        if sending is not None:
            with suppress(OSError):
                await sending
        self.write(Cancel(number))
        while number in self._calls:
            await comes.get()

    def credit(self, number: int) -> None:
        """The client has taken an item."""
        if number in self._calls:
            self.write(Credit(number, 1))

    def write(self, message: ToWorker) -> None:
        """Send a small message; the worker may be gone."""
        frame = self._packer.pack(message)
        assert frame is not None, "only calls are large"
        self._worker.write(frame)

    async def send(self, message: ToWorker) -> None:
        """Send any message. Once begun it has to be sent to its end."""
        frame = self._packer.pack(message)
        if frame is not None:
            self._worker.write(frame)
            await self._worker.drain()
        else:
            await self._send_parts(message)

    async def _send_parts(self, message: ToWorker) -> None:
        for head, data in self._packer.pack_parts(message):
            self._worker.write(head)
            if data is not None:
                self._worker.write(data)
            await self._worker.drain()  # other calls go between the parts


class OwnCall:
    """A call of a client's, for as long as a block. See `OwnHost.call`."""

    def __init__(self, host: OwnHost, message: Call, comes: Inbox) -> None:
        self._host, self._message, self._comes = host, message, comes
        self._sending: asyncio.Future[None] | None = None

    async def __aenter__(self) -> None:  # noqa: ASYNC910 - at once if it is small
        self._sending = await self._host.begin_call(self._message, self._comes)
        if self._sending is not None:
            try:
                await asyncio.shield(self._sending)
            except BaseException:
                await self.__aexit__()  # noqa: ASYNC102 - it shields what it waits for
                raise

    async def __aexit__(self, *_: object) -> None:  # noqa: ASYNC910 - as `OwnHost.end_call`
        await self._host.end_call(self._message, self._comes, self._sending)
