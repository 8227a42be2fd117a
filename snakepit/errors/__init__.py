"""Every error that snakepit raises: typed, with fields, picklable.

Each class says whether the call may have run and whether to retry. `args` equal the
constructor's signature, so an error crosses a process as it is; `ToolError` rebuilds itself,
because it is also the builtin type that the tool raised.
"""

from __future__ import annotations

from snakepit.errors._errors import CallQuarantinedError as CallQuarantinedError
from snakepit.errors._errors import CallTimeoutError as CallTimeoutError
from snakepit.errors._errors import ConfigError as ConfigError
from snakepit.errors._errors import InvalidParamsError as InvalidParamsError
from snakepit.errors._errors import PoolBrokenError as PoolBrokenError
from snakepit.errors._errors import PoolClosedError as PoolClosedError
from snakepit.errors._errors import PoolSaturatedError as PoolSaturatedError
from snakepit.errors._errors import ProtocolError as ProtocolError
from snakepit.errors._errors import QueueTimeoutError as QueueTimeoutError
from snakepit.errors._errors import ReentrancyError as ReentrancyError
from snakepit.errors._errors import SerializationError as SerializationError
from snakepit.errors._errors import SessionBusyError as SessionBusyError
from snakepit.errors._errors import SessionLostError as SessionLostError
from snakepit.errors._errors import SessionNotFoundError as SessionNotFoundError
from snakepit.errors._errors import SnakepitError as SnakepitError
from snakepit.errors._errors import ToolCancelled as ToolCancelled
from snakepit.errors._errors import ToolNotFoundError as ToolNotFoundError
from snakepit.errors._errors import WorkerDiedError as WorkerDiedError
from snakepit.errors._errors import WorkerStartError as WorkerStartError
from snakepit.errors._tool_error import HostToolError as HostToolError
from snakepit.errors._tool_error import RemoteError as RemoteError
from snakepit.errors._tool_error import ToolError as ToolError
from snakepit.errors._tool_error import host_tool_error as host_tool_error
from snakepit.errors._tool_error import tool_error as tool_error

__all__ = [
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
    "host_tool_error",
    "tool_error",
]

for _name in __all__:  # wherever it is written, this is where it is found
    globals()[_name].__module__ = __name__
