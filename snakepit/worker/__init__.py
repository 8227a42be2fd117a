"""THE OTHER PROCESS: what runs in a worker, and what adapters are written with.

Lazy, for the sake of `__main__.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakepit.worker._context import CallContext as CallContext
    from snakepit.worker._context import context as context
    from snakepit.worker._tool import Adapter as Adapter
    from snakepit.worker._tool import tool as tool

_HOME_OF = {
    "Adapter": "_tool",
    "CallContext": "_context",
    "context": "_context",
    "tool": "_tool",
}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'snakepit.worker' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"snakepit.worker.{home}"), name)
    globals()[name] = value
    return value
