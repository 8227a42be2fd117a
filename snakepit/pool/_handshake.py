"""The handshake: Hello, Start, Ready. From a process that runs to a worker that serves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio

from snakepit.errors import ProtocolError
from snakepit.protocol import PROTOCOL_VERSION, Failure, Hello, Ready, Start, ToHost, ToolInfo

if TYPE_CHECKING:
    from snakepit.pool._settings import Settings
    from snakepit.transports import Channel


class StartFailedError(Exception):
    """The worker will not become ready."""

    def __init__(self, reason: str, traceback: str = "", *, exits_by_itself: bool = True) -> None:
        super().__init__(reason)
        self.reason: str = reason
        self.traceback: str = traceback
        self.exits_by_itself: bool = exits_by_itself


async def shake_hands(
    channel: Channel, worker_id: str, settings: Settings
) -> tuple[Ready, list[ToHost]]:
    """Start the worker; returns its Ready, and what came right behind it.

    Raises StartFailedError, with the worker's own traceback where it sent one.
    """
    startup = settings.startup
    hello, *early = await _receive(channel, startup.timeout, "say hello")
    if not isinstance(hello, Hello):
        raise StartFailedError(f"its first message was {type(hello).__name__}, not Hello")
    if early:
        raise StartFailedError(f"it said {type(early[0]).__name__} before it was told to start")
    if hello.version != PROTOCOL_VERSION:
        raise StartFailedError(
            f"it speaks protocol version {hello.version}, this host {PROTOCOL_VERSION}: "
            "install the same snakepit on both sides"
        )
    channel.send_nowait(_start(worker_id, settings))
    ready, *early = await _receive(channel, startup.init_timeout, "get ready")
    if isinstance(ready, Failure):
        name = ready.error.type.removeprefix("builtins.")
        raise StartFailedError(f"{name}: {ready.error.message}", ready.error.traceback)
    if not isinstance(ready, Ready):
        raise StartFailedError(f"{type(ready).__name__} came instead of Ready")
    for tool in ready.tools:
        if not _makes_sense(tool):
            raise StartFailedError(f"what it tells of its tool {tool.name!r} makes no sense")
    return ready, early


def _start(worker_id: str, settings: Settings) -> Start:
    return Start(
        worker_id,
        settings.target.spec,
        settings.adapter_body,
        settings.adapter_buffers,
        settings.tool_backend,
        settings.stop.cancel_grace,
        settings.import_paths,
        settings.target.main_path,
        settings.target.main_module,
    )


async def _receive(channel: Channel, timeout_s: float, what: str) -> list[ToHost]:
    try:
        with anyio.fail_after(timeout_s):
            return await channel.receive()
    except TimeoutError:
        raise StartFailedError(
            f"it did not {what} within {timeout_s:g} s", exits_by_itself=False
        ) from None
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        raise StartFailedError("it ended before it was ready") from None
    except ProtocolError as error:
        raise StartFailedError(
            f"what it wrote is not the snakepit protocol ({error})", exits_by_itself=False
        ) from None


def _makes_sense(tool: ToolInfo) -> bool:
    """Workers that are not ours may say anything; NaN as a time would end the pool's clock."""
    return (
        (tool.timeout_s is None or 0 < tool.timeout_s < math.inf)
        and (tool.cancel_grace_s is None or 0 <= tool.cancel_grace_s < math.inf)
        and (tool.parameters is None or isinstance(tool.parameters, dict))
    )
