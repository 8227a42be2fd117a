"""What a worker serves: an adapter, its hooks and its tools; from the Start message to Ready.

The same for a worker that is a process and for one that is a task of its host.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from snakepit.protocol import Failure, Ready, Start, decode_value, describe
from snakepit.worker._functions import RUN_SYNC, run_sync_tool
from snakepit.worker._tool import Adapter
from snakepit.worker._toolbox import (
    ASYNC_KINDS,
    Tool,
    collect,
    is_coroutine_function,
    kind_of,
    marked,
)

HOOKS = ("initialize", "cleanup")


class Offer:
    """The adapter's tools and hooks. `callable` has the hidden tool of `run_sync` as well.

    `adapter` None: there is nothing but that. `load_main` imports the host's `__main__`; None: there is
    no such tool, since pickles are taken from a host that has spawned its worker and from nobody else.
    """

    def __init__(self, adapter: Any, load_main: Callable[[], object] | None) -> None:
        self.tools: dict[str, Tool] = {} if adapter is None else collect(adapter)
        self.callable: dict[str, Tool] = dict(self.tools)
        if load_main is not None:
            self.callable[RUN_SYNC] = run_sync_tool(load_main)
        self.hooks: list[Callable[[], Any]] = [
            getattr(adapter, name, None) or do_nothing for name in HOOKS
        ]

    def is_async(self) -> bool:
        """True if any of it needs an event loop."""
        return any(tool.is_async for tool in self.tools.values()) or any(
            map(is_coroutine_function, self.hooks)
        )

    def ready(self) -> Ready:
        """The message that tells the host of it."""
        return Ready(tuple(tool.info() for tool in self.tools.values()))


def build(target: Any, start: Start) -> Any:
    """The adapter: an instance of the class, or the module itself."""
    if isinstance(target, ModuleType):
        return target
    arguments = decode_value(start.body, start.buffers)
    return target(*(arguments or ()))


def is_async_only(target: Any) -> bool:
    """True if all tools of the class or module, and the hooks that it has, are async."""
    if target is None:
        return True
    hooks = [hook for name in HOOKS if (hook := getattr(target, name, None)) is not None]
    return all(is_coroutine_function(hook) or does_nothing(hook) for hook in hooks) and all(
        kind_of(getattr(target, attribute, None)) in ASYNC_KINDS for attribute in marked(target)
    )


def has_no_constructor(target: Any) -> bool:
    """True if making the adapter runs no code of its own: a module, or a class that is made as `object` is."""
    made: Any = target  # to mypy a class whose constructor is looked at is a mistake
    return isinstance(target, ModuleType) or (
        type(target) is type and made.__init__ is object.__init__ and made.__new__ is object.__new__
    )


def could_not_start(error: BaseException) -> Failure:
    """The message that tells the host why there will be no Ready."""
    return Failure(0, "start", describe(error))


def does_nothing(hook: Callable[[], Any]) -> bool:
    """True if the adapter has no such hook of its own."""
    plain = (do_nothing, *(vars(Adapter)[name] for name in HOOKS))
    function = getattr(hook, "__func__", hook)
    return any(function is one for one in plain)


def do_nothing() -> None:
    """Stand in for a hook that the adapter does not have."""
