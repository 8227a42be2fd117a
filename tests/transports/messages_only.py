"""A link without bytes: messages are handed over in memory, and its peer is nothing but a `Peer`.

It is there for the checks: what they ask of every transport must be kept also by one that knows
neither frames nor descriptors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from snakepit.testing import Peer, running
from snakepit.transports import Channel

ROOM_BYTES = 2**16


def size_of(message: Any) -> int:
    values = (getattr(message, "body", b""), *getattr(message, "buffers", ()))
    return 100 + sum(len(memoryview(value)) for value in values)


class MessageChannel(Channel):
    """The host's end. What finds no room waits until the peer asks for it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, anyio.Event]] = []
        self.under_way: deque[Any] = deque()
        self.inbox: list[Any] = []
        self.changed = anyio.Event()
        self.receiving = self.closed = self.peer_gone = self.broken = False

    def send_nowait(self, message: Any) -> bool:
        if not (self.closed or self.peer_gone):
            self.put(message)
        return not (self.closed or self.peer_gone)

    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        sent = self.put(message)
        try:
            await sent.wait()
        except BaseException:
            self.withdraw(message)
            raise
        if self.closed:
            raise anyio.ClosedResourceError
        if self.peer_gone:
            raise anyio.BrokenResourceError

    def put(self, message: Any) -> anyio.Event:
        sent = anyio.Event()
        self.waiting.append((message, sent))
        self.move()
        return sent

    def withdraw(self, message: Any) -> bool:
        for index, (other, _) in enumerate(self.waiting):
            if other is message:
                del self.waiting[index]
                self.move()
                return True
        return False

    def move(self) -> None:
        """Give what there is room for to the link; what can reach nobody any more is over."""
        if self.closed or self.peer_gone:
            for _, sent in self.waiting:
                sent.set()
            self.waiting.clear()
        earlier: set[int] = set()
        for entry in list(self.waiting):
            message, sent = entry
            room = ROOM_BYTES - sum(map(size_of, self.under_way))
            if size_of(message) <= room and message.id not in earlier:
                self.waiting.remove(entry)
                self.under_way.append(message)
                sent.set()
            earlier.add(message.id)
        self.tell()

    def tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def receive(self) -> list[Any]:
        await anyio.lowlevel.checkpoint()
        if self.receiving:
            raise anyio.BusyResourceError("receiving from")
        self.receiving = True
        try:
            while not (self.inbox or self.closed or self.peer_gone):
                await self.changed.wait()
        finally:
            self.receiving = False
        if self.closed:
            raise anyio.ClosedResourceError
        if not self.inbox:
            raise anyio.BrokenResourceError if self.broken else anyio.EndOfStream
        messages, self.inbox = self.inbox, []
        return messages

    async def run(self) -> None:
        while not self.closed:
            await self.changed.wait()

    async def aclose(self) -> None:
        self.closed = True
        self.move()


class MessagePeer(Peer):
    """The worker's end."""

    def __init__(self, channel: MessageChannel) -> None:
        self.channel = channel

    async def send(self, *messages: Any) -> None:
        self.channel.inbox += messages
        self.channel.tell()
        await anyio.lowlevel.checkpoint()

    async def receive(self) -> Any:
        await anyio.lowlevel.checkpoint()
        link = self.channel
        while not (link.under_way or link.waiting):
            if link.closed:
                raise anyio.EndOfStream
            await link.changed.wait()
        if link.under_way:
            message = link.under_way.popleft()
        else:
            message, sent = link.waiting.pop(0)
            sent.set()
        link.move()
        return message

    async def aclose(self) -> None:
        self.channel.peer_gone = True
        self.channel.move()
        await anyio.lowlevel.checkpoint()

    async def break_off(self) -> None:
        self.channel.broken = True
        await self.aclose()


@asynccontextmanager
async def messages_only() -> AsyncGenerator[tuple[Channel, Peer]]:
    async with running(MessageChannel()) as channel:
        yield channel, MessagePeer(channel)
