"""Structured concurrency for pools of external worker processes, on trio and asyncio.

    async with snakepit.open_pool("myapp.adapter:MyAdapter", size=4) as pool:
        print(await pool.execute("predict", {"text": "hello"}, timeout=30))

This face is lazy: a worker that says `from snakepit import Adapter, tool` imports the worker's
side and nothing of the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakepit._progress_bar import progress as progress
    from snakepit._trace_context import trace_context as trace_context
    from snakepit.errors import CallQuarantinedError as CallQuarantinedError
    from snakepit.errors import CallTimeoutError as CallTimeoutError
    from snakepit.errors import ConfigError as ConfigError
    from snakepit.errors import HostToolError as HostToolError
    from snakepit.errors import InvalidParamsError as InvalidParamsError
    from snakepit.errors import PoolBrokenError as PoolBrokenError
    from snakepit.errors import PoolClosedError as PoolClosedError
    from snakepit.errors import PoolSaturatedError as PoolSaturatedError
    from snakepit.errors import ProtocolError as ProtocolError
    from snakepit.errors import QueueTimeoutError as QueueTimeoutError
    from snakepit.errors import ReentrancyError as ReentrancyError
    from snakepit.errors import SerializationError as SerializationError
    from snakepit.errors import SessionBusyError as SessionBusyError
    from snakepit.errors import SessionLostError as SessionLostError
    from snakepit.errors import SessionNotFoundError as SessionNotFoundError
    from snakepit.errors import SnakepitError as SnakepitError
    from snakepit.errors import ToolCancelled as ToolCancelled
    from snakepit.errors import ToolError as ToolError
    from snakepit.errors import ToolNotFoundError as ToolNotFoundError
    from snakepit.errors import WorkerDiedError as WorkerDiedError
    from snakepit.errors import WorkerStartError as WorkerStartError
    from snakepit.options import Connect as Connect
    from snakepit.options import CrashBarrier as CrashBarrier
    from snakepit.options import Queue as Queue
    from snakepit.options import Sessions as Sessions
    from snakepit.options import Startup as Startup
    from snakepit.options import Stop as Stop
    from snakepit.options import ZeroCopy as ZeroCopy
    from snakepit.pool import BoundPool as BoundPool
    from snakepit.pool import Pool as Pool
    from snakepit.pool import PoolStats as PoolStats
    from snakepit.pool import Results as Results
    from snakepit.pool import Session as Session
    from snakepit.pool import SharedMemoryStats as SharedMemoryStats
    from snakepit.pool import Stream as Stream
    from snakepit.pool import SyncBoundPool as SyncBoundPool
    from snakepit.pool import SyncPool as SyncPool
    from snakepit.pool import SyncSession as SyncSession
    from snakepit.pool import ToolSpec as ToolSpec
    from snakepit.pool import WorkerInfo as WorkerInfo
    from snakepit.pool import WorkerMemoryStats as WorkerMemoryStats
    from snakepit.pool import open_pool as open_pool
    from snakepit.pool import open_pool_sync as open_pool_sync
    from snakepit.pool import run_pool as run_pool
    from snakepit.process import Cleanup as Cleanup
    from snakepit.process import cleanup as cleanup
    from snakepit.scripts import run as run
    from snakepit.transports import Channel as Channel
    from snakepit.transports import Link as Link
    from snakepit.transports import Transport as Transport
    from snakepit.worker import Adapter as Adapter
    from snakepit.worker import CallContext as CallContext
    from snakepit.worker import context as context
    from snakepit.worker import tool as tool
    from snakepit.worker._empty import empty as empty

_HOMES = {
    "snakepit._progress_bar": ("progress",),
    "snakepit._trace_context": ("trace_context",),
    "snakepit.errors": (
        "CallQuarantinedError",
        "CallTimeoutError",
        "ConfigError",
        "HostToolError",
        "InvalidParamsError",
        "PoolBrokenError",
        "PoolClosedError",
        "PoolSaturatedError",
        "ProtocolError",
        "QueueTimeoutError",
        "ReentrancyError",
        "SerializationError",
        "SessionBusyError",
        "SessionLostError",
        "SessionNotFoundError",
        "SnakepitError",
        "ToolCancelled",
        "ToolError",
        "ToolNotFoundError",
        "WorkerDiedError",
        "WorkerStartError",
    ),
    "snakepit.options": (
        "Connect",
        "CrashBarrier",
        "Queue",
        "Sessions",
        "Startup",
        "Stop",
        "ZeroCopy",
    ),
    "snakepit.pool": (
        "BoundPool",
        "Pool",
        "PoolStats",
        "Results",
        "Session",
        "SharedMemoryStats",
        "Stream",
        "SyncBoundPool",
        "SyncPool",
        "SyncSession",
        "ToolSpec",
        "WorkerInfo",
        "WorkerMemoryStats",
        "open_pool",
        "open_pool_sync",
        "run_pool",
    ),
    "snakepit.process": ("Cleanup", "cleanup"),
    "snakepit.scripts": ("run",),
    "snakepit.transports": ("Channel", "Link", "Transport"),
    "snakepit.worker": ("Adapter", "CallContext", "context", "tool"),
    "snakepit.worker._empty": ("empty",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - a list, made from the one table
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'snakepit' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
