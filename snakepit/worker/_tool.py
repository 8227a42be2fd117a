"""`@tool` and `Adapter`: how a class or a module says what it offers.

The decorator marks and changes nothing: the function stays the one that was written, callable
and testable as such. What the mark means is read by `_toolbox.collect`, in the worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from msgspec import Struct

from snakepit.errors import ConfigError

if TYPE_CHECKING:
    from typing import TypeAlias

    OnCancel: TypeAlias = Literal["interrupt", "cooperative", "kill"]

F = TypeVar("F")

MARK = "__snakepit_tool__"
ON_CANCEL = ("interrupt", "cooperative", "kill")


class ToolOptions(Struct, frozen=True, kw_only=True):
    """What `@tool(...)` was told. Times in seconds; `None` leaves the choice to the pool."""

    name: str | None = None
    description: str | None = None
    idempotent: bool = False
    timeout: float | None = None
    on_cancel: str = "interrupt"
    cancel_grace: float | None = None


@overload
def tool(func: F, /) -> F: ...
@overload
def tool(
    func: None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    timeout: float | None = None,
    on_cancel: OnCancel = "interrupt",
    cancel_grace: float | None = None,
) -> Callable[[F], F]: ...
@overload
def tool(
    func: F,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    timeout: float | None = None,
    on_cancel: OnCancel = "interrupt",
    cancel_grace: float | None = None,
) -> F: ...
def tool(
    func: Any = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    timeout: float | None = None,
    on_cancel: str = "interrupt",
    cancel_grace: float | None = None,
) -> Any:
    """Offer a function or method to the pool. Use as `@tool` or `@tool(option=…)`.

    Sync and async functions return one value, generators of both kinds stream. The function
    itself is returned unchanged. Works above and below `@staticmethod` and `@classmethod`.

    Args:
        func: the function, where the decorator is used bare.
        name: what callers say; default: the attribute's name.
        description: for `pool.tools()`; default: the first paragraph of the docstring.
        idempotent: running it twice does no harm, so a call may be retried when its worker dies.
        timeout: seconds a call may take unless the caller says otherwise; None = no limit.
        on_cancel: `"interrupt"` (a sync tool is interrupted where it stands), `"cooperative"`
            (never interrupted: a sync tool asks `context().check_cancelled()`, an async one is
            cancelled at its next `await`), `"kill"` (its worker ends).
        cancel_grace: seconds a cancelled call has to end, 0 or more; None = the pool's.

    Raises: ConfigError: an option is wrong. TypeError: this cannot be a tool.
    """
    options = ToolOptions(
        name=_name(name),
        description=_text("description", description),
        idempotent=_flag("idempotent", idempotent),
        timeout=_seconds("timeout", timeout),
        on_cancel=_on_cancel(on_cancel),
        cancel_grace=_seconds("cancel_grace", cancel_grace, may_be_zero=True),
    )
    if func is None:
        return lambda decorated: _mark(decorated, options)
    return _mark(func, options)


class Adapter:
    """A base for adapters: a class whose `@tool` methods a pool serves.

    One instance lives in each worker. Deriving from it is optional; any class with tools will
    do. A constructor takes what `adapter_args` gives. Both hooks may be `def` or `async def`.
    """

    def initialize(self) -> Awaitable[None] | None:
        """Load what the tools need. Runs once per worker, before its first call."""
        return None

    def cleanup(self) -> Awaitable[None] | None:
        """Let go of it. Runs once, when the worker is shut down; its time is bounded."""
        return None


def mark_of(raw: Any) -> ToolOptions | None:
    """The options that `@tool` left on a class's or module's raw attribute, else None.

    Asks nothing that could run user code: only the attribute dictionaries of functions, and of
    the descriptors that wrap them.
    """
    for candidate in (raw, _unwrapped(raw)):
        try:
            mark = object.__getattribute__(candidate, "__dict__").get(MARK)
        except (AttributeError, TypeError):
            continue
        if type(mark) is ToolOptions and not issubclass(type(candidate), type):
            return mark
    return None


def _unwrapped(raw: Any) -> Any:
    return raw.__func__ if issubclass(type(raw), (staticmethod, classmethod)) else None


def _mark(func: Any, options: ToolOptions) -> Any:
    if isinstance(func, type):
        raise TypeError(f"@tool goes on the methods of {func.__qualname__}, not on the class")
    if not (isinstance(func, (FunctionType, staticmethod, classmethod)) or _is_callable(func)):
        kind = type(func).__name__
        hint = "; options are named: @tool(name=…)" if isinstance(func, str) else ""
        raise TypeError(f"@tool goes on a function or a method, not on a {kind}{hint}")
    try:
        setattr(func, MARK, options)
    except (AttributeError, TypeError):
        raise TypeError(
            f"@tool cannot mark {func!r}: write `def name(…)` around it and decorate that"
        ) from None
    return func


def _is_callable(func: Any) -> bool:
    # A functools.partialmethod is not callable before it is bound; it is known by its parts.
    return callable(func) or all(hasattr(func, part) for part in ("func", "args", "keywords"))


def _name(name: Any) -> str | None:
    if name is not None and (type(name) is not str or not name.strip()):
        raise ConfigError("name", name, "give a non-empty str, or nothing for the function's name")
    return name


def _text(option: str, text: Any) -> str | None:
    if text is not None and not isinstance(text, str):
        raise ConfigError(option, text, "give a str, or nothing for the docstring")
    return text


def _flag(option: str, flag: Any) -> bool:
    if type(flag) is not bool:
        raise ConfigError(option, flag, "give True or False")
    return flag


def _seconds(option: str, seconds: Any, *, may_be_zero: bool = False) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ConfigError(option, seconds, "give seconds as a number, or None")
    if not 0 <= seconds < float("inf") or not (seconds or may_be_zero):
        least = "of at least 0" if may_be_zero else "above 0"
        raise ConfigError(option, seconds, f"give a finite number of seconds {least}, or None")
    return float(seconds)


def _on_cancel(on_cancel: Any) -> str:
    if on_cancel not in ON_CANCEL:
        raise ConfigError("on_cancel", on_cancel, f"give one of {', '.join(map(repr, ON_CANCEL))}")
    return str(on_cancel)
