"""A tool's method and its arguments, as the name and the params that are sent.

A method taken from its class is a plain function, and so is a static one. What it is says its
class, which is found by the function's own account of where it was defined.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

from attrs import frozen

from snakepit.errors import InvalidParamsError
from snakepit.worker._tool import ToolOptions, mark_of

METHODS_MAX = 1024  # remembered


@frozen
class Method:
    """What is known of one tool: its name, and those of its arguments that may go by position."""

    tool: str
    names: tuple[str, ...]


def as_call(
    method: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The tool's name and its params. Raises TypeError for what is no tool; InvalidParamsError."""
    try:
        known = _describe(method)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        known = _describe.__wrapped__(method)
    if len(args) > len(known.names):
        takes = f"{len(known.names)} by position" if known.names else "none by position"
        raise InvalidParamsError(known.tool, f"got {len(args)} arguments, and takes {takes}")
    params = dict(zip(known.names, args, strict=False))
    for name in kwargs:
        if name in params:
            raise InvalidParamsError(known.tool, f"got argument {name!r} twice")
    params.update(kwargs)
    return known.tool, params


@functools.lru_cache(METHODS_MAX)
def _describe(method: object) -> Method:
    if isinstance(method, str):
        raise TypeError(
            f"call takes the tool's method itself, not its name; execute({method!r}, ...) does that"
        )
    if not callable(method):
        raise TypeError(f"{method!r} is no tool, nor anything that can be called")
    attribute = getattr(method, "__name__", None)
    owner = _owner_of(method)
    options = _options_of(method, owner, attribute)
    if options is None:
        raise TypeError(f"{_title(method)} is no tool: there is no @tool on it")
    if not isinstance(options.name or attribute, str):
        raise TypeError(f"{method!r} does not know its name: give it one, @tool(name=...)")
    positional = [
        one.name
        for one in _parameters_of(method)
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if _takes_self(method, owner, attribute):
        del positional[:1]
    return Method(options.name or str(attribute), tuple(positional))


def _options_of(method: object, owner: type | None, attribute: Any) -> ToolOptions | None:
    """The mark on it, or the nearest one of that name along its class's MRO, as in the worker."""
    for candidate in (method, getattr(method, "__func__", None)):
        if (options := mark_of(candidate)) is not None:
            return options
    for cls in owner.__mro__ if owner is not None else ():
        if (options := mark_of(vars(cls).get(attribute))) is not None:
            return options
    return None


def _owner_of(method: object) -> type | None:
    """The class in which it was looked up, if it tells; None for a function of a module."""
    if isinstance(method, MethodType):
        bound_to = method.__self__
        return bound_to if isinstance(bound_to, type) else type(bound_to)
    owner: Any = sys.modules.get(getattr(method, "__module__", None) or "")
    path = getattr(method, "__qualname__", "").split(".")[:-1]
    for name in path:
        owner = getattr(owner, name, None)
    return owner if path and isinstance(owner, type) else None


def _takes_self(method: object, owner: type | None, attribute: Any) -> bool:
    if isinstance(method, MethodType):
        return False  # it has it
    if owner is not None:
        raw = next((vars(cls)[attribute] for cls in owner.__mro__ if attribute in vars(cls)), None)
        return not isinstance(raw, staticmethod)
    # A class that cannot be found, for it was made in a function.
    above = getattr(method, "__qualname__", "").rpartition(".")[0]
    return bool(above) and not above.endswith("<locals>")


def _parameters_of(method: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return []


def _title(method: object) -> str:
    return str(getattr(method, "__qualname__", None) or repr(method))
