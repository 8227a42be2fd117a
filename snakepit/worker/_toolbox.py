"""The tools of an adapter: found, named, bound, ready to be called.

Finding them reads class and module dictionaries and nothing else, so no property and no
`__getattr__` of the user runs; only what carries the mark of `@tool` is then bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any, Literal, TypeAlias, TypeGuard

from snakepit.errors import ConfigError, ToolNotFoundError
from snakepit.protocol import ToolInfo
from snakepit.worker._annotations import signature_of
from snakepit.worker._checks import Check, items_check_for
from snakepit.worker._schema import by_name, make_bind, schema_of
from snakepit.worker._tool import ToolOptions, mark_of

Kind: TypeAlias = Literal["sync", "async", "generator", "async generator"]

ASYNC_KINDS = ("async", "async generator")
NEAR_MAX = 3
LAYERS_MAX = 20
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200  # the flags of a code object


class Tool:
    """One tool of this worker.

    `bind(params)` checks and converts the arguments (InvalidParamsError); `call(**bound)` runs
    it, where an async tool gives a coroutine and a streaming one a generator.
    """

    __slots__ = (
        "_signature",
        "bind",
        "call",
        "description",
        "is_async",
        "kind",
        "name",
        "options",
        "streaming",
    )

    def __init__(self, name: str, call: Callable[..., Any], options: ToolOptions) -> None:
        self.name = name
        self.options = options
        self.kind = kind_of(call)
        self.is_async = self.kind in ASYNC_KINDS
        self.streaming = self.kind in ("generator", "async generator")
        self.description = _describe(call) if options.description is None else options.description
        self._signature = signature_of(call)
        self.bind = make_bind(name, self._signature)
        self.call = by_name(call, self._signature)

    def check_of_items(self, name: str) -> Check:
        """The check for each item of an argument that is an input."""
        return next(
            (
                items_check_for(one.annotation)
                for one in self._signature.parameters
                if one.name == name
            ),
            None,
        )

    def info(self) -> ToolInfo:
        """What the host is told of it."""
        options = self.options
        return ToolInfo(
            name=self.name,
            description=self.description,
            parameters=schema_of(self._signature),
            streaming=self.streaming,
            idempotent=options.idempotent,
            timeout_s=options.timeout,
            on_cancel=options.on_cancel,
            cancel_grace_s=options.cancel_grace,
        )

    def __repr__(self) -> str:
        return f"<Tool {self.name!r} ({self.kind})>"


def collect(adapter: object) -> dict[str, Tool]:
    """The tools of an adapter's instance, or those in a module, by name.

    Inherited tools count, also where the override is not decorated again: the nearest mark
    along the MRO holds. An override that is not callable takes the tool away.
    Raises: ConfigError: two tools have one name.
    """
    tools: dict[str, Tool] = {}
    attributes: dict[str, str] = {}
    for attribute, options in marked(adapter).items():
        call = _bound(adapter, attribute)
        name = options.name or attribute
        if name in tools:
            if _same(tools[name].call, call):
                continue
            raise ConfigError(
                "tool",
                name,
                f"two tools of {_title(adapter)} have this name, "
                f"{attributes[name]!r} and {attribute!r}; give one of them another",
            )
        tools[name], attributes[name] = Tool(name, call, options), attribute
    return tools


def has_tools(adapter: object) -> bool:
    """True if the class or module offers any tool."""
    return bool(marked(adapter))


def find(tools: Mapping[str, Tool], name: str) -> Tool:
    """The tool of that name. Raises ToolNotFoundError, with the names that come near."""
    try:
        return tools[name]
    except KeyError:
        from difflib import get_close_matches

        near = get_close_matches(name, tools, NEAR_MAX)
        raise ToolNotFoundError(name, tuple(near)) from None


def kind_of(call: Any) -> Kind:
    """How a callable is to be called and what it gives."""
    flags = _flags(call)
    if flags & _ASYNC_GENERATOR:
        return "async generator"
    if flags & _GENERATOR:
        return "generator"
    return "async" if is_coroutine_function(call) else "sync"


def is_coroutine_function(call: Any) -> bool:
    """True if calling it gives a coroutine."""
    if _flags(call) & _COROUTINE:
        return True
    # Only `inspect` can have marked a function as such; where it was not imported, none is.
    inspect = sys.modules.get("inspect")
    return inspect is not None and bool(inspect.iscoroutinefunction(call))


def _flags(call: Any) -> int:
    """The code flags of the function at the bottom of methods, partials and callable objects."""
    for _ in range(LAYERS_MAX):
        if type(call) is FunctionType:
            # What a bound partialmethod holds is a function that forwards to the real one.
            held = call.__dict__.get("__partialmethod__") or call.__dict__.get("_partialmethod")
            if held is None:
                return call.__code__.co_flags
            call = held.func
        elif type(call) is MethodType:
            call = call.__func__
        elif hasattr(call, "func") and hasattr(call, "keywords"):
            call = call.func
        else:
            call = vars(type(call)).get("__call__")
    return 0


def marked(adapter: object) -> dict[str, ToolOptions]:
    """Attribute → options, in the order of definition, base classes first."""
    found: dict[str, ToolOptions] = {}
    nearest: dict[str, Any] = {}
    for names in _namespaces(adapter):
        for attribute, raw in tuple(names.items()):
            if attribute in nearest or (options := mark_of(raw)) is not None:
                nearest[attribute] = raw
                if (options := mark_of(raw)) is not None:
                    found[attribute] = options
    return {name: options for name, options in found.items() if _may_be_called(nearest[name])}


def _namespaces(adapter: object) -> list[Mapping[str, Any]]:
    if _is_module(adapter):
        return [vars(adapter)]
    kind: Any = adapter if issubclass(type(adapter), type) else type(adapter)
    return [vars(cls) for cls in reversed(kind.__mro__) if cls is not object]


def _is_module(adapter: object) -> TypeGuard[ModuleType]:
    return issubclass(type(adapter), ModuleType)  # `isinstance` would ask the object


def _may_be_called(raw: Any) -> bool:
    return callable(raw) or hasattr(raw, "__get__")


def _bound(adapter: object, attribute: str) -> Any:
    if _is_module(adapter):
        return vars(adapter)[attribute]
    try:
        call = getattr(adapter, attribute)
    except Exception:  # a `__getattribute__` of the user's
        call = None
    if callable(call):
        return call
    raw = next(vars(cls)[attribute] for cls in type(adapter).__mro__ if attribute in vars(cls))
    return raw.__get__(adapter, type(adapter)) if hasattr(type(raw), "__get__") else raw


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is MethodType and bool(one == other))


def _describe(call: Any) -> str:
    """The first paragraph of the docstring, in one line."""
    doc = getattr(call, "__doc__", None)
    if not isinstance(doc, str) or doc == getattr(type(call), "__doc__", None):
        return ""
    lines: list[str] = []
    for line in doc.strip().splitlines():
        if not line.strip():
            break
        lines.append(line.strip())
    return " ".join(lines)


def _title(adapter: object) -> str:
    if _is_module(adapter):
        return f"module {adapter.__name__}"
    kind: Any = adapter if issubclass(type(adapter), type) else type(adapter)
    return f"{kind.__module__}.{kind.__qualname__}"
