"""The option `connect`, checked: what goes with it, and what makes no sense beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from snakepit.errors import ConfigError
from snakepit.options import Connect

if TYPE_CHECKING:
    from snakepit.launchers import Launcher

WORKERS_OWN: Final = "nothing with connect: a worker that somebody else has started has its own"
ALLOWED: Final = {
    "adapter": f"{WORKERS_OWN}, from its command line (--adapter)",
    "command": f"{WORKERS_OWN}; it is one or the other",
    "size": "nothing with connect: there are as many workers as addresses",
    "python": WORKERS_OWN,
    "adapter_args": WORKERS_OWN,
    "env": WORKERS_OWN,
    "cwd": WORKERS_OWN,
    "tool_backend": WORKERS_OWN,
    "transport": "'grpc' or 'auto' with connect: workers that others have started are reached over gRPC",
}
_DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "adapter_args": ((),),
    "tool_backend": ("asyncio",),
    "transport": ("auto", "grpc"),
}


def as_connect(connect: Connect | Sequence[str] | None, **beside: Any) -> Connect | None:
    """The option as its class. `beside`: the options that make no sense with it. Raises ConfigError."""
    if connect is None:
        return None
    for option, value in beside.items():
        if not any(value is one or value == one for one in _DEFAULTS.get(option, (None,))):
            raise ConfigError(option, value, ALLOWED[option])
    return connect if isinstance(connect, Connect) else Connect(connect)


def connect_launcher(connect: Connect) -> Launcher:
    """Raises ConfigError without the extra."""
    try:
        from snakepit.launchers._grpc_connected import ConnectLauncher
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("snakepit"):
            raise
        needs = f"the extra: pip install 'snakepit-pool[grpc]' (no {error.name} here)"
        raise ConfigError("connect", [str(one) for one in connect.addresses], needs) from error
    return ConnectLauncher(connect)
