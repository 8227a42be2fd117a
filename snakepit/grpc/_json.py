"""`google.protobuf.Value` ⇄ Python: what JSON can say, and a refusal of all else."""

from __future__ import annotations

import math
from typing import Any, Final

from snakepit.errors import SerializationError
from snakepit.grpc._generated.google.protobuf import ListValue, NullValue, Struct, Value

WHOLE_MAX: Final = 2**53  # up to here a double tells each whole number from the next one


def from_json(value: Value) -> Any:
    """The value as Python has it; whole numbers are ints."""
    if value.number_value is not None:
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= WHOLE_MAX else number
    if value.string_value is not None:
        return value.string_value
    if value.bool_value is not None:
        return value.bool_value
    if value.struct_value is not None:
        return {key: from_json(item) for key, item in value.struct_value.fields.items()}
    if value.list_value is not None:
        return [from_json(item) for item in value.list_value.values]
    return None


def to_json(value: object, where: str = "") -> Value:
    """The same the other way; tuples become arrays. Raises SerializationError, which says where."""
    match value:
        case None:
            return Value(null_value=NullValue.NULL_VALUE)
        case bool():
            return Value(bool_value=value)
        case str():
            return Value(string_value=value)
        case float() if math.isfinite(value):
            return Value(number_value=value)
        case int() if abs(value) <= WHOLE_MAX:
            return Value(number_value=float(value))
        case list() | tuple():
            items = [to_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
            return Value(list_value=ListValue(values=items))
        case dict() if all(type(key) is str for key in value):
            fields = {key: to_json(item, f"{where}[{key!r}]") for key, item in value.items()}
            return Value(struct_value=Struct(fields=fields))
    what = f"JSON has no {type(value).__name__} like this one; ask with msgpack"
    raise SerializationError(what, where)
