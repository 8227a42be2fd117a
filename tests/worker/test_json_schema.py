"""What `ToolSpec.parameters` shows is a JSON Schema (2020-12) that says what the tool accepts.

A reader in another language, or a model that calls tools, has only that. Python accepts more than
JSON can say, a `Colour.BLUE` beside "blue": so the arguments here are what JSON has.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import pathlib
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Optional

import jsonschema
import msgspec
import numpy as np
import pytest
from test_schema import (
    Attrs,
    Colour,
    Level,
    Mixed,
    Movie,
    NewId,
    Pair,
    Plain,
    Point,
    Struct,
    Unresolvable,
)

from snakepit import InvalidParamsError, tool
from snakepit.worker._annotations import signature_of
from snakepit.worker._schema import make_bind, schema_of
from snakepit.worker._toolbox import collect

ID = "12345678-1234-5678-1234-567812345678"


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


class Tools:
    @tool
    def nothing(self) -> None: ...
    @tool
    def scalars(self, a: int, b: float, c: str, d: bool, e: None = None) -> None: ...
    @tool
    def defaults(self, a: int = 1, b: str = "x", c: float = float("nan"), d: Any = ()) -> None: ...
    @tool
    def keywords(self, a: int, /, b: int, *, c: int, d: int = 4) -> None: ...
    @tool
    def is_open(self, a: int, *more: int, **rest: Any) -> None: ...
    @tool
    def unannotated(self, a, b=2) -> None: ...
    @tool
    def containers(
        self,
        a: list[int],
        b: dict[str, float],
        c: tuple[int, str],
        d: set[str],
        e: tuple[int, ...] = (),
        f: Sequence[bool] = (),
    ) -> None: ...
    @tool
    def unions(self, a: int | str | None, b: Optional[list[int]], c: int | list[str]) -> None: ...  # noqa: UP045
    @tool
    def choices(self, a: Literal["x", "y", 3], b: Colour, c: Level, d: Mixed) -> None: ...
    @tool
    def records(self, a: Point, b: Attrs, c: Struct, d: Pair, e: Movie) -> None: ...
    @tool
    def nested(self, a: list[Point], b: dict[str, list[Movie]], c: Point | None = None) -> None: ...
    @tool
    def recursive(self, a: Tree) -> None: ...
    @tool
    def times(self, a: dt.datetime, b: dt.date, c: dt.time, d: uuid.UUID) -> None: ...
    @tool
    def others(self, a: decimal.Decimal, b: pathlib.Path, c: NewId) -> None: ...
    @tool
    def bounded(
        self,
        a: Annotated[int, msgspec.Meta(ge=1, le=9)],
        b: Annotated[str, msgspec.Meta(max_length=3, pattern="^a")],
        c: Annotated[list[int], msgspec.Meta(min_length=1)],
        d: Annotated[float, "told"] = 1.0,
    ) -> None: ...
    @tool
    def unknown(self, a: Plain, b: np.ndarray, c: Unresolvable, d: complex) -> None: ...


TOOLS = collect(Tools())

# Tool, params, and whether the tool accepts them; the schema has to say the same.
SAID: list[tuple[str, dict[str, Any], bool]] = [
    ("nothing", {}, True),
    ("nothing", {"a": 1}, False),
    ("scalars", {"a": 1, "b": 1.5, "c": "x", "d": True}, True),
    ("scalars", {"a": -(2**70), "b": 1, "c": "", "d": False, "e": None}, True),
    ("scalars", {"a": "1", "b": 1.5, "c": "x", "d": True}, False),
    ("scalars", {"a": 1, "b": "1.5", "c": "x", "d": True}, False),
    ("scalars", {"a": 1, "b": 1.5, "c": 3, "d": True}, False),
    ("scalars", {"a": 1, "b": 1.5, "c": "x", "d": 1}, False),
    ("scalars", {"a": 1, "b": 1.5, "c": "x"}, False),
    ("scalars", {"a": 1, "b": 1.5, "c": "x", "d": True, "e": 0}, False),
    ("defaults", {}, True),
    ("defaults", {"a": 2, "c": 0.5, "d": [{}]}, True),
    ("defaults", {"b": None}, False),
    ("keywords", {"a": 1, "b": 2, "c": 3}, True),
    ("keywords", {"a": 1, "b": 2}, False),
    ("is_open", {"a": 1, "z": [None]}, True),
    ("is_open", {"z": 1}, False),
    ("unannotated", {"a": {"x": [1]}}, True),
    ("containers", {"a": [1], "b": {"x": 1}, "c": [1, "x"], "d": ["x"]}, True),
    ("containers", {"a": [], "b": {}, "c": [1, "x"], "d": [], "e": [1], "f": [True]}, True),
    ("containers", {"a": ["1"], "b": {}, "c": [1, "x"], "d": []}, False),
    ("containers", {"a": [], "b": {"x": "1"}, "c": [1, "x"], "d": []}, False),
    ("containers", {"a": [], "b": {}, "c": [1], "d": []}, False),
    ("containers", {"a": [], "b": {}, "c": ["x", 1], "d": []}, False),
    ("unions", {"a": None, "b": None, "c": 1}, True),
    ("unions", {"a": "x", "b": [1], "c": ["x"]}, True),
    ("unions", {"a": 1.5, "b": [1], "c": ["x"]}, False),
    ("unions", {"a": 1, "b": ["x"], "c": 1}, False),
    ("choices", {"a": "x", "b": "blue", "c": 1, "d": 2}, True),
    ("choices", {"a": 3, "b": "red", "c": 1, "d": "text"}, True),
    ("choices", {"a": "z", "b": "red", "c": 1, "d": "text"}, False),
    ("choices", {"a": "x", "b": "green", "c": 1, "d": "text"}, False),
    ("choices", {"a": "x", "b": "red", "c": 7, "d": "text"}, False),
    ("choices", {"a": "x", "b": "red", "c": 1, "d": "other"}, False),
    (
        "records",
        {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}, "d": [1, "x"], "e": {"name": "M"}},
        True,
    ),
    (
        "records",
        {"a": {"y": 1}, "b": {"x": 1}, "c": {"x": 1}, "d": [1, "x"], "e": {"name": "M"}},
        False,
    ),
    (
        "records",
        {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": "1"}, "d": [1, "x"], "e": {"name": "M"}},
        False,
    ),
    ("records", {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}, "d": [1, "x"], "e": {}}, False),
    ("nested", {"a": [{"x": 1, "y": 2}], "b": {"k": [{"name": "M"}]}}, True),
    ("nested", {"a": [], "b": {}, "c": {"x": 1}}, True),
    ("nested", {"a": [{}], "b": {}}, False),
    ("nested", {"a": [], "b": {"k": [{"name": 3}]}}, False),
    ("recursive", {"a": {"value": 1, "children": [{"value": 2}]}}, True),
    ("recursive", {"a": {"value": 1, "children": [{"value": "2"}]}}, False),
    ("times", {"a": "2024-05-06T07:08:09Z", "b": "2024-05-06", "c": "07:08:09", "d": ID}, True),
    ("times", {"a": 3, "b": "2024-05-06", "c": "07:08:09", "d": ID}, False),
    ("others", {"a": "1.10", "b": "a/file", "c": 5}, True),
    ("others", {"a": "1.10", "b": "a/file", "c": "5"}, False),
    ("bounded", {"a": 9, "b": "abc", "c": [1]}, True),
    ("bounded", {"a": 0, "b": "abc", "c": [1]}, False),
    ("bounded", {"a": 1, "b": "abcd", "c": [1]}, False),
    ("bounded", {"a": 1, "b": "bcd", "c": [1]}, False),
    ("bounded", {"a": 1, "b": "abc", "c": []}, False),
]


def schema(name: str) -> dict[str, Any]:
    """As it arrives elsewhere: through JSON."""
    shown: dict[str, Any] = json.loads(json.dumps(TOOLS[name].info().parameters))
    return shown


@pytest.mark.parametrize("name", TOOLS)
def test_every_schema_is_a_valid_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize(("name", "params", "fits"), SAID, ids=str)
def test_the_schema_accepts_what_the_tool_accepts(
    name: str, params: dict[str, Any], fits: bool
) -> None:
    validator = jsonschema.Draft202012Validator(schema(name))
    assert validator.is_valid(params) == fits
    try:
        TOOLS[name].bind(params)
    except InvalidParamsError:
        assert not fits
    else:
        assert fits


def test_the_table_has_every_tool_and_both_answers() -> None:
    """But for one, whose annotations cannot be described: then anything is."""
    assert {name for name, _, _ in SAID} == set(TOOLS) - {"unknown"}
    assert len([fits for _, _, fits in SAID if not fits]) > 25


def test_what_cannot_be_described_allows_all() -> None:
    validator = jsonschema.Draft202012Validator(schema("unknown"))
    assert validator.is_valid({"a": 1, "b": "x", "c": None, "d": []})
    assert not validator.is_valid({"a": 1, "b": "x", "c": None})


def test_the_defaults_that_are_shown_fit_their_own_schema() -> None:
    for name in TOOLS:
        shown = schema(name)
        for parameter in shown["properties"].values():
            if "default" in parameter:
                whole = parameter | {"$defs": shown.get("$defs", {})}
                jsonschema.Draft202012Validator(whole).validate(parameter["default"])


@pytest.mark.parametrize("kind", [int, float, str, bool, list[int], dict[str, Any], Colour, Point])
def test_a_wrong_kind_is_refused_by_both(kind: Any) -> None:
    def func(x: Any) -> None: ...

    func.__annotations__ = {"x": kind}
    takes: Callable[..., Any] = func
    signature = signature_of(takes)
    validator = jsonschema.Draft202012Validator(schema_of(signature))
    bind = make_bind("t", signature)
    for value in [3, 2.5, "red", "x", True, None, [1], ["x"], {"x": 1}, {"x": "y"}, {}]:
        try:
            bind({"x": value})
            accepted = True
        except InvalidParamsError:
            accepted = False
        assert validator.is_valid({"x": value}) == accepted, (kind, value)
