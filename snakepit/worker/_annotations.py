"""What a callable's parameters are and what their annotations mean, without running anything.

Nothing here raises for an annotation, however odd: one that cannot be resolved is `UNKNOWN`,
and its parameter is accepted unchecked. `inspect` is only asked about callables that are not
plain functions.
"""

from __future__ import annotations

import sys
import typing
from importlib import import_module
from types import FunctionType, MethodType, UnionType
from typing import Any, Final

from msgspec import Struct

VARARGS_FLAG, VARKEYWORDS_FLAG = 0x04, 0x08
WRAPPERS_MAX = 100
# What a function has that is not called as its code says; the last two hold a partialmethod.
_SPEAKS_FOR_ANOTHER = {"__signature__", "__partialmethod__", "_partialmethod"}


class _Marker:
    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


UNKNOWN: Final = _Marker("unknown")
REQUIRED: Final = _Marker("required")


class Parameter(Struct, frozen=True):
    """One parameter that a caller can give. `text` is its annotation as the user wrote it."""

    name: str
    annotation: Any = UNKNOWN
    default: Any = REQUIRED
    text: str = ""
    positional_only: bool = False


class Signature(Struct, frozen=True):
    """The parameters of a callable; `is_open` if it takes any further name (`**kwargs`)."""

    parameters: tuple[Parameter, ...] = ()
    is_open: bool = False


def signature_of(call: Any) -> Signature:
    """The signature of a function, a bound method or anything else that can be called."""
    function, skipped = call, 0
    if type(function) is MethodType:
        function, skipped = function.__func__, 1
    for _ in range(WRAPPERS_MAX):
        wrapped = getattr(function, "__wrapped__", None)
        if type(function) is not FunctionType or wrapped is None:
            break
        function = wrapped
    if type(function) is FunctionType and not _SPEAKS_FOR_ANOTHER & function.__dict__.keys():
        return _of_function(function, skipped)
    try:
        return _of_anything(call)
    except Exception:
        return Signature(is_open=True)


def _of_function(function: FunctionType, skipped: int) -> Signature:
    code = function.__code__
    names = code.co_varnames
    by_position = names[: code.co_argcount]
    by_keyword = names[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    defaults = function.__defaults__ or ()
    given = dict(zip(by_position[len(by_position) - len(defaults) :], defaults, strict=True))
    given.update(function.__kwdefaults__ or {})
    annotations = _annotations(function)
    parameters = tuple(
        _parameter(
            name,
            annotations.get(name, UNKNOWN),
            given.get(name, REQUIRED),
            function,
            positional_only=position < code.co_posonlyargcount,
        )
        for position, name in enumerate(by_position + by_keyword)
        if position >= skipped or position >= len(by_position)
    )
    return Signature(parameters, bool(code.co_flags & VARKEYWORDS_FLAG))


def _of_anything(call: Any) -> Signature:
    import inspect

    parameters, is_open = [], False
    function = getattr(call, "__func__", getattr(call, "func", call))
    for one in inspect.signature(call).parameters.values():
        if one.kind is one.VAR_KEYWORD:
            is_open = True
        elif one.kind is not one.VAR_POSITIONAL:
            annotation = UNKNOWN if one.annotation is one.empty else one.annotation
            default = REQUIRED if one.default is one.empty else one.default
            parameters.append(
                _parameter(
                    one.name,
                    annotation,
                    default,
                    function,
                    positional_only=one.kind is one.POSITIONAL_ONLY,
                )
            )
    return Signature(tuple(parameters), is_open)


def _annotations(function: FunctionType) -> dict[str, Any]:
    try:
        return function.__annotations__
    except Exception:  # lazy annotations, new in 3.14, are the user's expressions run just now
        try:
            lazily: Any = import_module("annotationlib")
            return dict(lazily.get_annotations(function, format=lazily.Format.FORWARDREF))
        except Exception:
            return {}


def _parameter(
    name: str, annotation: Any, default: Any, function: Any, *, positional_only: bool
) -> Parameter:
    text = "" if annotation is UNKNOWN else shown(annotation)
    return Parameter(name, _resolve(annotation, function), default, text, positional_only)


def _resolve(annotation: Any, function: Any) -> Any:
    """The annotation with its strings evaluated; UNKNOWN if that cannot be done."""
    if annotation is UNKNOWN or annotation is None or type(annotation) is type:
        return annotation
    try:
        scope = getattr(function, "__globals__", {})
        names = {one.__name__: one for one in getattr(function, "__type_params__", ())}

        def carrier() -> None: ...

        carrier.__annotations__ = {"it": annotation}
        try:
            hints = typing.get_type_hints(carrier, scope, names, include_extras=True)
        except NameError:
            names.update(_class_names(function))
            hints = typing.get_type_hints(carrier, scope, names, include_extras=True)
        return without_alias(hints["it"])
    except Exception:
        return UNKNOWN


def _class_names(function: Any) -> dict[str, Any]:
    """What names mean in the body of the class around a method; tried only when needed."""
    owner: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for name in getattr(function, "__qualname__", "").split(".")[:-1]:
        owner = getattr(owner, name, None)
    return dict(vars(owner)) if isinstance(owner, type) else {}


def without_alias(annotation: Any) -> Any:
    """Look through `type X = …` and NewType to what they stand for."""
    for _ in range(WRAPPERS_MAX):
        if type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif type(annotation) is typing.NewType:
            annotation = annotation.__supertype__
        else:
            break
    return annotation


def arms_of(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, of both spellings; () for anything else."""
    if type(annotation) is UnionType or typing.get_origin(annotation) is typing.Union:
        return tuple(without_alias(arm) for arm in typing.get_args(annotation))
    return ()


def shown(annotation: Any) -> str:
    """The annotation for people: as written, without module names."""
    if isinstance(annotation, str):
        return annotation
    if annotation is None:
        return "None"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    try:
        if type(annotation).__name__ == "_AnnotatedAlias":
            return shown(annotation.__origin__)
        return repr(annotation).replace("typing.", "").replace("collections.abc.", "")
    except Exception:
        return "?"
