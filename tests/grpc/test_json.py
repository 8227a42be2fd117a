"""JSON as a client sends it, read and written by hand as the generated class does it."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.errors import ProtocolError, SerializationError
from snakepit.grpc import head_of
from snakepit.grpc._generated.google.protobuf import ListValue, NullValue, Struct, Value
from snakepit.grpc._json import NESTING_MAX, read_json, write_json


class Colour(StrEnum):
    RED = "red"


class Grade(IntEnum):
    ONE = 1


scalars = (
    st.none()
    | st.booleans()
    | st.text()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: number % 1 != 0)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def generated(value: Any) -> Value:
    match value:
        case None:
            return Value(null_value=NullValue.NULL_VALUE)
        case bool():
            return Value(bool_value=value)
        case str():
            return Value(string_value=value)
        case list():
            return Value(list_value=ListValue(values=[generated(item) for item in value]))
        case dict():
            fields = {key: generated(item) for key, item in value.items()}
            return Value(struct_value=Struct(fields=fields))
    return Value(number_value=float(value))


def written(value: Any) -> bytes:
    return b"".join(write_json(value))


def arrays(levels: int) -> bytes:
    """One in the other."""
    data = b""
    for _ in range(levels):
        item = head_of(1, len(data)) + data
        data = head_of(6, len(item)) + item
    return data


@settings(max_examples=20)
@given(values)
def test_it_is_read_and_written_as_the_generated_class_does_it(value: Any) -> None:
    theirs = generated(value)
    read = read_json(memoryview(bytes(theirs)))
    assert read == value
    assert Value.parse(written(value)) == theirs


@given(st.binary())
def test_any_bytes_are_read_or_refused_with_one_kind_of_error(data: bytes) -> None:
    try:
        read_json(memoryview(data))
    except ProtocolError:
        pass


def test_numbers_keep_their_kind() -> None:
    assert repr(read_json(memoryview(written([True, 1, 1.5, -(2**53), 2.0**60])))) == (
        "[True, 1, 1.5, -9007199254740992, 1.152921504606847e+18]"
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": [0, b"x"]}, "JSON has no bytes like this one; ask with msgpack (at ['a'][1])"),
        ({"a": Colour.RED}, "JSON has no Colour like this one; ask with msgpack (at ['a'])"),
        ([Grade.ONE], "JSON has no Grade like this one; ask with msgpack (at [0])"),
        ((float("nan"),), "JSON has no float like this one; ask with msgpack (at [0])"),
        (2**53 + 1, "JSON has no int like this one; ask with msgpack"),
        ([{1: 2}], "JSON has no dict like this one; ask with msgpack (at [0])"),
        (["\ud800"], "surrogates not allowed (at [0])"),
        ({"k": {"\ud800": 1}}, "surrogates not allowed (at ['k'])"),
    ],
)
def test_what_json_has_not_is_refused_with_its_place(value: Any, says: str) -> None:
    with pytest.raises(SerializationError) as raised:
        write_json(value)
    assert str(raised.value).endswith(says)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_has_not_is_refused_when_it_comes(number: float) -> None:
    """A client's library may write one all the same."""
    with pytest.raises(ProtocolError, match=f"no {number}"):
        read_json(memoryview(bytes(generated(number))))


def test_what_is_nested_too_deep_is_refused_on_both_ways() -> None:
    deep: list[Any] = []
    for _ in range(NESTING_MAX):
        deep = [deep]
    assert read_json(memoryview(written(deep))) == deep
    with pytest.raises(SerializationError, match="nested deeper"):
        write_json([deep])
    with pytest.raises(ProtocolError, match="nested deeper"):
        read_json(memoryview(arrays(NESTING_MAX + 2)))
