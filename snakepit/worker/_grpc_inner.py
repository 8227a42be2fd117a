"""The inner end of the wire of a worker that is its own host: what comes there is heard in the same step.

A stream of asyncio's would wake a task first, at each answer of a tool's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from snakepit.errors import ProtocolError
from snakepit.protocol import Buffer


class InnerEnd(asyncio.Protocol):
    """`hear` is given what comes; it may raise ProtocolError, which is the end."""

    def __init__(self, hear: Callable[[bytes], object]) -> None:
        self._hear = hear
        self._transport: asyncio.Transport
        self._error: ProtocolError | None = None
        self._room, self._ended = asyncio.Event(), asyncio.Event()
        self._room.set()

    def write(self, data: Buffer) -> None:
        """Send it, now or as soon as that goes; nothing if the worker is gone."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until there is room for more. Raises ConnectionError: the worker is gone."""
        await self._room.wait()
        if self._ended.is_set():
            raise ConnectionResetError("the worker is gone")

    async def until_ended(self) -> None:
        """Wait for the end, of whichever side. Raises ProtocolError."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Close it, once all has been sent."""
        self._transport.close()

    # -- what asyncio calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Some bytes, cut anywhere."""
        try:
            self._hear(data)
        except ProtocolError as error:
            self._error = error
            self._transport.abort()

    def pause_writing(self) -> None:
        """Much has been written that was not sent."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has been sent."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        del exc
        self._ended.set()
        self._room.set()
