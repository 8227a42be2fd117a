"""One annotation → one check: which values pass as they are, and how others are converted.

Strict: a str is never taken for an int, nor a bool for a number. What msgspec cannot check
itself (paths, enums of mixed values, unions of several classes) is checked here; what nobody
can check is accepted. A value that needs no conversion is passed on, not copied.
"""

from __future__ import annotations

import collections.abc
import enum
import sys
import typing
from collections.abc import Callable
from types import NoneType
from typing import Any, TypeAlias

import msgspec
from msgspec import ValidationError

from snakepit.worker._annotations import UNKNOWN, arms_of

Convert: TypeAlias = Callable[[Any], Any]
Check: TypeAlias = tuple[frozenset[type], Convert] | None  # None: anything passes

_ANYTHING = (UNKNOWN, Any, object)
_BYTES = (bytes, bytearray, memoryview)  # never made from text
_NONE: frozenset[type] = frozenset()
_ITERATORS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
)


def check_for(annotation: Any) -> Check:
    """The check for an annotation, None if every value passes. Never raises."""
    try:
        return _check_for(annotation)
    except Exception:
        return None


def items_check_for(annotation: Any) -> Check:
    """The check for each item of an argument with this annotation: `Iterator[int]`, say."""
    for arm in arms_of(annotation) or (annotation,):
        args = typing.get_args(arm)
        if len(args) == 1 and typing.get_origin(arm) in _ITERATORS:
            return check_for(args[0])
    return None


def failure_of(error: Exception) -> str:
    """What is wrong with a value that its check has refused."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    text = str(error).replace("`", "")
    return text[:1].lower() + text[1:]


def _check_for(annotation: Any) -> Check:
    if annotation is None:
        annotation = NoneType
    if any(annotation is one for one in _ANYTHING) or _is_uncheckable(annotation):
        return None
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is list and args == (Any,):
        return check_for(list)
    if origin is dict and args == (str, Any):
        return _NONE, _with_str_keys
    arms = arms_of(annotation)
    if not any(_is_loose(arm) for arm in arms) and _is_supported(annotation):
        return _exact_types(annotation, arms), _by_msgspec(annotation)
    if arms:
        checks = [check_for(arm) for arm in arms]
        if None in checks:
            return None
        known = [one for one in checks if one]
        return _NONE.union(*(exact for exact, _ in known)), _by_arms(known)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return frozenset({annotation}), _by_value(annotation)
    return None


def _is_loose(annotation: Any) -> bool:
    """True for containers of anything, whose members need not be copied to be checked."""
    return typing.get_origin(annotation) in (list, dict) and typing.get_args(annotation)[-1] is Any


def _is_uncheckable(annotation: Any) -> bool:
    if isinstance(annotation, typing.TypeVar):
        return True
    kind = typing.get_origin(annotation) or annotation
    return (
        kind is collections.abc.Callable
        or _is_protocol(kind)
        # The type arguments of an array say what `isinstance` cannot.
        or (kind is not annotation and getattr(kind, "__module__", "").startswith("numpy"))
    )


def _is_protocol(kind: Any) -> bool:
    return isinstance(kind, type) and bool(kind.__dict__.get("_is_protocol", False))


def _is_supported(annotation: Any) -> bool:
    try:
        _by_msgspec_strictly(None, annotation)
    except ValidationError:
        return True
    except Exception:  # whatever the user's classes raise when they are looked at
        return False
    return True


def _exact_types(annotation: Any, arms: tuple[Any, ...]) -> frozenset[type]:
    """The types of whose exact instances all pass as they are."""
    return frozenset(arm for arm in arms or (annotation,) if isinstance(arm, type))


def _by_msgspec_strictly(value: Any, annotation: Any) -> Any:
    return msgspec.convert(value, annotation, builtin_types=_BYTES, dec_hook=_custom)


def _by_msgspec(annotation: Any) -> Convert:
    def convert(value: Any) -> Any:
        try:
            return _by_msgspec_strictly(value, annotation)
        except ValidationError:
            if _is_instance(value, annotation):
                return value
            if type(value).__module__ == "numpy" and hasattr(value, "item") and not value.shape:
                return _by_msgspec_strictly(value.item(), annotation)
            raise
        except TypeError:
            return value  # only now it shows that this cannot be checked

    return convert


def _is_instance(value: Any, annotation: Any) -> bool:
    """True for subclasses' instances, but a bool is no int."""
    return (
        isinstance(annotation, type)
        and isinstance(value, annotation)
        and not (annotation is int and isinstance(value, bool))
    )


def _custom(kind: Any, value: Any) -> Any:
    """The hook of msgspec for classes that it does not know."""
    if not isinstance(kind, type) or _is_protocol(kind) or isinstance(value, kind):
        return value
    pathlib = sys.modules.get("pathlib")
    if type(value) is str and pathlib is not None and issubclass(kind, pathlib.PurePath):
        return kind(value)
    if kind is complex and type(value) in (int, float):
        return complex(value)
    raise TypeError(f"Expected `{kind.__qualname__}`, got `{type(value).__name__}`")


def _by_arms(checks: list[tuple[frozenset[type], Convert]]) -> Convert:
    """A union that msgspec refuses: the member that takes the value as it is goes first."""

    def convert(value: Any) -> Any:
        results = []
        problem: Exception | None = None
        for _, one in checks:
            try:
                results.append(one(value))
            except Exception as error:
                problem = error
            else:
                if results[-1] is value:
                    return value
        if not results:
            raise ValidationError(
                f"Expected one of the types, got `{type(value).__name__}`"
            ) from problem
        return next((one for one in results if type(one) is type(value)), results[0])

    return convert


def _by_value(kind: type[enum.Enum]) -> Convert:
    def convert(value: Any) -> Any:
        for member in kind:
            if type(member.value) is type(value) and member.value == value:
                return member
        raise ValidationError(f"Invalid enum value {value!r}")

    return convert


def _with_str_keys(value: Any) -> Any:
    if type(value) is dict and set(map(type, value)) <= {str}:
        return value
    return _by_msgspec_strictly(value, dict[str, Any])
