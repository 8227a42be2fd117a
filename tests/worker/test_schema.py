"""Arguments are checked and converted by the annotations; what cannot be checked passes."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import pathlib
import sys
import typing
import uuid
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

import attrs
import msgspec
import numpy as np
import numpy.typing
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import InvalidParamsError
from snakepit.worker._annotations import Parameter, Signature, signature_of
from snakepit.worker._schema import by_name, make_bind, schema_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Mixed(enum.Enum):
    TEXT = "text"
    NUMBER = 2


class Plain:
    pass


class Heir(str):
    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@attrs.define
class Attrs:
    x: int


class Struct(msgspec.Struct):
    x: int


class Pair(NamedTuple):
    a: int
    b: str


class Movie(TypedDict):
    name: str


class Speaks(typing.Protocol):
    def speak(self) -> str: ...


@dataclasses.dataclass
class Unresolvable:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


@dataclasses.dataclass
class Explodes:
    x: int

    def __post_init__(self) -> None:
        raise KeyError("boom")


T = typing.TypeVar("T")
NewId = typing.NewType("NewId", int)


def checked(annotation: Any, value: Any) -> Any:
    """What a tool with one parameter of this annotation gets for the value."""
    return make_bind("t", signature_with(annotation))({"x": value})["x"]


def signature_with(annotation: Any) -> Signature:
    def func(x):
        pass

    func.__annotations__ = {"x": annotation}
    return signature_of(func)


NOW = dt.datetime(2024, 5, 6, 7, 8, 9)
SAME = [
    (int, 5),
    (int, 2**100),
    (float, 1.5),
    (float, np.float64(1.5)),
    (str, "a"),
    (str, Heir("a")),
    (bool, True),
    (None, None),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"a")),
    (list, [1, [2]]),
    (dict, {1: [2]}),
    (tuple, (1, 2)),
    (set, {1}),
    (frozenset, frozenset({1})),
    (Any, object()),
    (object, object()),
    (list[Any], [1, "a"]),
    (list[Any] | dict[str, Any] | None, {"a": [1]}),
    (dict[str, Any], {"a": [1]}),
    (Optional[int], None),  # noqa: UP045 - both spellings are meant
    (int | str, "a"),
    (int | float, 3),
    (Union[str, list, None], [1]),  # noqa: UP007 - as above
    (dt.datetime, NOW),
    (dt.date, NOW.date()),
    (dt.time, NOW.time()),
    (dt.timedelta, dt.timedelta(1)),
    (uuid.UUID, uuid.UUID(int=7)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Mixed, Mixed.NUMBER),
    (Point, Point(1)),
    (Attrs, Attrs(1)),
    (Struct, Struct(1)),
    (Pair, Pair(1, "a")),
    (Plain, Plain()),
    (pathlib.Path, pathlib.Path("a")),
    (complex, 1j),
    (np.ndarray, np.zeros(3)),
    (Plain | int, 5),
    (Plain | pathlib.Path | None, pathlib.Path("a")),
    (np.ndarray | list[float], np.zeros(3)),
    (Literal["a", 1], "a"),
    (NewId, 5),
    ("int", 5),
    ("list[Any] | None", [1]),
]


def name_of(one: object) -> str:
    """The same in every process, so that several may share the tests."""
    return str(one).split(" at 0x")[0][:40]


@pytest.mark.parametrize(("annotation", "value"), SAME, ids=name_of)
def test_what_fits_passes_as_it_is(annotation: Any, value: Any) -> None:
    """Same object: nothing that fits is copied."""
    assert checked(annotation, value) is value


def test_a_memoryview_passes() -> None:
    value = memoryview(b"a")
    assert checked(memoryview, value) is value


CONVERTED = [
    (float, 5, 5.0),
    (float, np.float32(0.5), 0.5),
    (int, np.int64(7), 7),
    (complex, 2, 2 + 0j),
    (list[float], [1, 2.5], [1.0, 2.5]),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[int, ...], [1, 2], (1, 2)),
    (set[int], [1, 2], {1, 2}),
    (frozenset[str], ["a"], frozenset({"a"})),
    (dict[int, float], {1: 2}, {1: 2.0}),
    (collections.abc.Sequence[int], (1, 2), [1, 2]),
    (Colour, "blue", Colour.BLUE),
    (Level, 1, Level.LOW),
    (Mixed, 2, Mixed.NUMBER),
    (list[Colour], ["red", Colour.BLUE], [Colour.RED, Colour.BLUE]),
    (Point, {"x": 1}, Point(1)),
    (list[Point], [{"x": 1, "y": 2}], [Point(1, 2)]),
    (Attrs, {"x": 1}, Attrs(1)),
    (Struct, {"x": 1}, Struct(1)),
    (Pair, [1, "a"], Pair(1, "a")),
    (Movie, {"name": "M"}, {"name": "M"}),
    (dt.datetime, "2024-05-06T07:08:09", NOW),
    (dt.date, "2024-05-06", NOW.date()),
    (
        uuid.UUID,
        "12345678-1234-5678-1234-567812345678",
        uuid.UUID(int=0x12345678123456781234567812345678),
    ),
    (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
    (pathlib.Path, "a/b", pathlib.Path("a/b")),
    (pathlib.Path | None, "a", pathlib.Path("a")),
    (list[pathlib.Path], ["a"], [pathlib.Path("a")]),
    (Plain | Point | None, {"x": 1}, Point(1)),
    (Annotated[float, msgspec.Meta(gt=0)], 1, 1.0),
    ("list[Point]", [{"x": 1}], [Point(1)]),
    ("Optional[Point]", {"x": 1}, Point(1)),
    (list["Point"], [{"x": 1}], [Point(1)]),
]


@pytest.mark.parametrize(
    ("annotation", "value", "expected"), CONVERTED, ids=lambda one: str(one)[:40]
)
def test_what_can_be_converted_is(annotation: Any, value: Any, expected: Any) -> None:
    got = checked(annotation, value)
    assert got == expected
    assert type(got) is type(expected)


REFUSED = [
    (int, "5"),
    (int, 5.0),
    (int, True),
    (int, None),
    (int, np.float64(1.0)),
    (int, np.arange(3)),
    (float, True),
    (float, "1"),
    (float, 10**400),
    (bool, 1),
    (str, 5),
    (str, b"a"),
    (bytes, "abcd"),
    (list, "abc"),
    (list, {"a": 1}),
    (dict, [1]),
    (list[int], [1, "2"]),
    (list[int], [True]),
    (dict[str, int], {"a": "b"}),
    (dict[str, Any], {1: 2}),
    (tuple[int, int], [1]),
    (Colour, "green"),
    (Colour, "RED"),
    (Mixed, "2"),
    (Mixed, True),
    (Point, {}),
    (Point, {"x": "1"}),
    (Explodes, {"x": 1}),
    (Movie, {}),
    (dt.datetime, "yesterday"),
    (dt.datetime, 5),
    (uuid.UUID, "x"),
    (Plain, 5),
    (pathlib.Path, 5),
    (complex, "1"),
    (np.ndarray, [1.0]),
    (Optional[int], "5"),  # noqa: UP045 - as above
    (Plain | int, "5"),
    (pathlib.Path | int, 5.5),
    (Literal["a"], "b"),
    (Annotated[int, msgspec.Meta(ge=0)], -1),
]


@pytest.mark.parametrize(("annotation", "value"), REFUSED, ids=lambda one: str(one)[:40])
def test_what_does_not_fit_is_refused_by_name(annotation: Any, value: Any) -> None:
    with pytest.raises(InvalidParamsError, match="argument 'x': expected") as caught:
        checked(annotation, value)
    assert caught.value.tool == "t"


UNCHECKED = [
    "Nowhere",
    "list[Nowhere]",
    "not python at all (",
    "print",
    5,
    Speaks,
    T,
    collections.abc.Callable,
    collections.abc.Callable[[int], str],
    typing.Callable,
    numpy.typing.NDArray[np.float64],
    typing.ClassVar[int],
    list[int] | set[int] | T,  # type: ignore[valid-type]
    Unresolvable,
    typing.Self,
    typing.LiteralString,
]


@pytest.mark.parametrize("annotation", UNCHECKED, ids=lambda one: str(one)[:40])
def test_an_annotation_that_cannot_be_checked_lets_all_pass(annotation: Any) -> None:
    """That one only: its neighbour is still checked, and the schema is still made."""

    def func(x, y):
        pass

    func.__annotations__ = {"x": annotation, "y": int}
    signature = signature_of(func)
    bind = make_bind("t", signature)
    for value in (5, "a", [1], {"a": 1}, None):
        assert bind({"x": value, "y": 1})["x"] is value
    with pytest.raises(InvalidParamsError, match="argument 'y'"):
        bind({"x": 1, "y": "1"})
    schema = schema_of(signature)
    assert schema["properties"]["y"] == {"type": "integer"}
    check_schema(schema)


def test_members_that_cannot_be_checked_pass_inside_what_can() -> None:
    value = [1, "a"]
    assert checked(list[Speaks], value) == value
    with pytest.raises(InvalidParamsError):
        checked(list[Speaks], 5)


def test_a_class_in_a_closure_is_out_of_reach_and_so_unchecked() -> None:
    class Local:
        pass

    def func(x: Local) -> None: ...

    assert make_bind("t", signature_of(func))({"x": 5}) == {"x": 5}


def test_names_of_the_class_body_are_known() -> None:
    check = make_bind("t", signature_of(WithAlias().method))
    assert check({"x": [1]}) == {"x": [1]}
    with pytest.raises(InvalidParamsError):
        check({"x": ["1"]})


class WithAlias:
    Numbers = list[int]

    def int(self) -> None:
        """Shadows nothing: globals and builtins come first."""

    def method(self, x: Numbers, y: int = 1) -> None: ...


def test_names_are_checked() -> None:
    def func(first, second: int = 2, *args, third: str = "c") -> None: ...

    bind = make_bind("t", signature_of(func))
    params = {"first": 1, "third": "x"}
    assert bind(params) is params
    with pytest.raises(InvalidParamsError) as caught:
        bind({})
    assert str(caught.value) == (
        "tool 't': missing argument 'first'; it takes first, second: int = 2, third: str = 'c'"
    )
    with pytest.raises(InvalidParamsError, match="unknown argument 'frist'; did you mean 'first'"):
        bind({"frist": 1})
    with pytest.raises(InvalidParamsError, match="unknown argument 'args'"):
        bind({"first": 1, "args": 1})
    with pytest.raises(InvalidParamsError, match="unknown argument 5"):
        bind({"first": 1, 5: 1})  # type: ignore[dict-item]


def test_a_tool_without_parameters_says_so() -> None:
    with pytest.raises(InvalidParamsError, match="it takes none"):
        make_bind("t", signature_of(lambda: None))({"a": 1})


def test_further_names_are_taken_by_kwargs() -> None:
    def func(a: int, **more: str) -> None: ...

    signature = signature_of(func)
    bind = make_bind("t", signature)
    assert bind({"a": 1, "b": object, "c": 2})["c"] == 2
    with pytest.raises(InvalidParamsError, match="missing argument 'a'"):
        bind({"b": 1})
    assert schema_of(signature)["additionalProperties"] is True


def test_positional_only_parameters_are_given_by_name() -> None:
    def func(a: int, b: int = 2, /, c: int = 3, **more: int) -> tuple[int, ...]:
        return (a, b, c, *more.values())

    call = by_name(func, signature_of(func))
    assert call(a=1) == (1, 2, 3)
    assert call(b=5, a=1, c=0, d=9) == (1, 5, 0, 9)


def test_the_params_are_not_changed() -> None:
    def func(x: float, y: int) -> None: ...

    params = {"x": 1, "y": 2}
    assert make_bind("t", signature_of(func))(params) == {"x": 1.0, "y": 2}
    assert type(params["x"]) is int


def test_nested_trouble_is_located() -> None:
    with pytest.raises(InvalidParamsError, match=r"expected int, got str at x\[1\].x"):
        checked(list[Point], [{"x": 1}, {"x": "1"}])


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(InvalidParamsError) as caught:
        checked(int, "a" * 10_000)
    assert len(str(caught.value)) < 200


def test_signatures_of_wrapped_functions_and_partials() -> None:
    def func(a: int, b: str = "b") -> None: ...

    @functools.wraps(func)
    def wrapper(*args: object, **kwargs: object) -> None: ...

    class Callable:
        def __call__(self, a: int) -> None: ...

    class Holder:
        half = functools.partialmethod(lambda self, a, b: None, 1)

    names = [one.name for one in signature_of(wrapper).parameters]
    assert names == ["a", "b"]
    assert [one.name for one in signature_of(functools.partial(func, 1)).parameters] == ["b"]
    assert [one.name for one in signature_of(Callable()).parameters] == ["a"]
    assert [one.name for one in signature_of(Holder().half).parameters] == ["b"]
    assert signature_of(dict.fromkeys).is_open or signature_of(dict.fromkeys).parameters


def test_a_signature_that_raises_leaves_the_tool_open() -> None:
    class Odd:
        __signature__ = "nonsense"

        def __call__(self) -> None: ...

    assert signature_of(Odd()) == Signature(is_open=True)


def check_schema(schema: dict[str, Any]) -> None:
    """A valid JSON Schema, as far as that can be seen from here."""
    msgspec.json.encode(schema)
    assert schema["type"] == "object"
    assert set(schema["required"]) <= set(schema["properties"])
    try:
        import jsonschema
    except ImportError:
        pass
    else:
        jsonschema.Draft202012Validator.check_schema(schema)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].removeprefix("#/$defs/") in schema["$defs"]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema)


def test_the_schema_of_a_signature() -> None:
    def func(
        text: Annotated[str, "what to read"],
        where: pathlib.Path,
        point: Point,
        mixed: Mixed,
        either: Plain | int,
        top_k: Annotated[int, msgspec.Meta(ge=1, description="how many")] = 5,
        ratio: float = float("inf"),
        *,
        either_way=None,
    ) -> None: ...

    schema = schema_of(signature_of(func))
    check_schema(schema)
    assert schema["properties"] == {
        "text": {"type": "string", "description": "what to read"},
        "where": {"type": "string", "format": "path"},
        "point": {"$ref": "#/$defs/Point"},
        "mixed": {"enum": ["text", 2]},
        "either": {},
        "top_k": {"type": "integer", "minimum": 1, "description": "how many", "default": 5},
        "ratio": {"type": "number"},
        "either_way": {"default": None},
    }
    assert schema["required"] == ["text", "where", "point", "mixed", "either"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Point"]["required"] == ["x"]


@pytest.mark.parametrize(
    "annotation", [one[0] for one in SAME + CONVERTED + REFUSED], ids=lambda one: str(one)[:40]
)
def test_every_annotation_has_a_schema(annotation: Any) -> None:
    check_schema(schema_of(signature_with(annotation)))


def test_metadata_that_cannot_travel_is_left_out() -> None:
    annotation = Annotated[int, msgspec.Meta(extra_json_schema={"x": object()})]
    assert schema_of(signature_with(annotation))["properties"]["x"] == {}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs CPython 3.12 or newer")
def test_type_aliases_and_type_parameters() -> None:
    scope: dict[str, Any] = {}
    exec(
        "type Numbers = list[int]\n"
        "type Maybe = Numbers | None\n"
        "def func[T](x: Numbers, y: T, z: Maybe = None): ...\n",
        scope,
    )
    bind = make_bind("t", signature_of(scope["func"]))
    assert bind({"x": [1], "y": object, "z": None})["y"] is object
    for params in ({"x": ["1"], "y": 1}, {"x": [], "y": 1, "z": "a"}):
        with pytest.raises(InvalidParamsError):
            bind(params)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KINDS: dict[Any, Any] = {int: int, float: float, str: str, bool: bool, None: type(None)}


@given(st.sampled_from(list(KINDS)), scalars)
def test_scalars_pass_exactly_if_their_type_is_the_annotated_one(kind: Any, value: Any) -> None:
    allowed = type(value) is KINDS[kind] or (kind is float and type(value) is int)
    try:
        got = checked(kind, value)
    except InvalidParamsError:
        assert not allowed or abs(value) > 1e308
    else:
        assert allowed
        assert got == value or float(value) == got
        assert type(got) is KINDS[kind]


@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), unique=True),
    st.sets(st.sampled_from(["a", "b", "c", "d", "e", "f"])),
    st.integers(0, 5),
    st.booleans(),
)
def test_names_bind_exactly_as_python_would(
    names: list[str], given_names: set[str], optional: int, is_open: bool
) -> None:
    parameters = tuple(
        Parameter(name, default=1) if position < optional else Parameter(name)
        for position, name in enumerate(names)
    )
    bind = make_bind("t", Signature(parameters, is_open))
    fits = set(names[optional:]) <= given_names and (is_open or given_names <= set(names))
    try:
        bind(dict.fromkeys(given_names, 0))
    except InvalidParamsError:
        assert not fits
    else:
        assert fits
