"""A tool's signature as a JSON Schema (2020-12) and as `bind`, which checks the arguments.

`bind` runs before every call: for arguments of exactly the annotated type it is one dict
look-up each. All that only errors need is made when there is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

import msgspec

from snakepit.errors import InvalidParamsError
from snakepit.worker._annotations import REQUIRED, UNKNOWN, Parameter, Signature, arms_of
from snakepit.worker._checks import Check, check_for

Bind: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

TEXT_CHARS_MAX = 40
NEAR_MAX = 3


def make_bind(tool: str, signature: Signature) -> Bind:
    """The function that checks a call's `params` and converts them by the annotations.

    It returns `params` itself where nothing had to be converted, and raises InvalidParamsError.
    """
    known = {one.name: one for one in signature.parameters}
    checks: dict[str, Check] = {name: check_for(one.annotation) for name, one in known.items()}
    required = {name for name, one in known.items() if one.default is REQUIRED}
    count, is_open = len(known), signature.is_open

    def bind(params: dict[str, Any]) -> dict[str, Any]:
        bound = params
        for name, value in params.items():
            try:
                check = checks[name]
            except KeyError:
                if is_open and isinstance(name, str):
                    continue
                raise _unknown(tool, name, signature) from None
            if check is not None and type(value) not in check[0]:
                try:
                    converted = check[1](value)
                except Exception as error:
                    raise _wrong(tool, known[name], value, error) from error
                if converted is not value:
                    if bound is params:
                        bound = params.copy()
                    bound[name] = converted
        if required and (is_open or len(params) != count) and not required <= params.keys():
            raise _missing(tool, required - params.keys(), signature)
        return bound

    return bind


def by_name(call: Callable[..., Any], signature: Signature) -> Callable[..., Any]:
    """`call`, able to take by name what its signature wants by position only."""
    by_position = [one for one in signature.parameters if one.positional_only]
    if not by_position:
        return call

    def named(**params: Any) -> Any:
        values = [params.pop(one.name, one.default) for one in by_position]
        return call(*values, **params)

    return named


def schema_of(signature: Signature) -> dict[str, Any]:
    """The JSON Schema of the params object. A parameter that cannot be described allows all."""
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    described = _describe_all(signature.parameters, definitions)
    for one, schema in zip(signature.parameters, described, strict=True):
        if (note := _note(one.annotation)) and "description" not in schema:
            schema["description"] = note
        if _is_json_scalar(one.default):
            schema["default"] = one.default
        properties[one.name] = schema
    schema = {
        "type": "object",
        "properties": properties,
        "required": [one.name for one in signature.parameters if one.default is REQUIRED],
        "additionalProperties": signature.is_open,
    }
    if definitions:
        schema["$defs"] = definitions
    return schema


def _describe_all(
    parameters: tuple[Parameter, ...], definitions: dict[str, Any]
) -> list[dict[str, Any]]:
    checked = [_described(one.annotation) for one in parameters]
    try:
        schemas, shared = _components(checked)
    except Exception:  # one of them cannot be described: find out which
        return [_describe(annotation, definitions) for annotation in checked]
    definitions.update(shared)
    return schemas


def _described(annotation: Any) -> Any:
    return Any if annotation is UNKNOWN or annotation is object else annotation


def _describe(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    try:
        (schema,), shared = _components([annotation])
        clash = any(definitions.get(name, one) != one for name, one in shared.items())
        if not clash:
            definitions.update(shared)
            return schema
    except Exception:  # noqa: S110 - whatever the user's classes raise; it is described in parts
        pass
    arms = arms_of(annotation)
    described = [_describe(_described(arm), definitions) for arm in arms]
    if described and all(described):
        return {"anyOf": described}
    values = [member.value for member in getattr(annotation, "__members__", {}).values()]
    if values and all(map(_is_json_scalar, values)):
        return {"enum": values}
    return {}


def _components(annotations: list[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    schemas, shared = msgspec.json.schema_components(annotations, schema_hook=_custom)
    msgspec.json.encode((schemas, shared))  # it must travel, whatever `Meta` put into it
    return [dict(one) for one in schemas], shared


def _custom(kind: Any) -> dict[str, Any]:
    names = {f"{one.__module__}.{one.__name__}" for one in getattr(kind, "__mro__", ())}
    is_path = any(name.startswith("pathlib") and name.endswith(".PurePath") for name in names)
    return {"type": "string", "format": "path"} if is_path else {}


def _note(annotation: Any) -> str:
    """The text in `Annotated[type, "text"]`."""
    if type(annotation).__name__ != "_AnnotatedAlias":
        return ""
    return next((one for one in get_args(annotation)[1:] if type(one) is str), "")


def _is_json_scalar(value: Any) -> bool:
    return (
        value is None
        or type(value) in (bool, str)
        or (type(value) is int and -(2**63) <= value < 2**63)
        or (type(value) is float and abs(value) < float("inf"))
    )


def _unknown(tool: str, name: object, signature: Signature) -> InvalidParamsError:
    from difflib import get_close_matches

    names = [one.name for one in signature.parameters]
    near = get_close_matches(name, names, NEAR_MAX) if isinstance(name, str) else []
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return InvalidParamsError(tool, f"unknown argument {name!r}{hint}; {_takes(signature)}")


def _missing(tool: str, names: set[str], signature: Signature) -> InvalidParamsError:
    ordered = [repr(one.name) for one in signature.parameters if one.name in names]
    word = "argument" if len(ordered) == 1 else "arguments"
    return InvalidParamsError(tool, f"missing {word} {', '.join(ordered)}; {_takes(signature)}")


def _wrong(tool: str, one: Parameter, value: Any, error: Exception) -> InvalidParamsError:
    message = f"argument {one.name!r}: expected {one.text}, got {_shown(value)}"
    if isinstance(error, msgspec.ValidationError):
        detail, _, path = str(error).replace("`", "").partition(" - at ")
        if path or "got" not in detail:
            at = f" at {path.replace('$', one.name, 1)}" if path else ""
            message += f" ({detail[:1].lower()}{detail[1:]}{at})"
    else:
        message += f" ({type(error).__name__}: {error})"
    return InvalidParamsError(tool, message)


def _takes(signature: Signature) -> str:
    parts = []
    for one in signature.parameters:
        text = f"{one.name}: {one.text}" if one.text else one.name
        if one.default is not REQUIRED:
            text += f" = {_short(one.default)}"
        parts.append(text)
    if signature.is_open:
        parts.append("any further names")
    return f"it takes {', '.join(parts)}" if parts else "it takes none"


def _shown(value: Any) -> str:
    name = type(value).__qualname__
    if value is None:
        return "None"
    return f"{name} {_short(value)}" if isinstance(value, (str, bool, int, float)) else name


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__qualname__}>"
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[: TEXT_CHARS_MAX - 1]}…"
