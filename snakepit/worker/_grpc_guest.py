"""A pool that is connected to a worker which it did not start: a guest among the other clients.

Over `Connect` the pool speaks the wire protocol, and so does the worker behind the wire. Between
them stands this: calls get the worker's own numbers, so that those of a pool, of the one before it
and of other clients never meet, and what is the worker's own affair (Hello, Start, Shutdown) is
answered here. A guest that leaves, however it does, takes nothing along but what was its own: its
calls are cancelled and its sessions forgotten, and the worker lives on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from grpclib import GRPCError
from grpclib.const import Cardinality, Handler, Status
from grpclib.server import Stream

from snakepit.errors import ProtocolError
from snakepit.grpc import CONNECT, FRAMES_BYTES_MAX, POOL_KEY, Incoming, end_tasks
from snakepit.protocol import (
    PROTOCOL_VERSION,
    Call,
    Cancel,
    Credit,
    EndSession,
    Goodbye,
    Hello,
    HostCall,
    HostCancel,
    HostFailure,
    HostReply,
    InputEnd,
    InputItem,
    Outbox,
    Ready,
    Recall,
    Returned,
    Shutdown,
    Start,
    ToHost,
    ToWorker,
    Unpacker,
    decode_to_worker,
    describe,
)
from snakepit.worker._grpc_host import Last, OfCall, OwnHost

CANCEL_GRACE_S: Final = Start("").cancel_grace_s  # until the pool has said Start
TAKEN: Final = "this worker has a pool already"
HANGS_UP_S: Final = 0.5  # who comes next may be heard before the one who has just gone

ConnectCall = Stream[bytes, bytes]


class PoolService:
    """`Connect`: one pool at a time."""

    def __init__(self, host: OwnHost) -> None:
        self._host = host
        self._guest: PoolGuest | None = None  # the last one

    def __mapping__(self) -> dict[str, Handler]:
        return {CONNECT: Handler(self._connect, Cardinality.STREAM_STREAM, bytes, bytes)}

    async def _connect(self, stream: ConnectCall) -> None:
        pool = "" if stream.metadata is None else str(stream.metadata.get(POOL_KEY, ""))
        await self._until_free(pool)
        before = self._guest
        if before is not None:
            before.leave()  # if it has not, it has lost its connection, of which nobody has told us
        self._guest = guest = PoolGuest(self._host, pool, before)
        try:
            await guest.serve(stream)
        except ProtocolError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        finally:
            guest.leave()

    async def _until_free(self, pool: str) -> None:
        """Return if this pool may have the worker, at once or soon. Raises GRPCError."""
        end = asyncio.get_running_loop().time() + HANGS_UP_S
        while (guest := self._guest) is not None and not guest.has_left:
            if pool and pool == guest.pool:
                return
            try:
                async with asyncio.timeout_at(end):
                    await guest.left.wait()
            except TimeoutError:
                raise GRPCError(Status.FAILED_PRECONDITION, TAKEN) from None


class GuestsCall:
    """A call of a pool's that the worker has. `number`: the worker's, `theirs`: the pool's."""

    def __init__(self, guest: PoolGuest, theirs: int, host: OwnHost) -> None:
        self._guest, self.theirs = guest, theirs
        self.cancel_grace_s = guest.cancel_grace_s
        self.number = host.admit(self)

    def put_nowait(self, message: OfCall | None, /) -> None:
        """Give the pool what has come for it."""
        self._guest.take(self, message)


class PoolGuest:
    """One connection of a pool, and what it has here. `before`: the one whose place it takes."""

    def __init__(self, host: OwnHost, pool: str, before: PoolGuest | None) -> None:
        self.pool = pool
        self.cancel_grace_s = CANCEL_GRACE_S
        self.left = asyncio.Event()
        self.is_over = asyncio.Event()  # it has left, and none of its calls runs any more
        self._host, self._before = host, before
        self._is_welcome = False
        self._calls: dict[int, GuestsCall] = {}  # by the pool's numbers
        self._sessions: set[str] = set()
        self._asked: set[int] = set()  # host calls that the pool has to answer
        self._outbox = Outbox()
        self._more, self._said_all = asyncio.Event(), False
        self._sending: asyncio.Future[None] | None = None

    async def serve(self, stream: ConnectCall) -> None:
        """All of it, until the pool leaves or the worker is gone. Raises ProtocolError."""
        self._host.guests.add(self)
        about = f"python {sys.version.split()[0]}"
        self._say(Hello(PROTOCOL_VERSION, os.getpid(), about))
        hear = asyncio.create_task(self._hear(stream))
        tell = asyncio.create_task(self._tell(stream))
        try:
            await asyncio.wait((hear, tell), return_when=asyncio.FIRST_COMPLETED)
            if hear.done():
                hear.result()
                self._say_last(Goodbye())
                await tell
        finally:
            await end_tasks(hear, tell)

    @property
    def has_left(self) -> bool:
        """Has it gone, or been taken for gone?"""
        return self.left.is_set()

    def leave(self) -> None:
        """End what is the pool's own here. Idempotent."""
        if self.has_left:
            return
        self.left.set()
        self._host.guests.discard(self)
        self._say_last()
        if self._sending is None or self._sending.done():
            self._end_all()
        else:  # a call of which a part is on its way has to arrive before it can be cancelled
            self._sending.add_done_callback(lambda _: self._end_all())

    def _end_all(self) -> None:
        for call in self._calls.values():
            self._host.write(Cancel(call.number))
        for number in self._asked:
            self._host.write(_nobody_answers(number))
        self._asked.clear()
        self._host.forget(self._sessions)
        self._look_if_over()

    def _look_if_over(self) -> None:
        if self.has_left and not self._calls:
            self.is_over.set()

    # -- from the pool ---------------------------------------------------------------------------

    async def _hear(self, stream: ConnectCall) -> None:
        incoming = Incoming(stream._stream)
        unpacker: Unpacker[ToWorker] = Unpacker(decode_to_worker)
        while (data := await incoming.receive()) is not None:
            for message in unpacker.feed(data):
                if self.has_left or isinstance(message, Shutdown):
                    return
                await self._handle(message)

    async def _handle(self, message: ToWorker) -> None:
        if isinstance(message, Call):
            await self._send_call(message)
        elif isinstance(message, Cancel | Credit | InputItem | InputEnd):
            if (call := self._calls.get(message.id)) is not None:  # else it crossed the outcome
                message.id = call.number
                await self._send(message)
        elif isinstance(message, Recall):
            calls = map(self._calls.get, message.ids)
            self._host.recall(self, tuple(call.number for call in calls if call is not None))
        elif isinstance(message, HostReply | HostFailure):
            if message.id in self._asked:
                self._asked.discard(message.id)
                await self._send(message)
        elif isinstance(message, EndSession):
            self._sessions.discard(message.session)
            await self._send(message)
        elif isinstance(message, Start):
            self.cancel_grace_s = message.cancel_grace_s
            await self._start()
        else:
            raise ProtocolError(f"{type(message).__name__} is out of place here")

    async def _start(self) -> None:
        """Say Ready, once that is so and nothing runs any more of the pools before."""
        before = self._before
        while before is not None:
            await before.is_over.wait()
            before = before._before  # if that one has left while it waited here
        self._before = None
        await self._host.ready.wait()
        if self._host.failure is not None:
            self._say_last(self._host.failure)
        elif self._host.is_serving:
            self._is_welcome = True
            self._say(Ready(self._host.tools))
        else:
            self._say_last(Goodbye())

    async def _send_call(self, message: Call) -> None:
        if message.id in self._calls:
            raise ProtocolError(f"call {message.id} is here already")
        call = GuestsCall(self, message.id, self._host)
        self._calls[message.id], message.id = call, call.number
        if message.session is not None:
            self._sessions.add(message.session)
        await self._send(message)

    async def _send(self, message: ToWorker) -> None:
        # In a task of its own: a message of which a part has been written is written to its end.
        self._sending = asyncio.ensure_future(self._host.send(message))
        await asyncio.shield(self._sending)

    # -- from the worker -------------------------------------------------------------------------

    def host_ends(self) -> None:
        """The worker takes no more calls; what the pool has sent meanwhile is still run."""
        if self._is_welcome:  # else it is told in place of Ready
            self._say(Goodbye())

    def returned(self, numbers: tuple[int, ...]) -> None:
        """Give calls back that have not begun."""
        given = [call for call in self._calls.values() if call.number in numbers]
        for call in given:
            del self._calls[call.theirs]
        self._say(Returned(tuple(call.theirs for call in given)))
        self._look_if_over()

    def take(self, call: GuestsCall, message: OfCall | None) -> None:
        """Tell the pool; None: the worker is gone."""
        if message is None or isinstance(message, Last):
            del self._calls[call.theirs]
            self._look_if_over()
        if message is None:
            self._say_last()
        elif isinstance(message, HostCall | HostCancel):
            self._ask(call, message)
        else:
            message.id = call.theirs
            self._say(message)

    def _ask(self, call: GuestsCall, message: HostCall | HostCancel) -> None:
        if isinstance(message, HostCancel):
            self._asked.discard(message.id)
        elif self.has_left:
            self._host.write(_nobody_answers(message.id))
        else:
            self._asked.add(message.id)
        message.call = call.theirs
        self._say(message)

    # -- to the pool -----------------------------------------------------------------------------

    def _say(self, message: ToHost) -> None:
        if not (self._said_all or self.has_left):
            self._outbox.put(message)
            self._more.set()

    def _say_last(self, *messages: ToHost) -> None:
        for message in messages:
            self._say(message)
        self._said_all = True
        self._more.set()

    async def _tell(self, stream: ConnectCall) -> None:
        """Carry as much as goes with each message; small ones go between the parts of large ones."""
        await stream.send_initial_metadata()
        while self._outbox or not self._said_all:
            if not self._outbox:
                await self._more.wait()
                self._more.clear()
                continue
            pieces, room = list[bytes | memoryview](), FRAMES_BYTES_MAX
            while room and (data := self._outbox.next_bytes()) is not None:
                pieces.append(data[:room])
                room -= len(pieces[-1])
                self._outbox.wrote(len(pieces[-1]))
            await stream.send_message(b"".join(pieces))


def _nobody_answers(number: int) -> HostFailure:
    return HostFailure(number, "tool", describe(ConnectionError("the pool has gone")))
