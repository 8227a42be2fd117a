"""Values of every kind that travels, and an equality that sees type, order and writability."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import hashlib
import math
import pathlib
import uuid
import zoneinfo
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst


class Colour(enum.Enum):
    RED = "red"
    CRIMSON = "red"  # an alias
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    EXECUTE = 4


SAMPLES: dict[str, Any] = {
    "none": None,
    "bool": True,
    "big int": -(2**200),
    "nan": math.nan,
    "minus zero": -0.0,
    "infinity": -math.inf,
    "str": "grüße 🐍 \x00",
    "surrogate": "\udc80",
    "bytearray": bytearray(b"abc"),
    "complex": 1j,
    "nested": [(1, {2, 3}, frozenset({(4, b"5")})), {"a": {"b": [(), [], {}, set()]}}],
    "keys": {1: "int", "1": "str", (1, 2): "tuple", None: "none", b"1": "bytes", 1.5: "float"},
    "datetime": dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "times": [dt.date(1, 1, 1), dt.time(23, 59, 59, 999999), dt.timedelta(days=-1, microseconds=1)],
    "uuid": uuid.UUID(int=7),
    "decimal": decimal.Decimal("-0.100"),
    "path": pathlib.PurePosixPath("/home/someone"),
    "enum": Colour.CRIMSON,
    "array": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "strided": np.arange(20)[::-3],
    "empty array": np.empty((0, 3), dtype="<f4"),
    "scalar array": np.array(5),
    "struct array": np.array([(1, 2.5)], dtype=[("n", "<i4"), ("x", "<f8")]),
    "numpy scalar": np.float32(0.1),
    "datetime64": np.datetime64("2024-01-01T00:00:00", "ns"),
    "memoryview": memoryview(b"abc"),
    "arrays inside": {"x": [np.zeros(3), (np.ones(2, dtype="?"),)]},
}

ZONES = ("Europe/Berlin", "America/New_York", "UTC", "Asia/Kathmandu")


def same(left: Any, right: Any) -> bool:
    """Equal in type and value, members and their order, dtype, shape and NaNs included."""
    if type(left) is not type(right):
        return False
    match left:
        case float():
            return repr(left) == repr(right)
        case complex():
            return same(left.real, right.real) and same(left.imag, right.imag)
        case decimal.Decimal():
            return left.as_tuple() == right.as_tuple()
        case np.ndarray():
            return same_array(left, right)
        case np.generic():
            return left.dtype == right.dtype and same_data(left, right)
        case memoryview():
            return (
                left.format == right.format
                and left.shape == right.shape
                and left.tobytes() == right.tobytes()
            )
        case list() | tuple():
            return len(left) == len(right) and all(map(same, left, right))
        case dict():
            return same(list(left.items()), list(right.items()))
        case set() | frozenset():
            return fingerprint(left) == fingerprint(right)  # a NaN in a set equals nothing
        case dt.datetime() | dt.time():
            return fingerprint(left) == fingerprint(right) and left.tzinfo == right.tzinfo
        case _:
            return left == right


def fingerprint(value: object) -> str:
    match value:
        case dt.datetime() | dt.time():
            return f"{value!r} {value.fold} {type(value.tzinfo)}"
        case tuple():
            return f"({', '.join(map(fingerprint, value))})"
        case set() | frozenset():
            return f"{type(value)}({', '.join(sorted(map(fingerprint, value)))})"
        case _:
            return f"{type(value)} {value!r}"


def same_array(left: Any, right: Any) -> bool:
    order = lambda array: (array.flags.c_contiguous, array.flags.f_contiguous)
    contiguous = any(order(left))
    return (
        left.dtype == right.dtype
        and left.dtype.type is right.dtype.type
        and left.shape == right.shape
        and same_data(left, right)
        and (not contiguous or order(left) == order(right) or left.size == 0)
    )


def same_data(left: Any, right: Any) -> bool:
    """Field by field: what lies between the fields of a struct is nobody's."""
    if left.dtype.names is None:
        return left.tobytes() == right.tobytes()
    return all(same_data(left[name], right[name]) for name in left.dtype.names)


def portrait(value: Any) -> str:
    """Type, value and writability in words, members and their order included."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    match value:
        case np.ndarray():
            flags = value.flags
            form = f"{value.dtype.descr} {value.shape} {flags.c_contiguous} {flags.f_contiguous}"
            return f"{kind} {form} {'writable' if flags.writeable else 'read-only'} {digest(value)}"
        case memoryview():
            form = f"{value.format} {value.shape} {'read-only' if value.readonly else 'writable'}"
            return f"{kind} {form} {digest(value)}"
        case str() | bytes() | bytearray():
            return f"{kind} {len(value)} {digest(value)}"
        case list() if set(map(type, value)) == {int}:  # in one go: there may be a million
            return f"{kind} of int {len(value)} {digest(repr(value))}"
        case list() | tuple():
            return f"{kind} {len(value)} [{', '.join(map(portrait, value))}]"
        case dict():
            return f"{kind} {[(portrait(key), portrait(item)) for key, item in value.items()]}"
        case set() | frozenset():
            return f"{kind} {sorted(map(portrait, value))}"
        case _:
            return f"{kind} {value!r} {getattr(value, 'fold', '')}"


def digest(value: Any) -> str:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")
    elif not isinstance(value, bytes | bytearray):
        value = value.tobytes()
    return hashlib.sha256(value).hexdigest()


def read_only(value: object) -> bool:
    """True if every array and memoryview inside refuses to be written."""
    if isinstance(value, np.ndarray):
        return not value.flags.writeable
    if isinstance(value, memoryview):
        return value.readonly
    if isinstance(value, dict):
        return all(map(read_only, value)) and all(map(read_only, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(read_only, value))
    return True


ints = st.one_of(
    st.integers(),
    st.sampled_from(
        [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**2000, -(2**2000), 255, -128, -129]
    ),
)
strs = st.text(st.characters())  # lone surrogates too
zones = st.one_of(
    st.none(),
    st.sampled_from(ZONES).map(zoneinfo.ZoneInfo),
    st.builds(
        lambda s, us, name: dt.timezone(dt.timedelta(seconds=s, microseconds=us), *name),
        st.integers(-80_000, 80_000),
        st.integers(0, 999_999),
        st.one_of(st.just(()), st.tuples(st.text(max_size=5))),
    ),
)
folds = st.sampled_from([0, 1])
# Built from parts: the strategies of Hypothesis know no fold.
datetimes = st.builds(lambda d, z, f: d.replace(tzinfo=z, fold=f), st.datetimes(), zones, folds)
times = st.builds(lambda t, z, f: t.replace(tzinfo=z, fold=f), st.times(), zones, folds)
paths = st.one_of(
    st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), min_size=1).map(
        lambda parts: pathlib.Path(*parts)
    ),
    st.sampled_from(
        [
            pathlib.Path(),
            pathlib.PurePosixPath("/a/b"),
            pathlib.PureWindowsPath("c:/x/y"),
            pathlib.PurePath("a//b"),
        ]
    ),
)
enums = st.one_of(
    st.sampled_from([*Colour, *Level, *Right]),
    st.sampled_from([Right(0), Right.READ | Right.WRITE, Right.READ | Right.EXECUTE]),
)
hashable_scalars = st.one_of(
    st.none(),
    st.booleans(),
    ints,
    st.floats(),
    strs,
    st.binary(),
    datetimes,
    times,
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.decimals().filter(lambda number: not number.is_snan()),
    enums,
    paths,
    st.complex_numbers(),
)
dtypes = st.one_of(
    npst.scalar_dtypes(),
    npst.array_dtypes(),
    st.sampled_from([np.dtype(np.longlong), np.dtype(">i2"), np.dtype("f2")]),
    st.just(
        np.dtype(
            {"names": ["x", "y"], "formats": ["<i2", "<f8"], "offsets": [4, 16], "itemsize": 32}
        )
    ),
    st.just(np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    st.just(np.dtype([(("the title", "a"), "i4")])),
)


def _arranged(array: Any, how: str) -> Any:
    match how:
        case "F":
            return np.asfortranarray(array)
        case "strided":
            return array[..., ::2] if array.ndim else array
        case "reversed":
            return array[::-1] if array.ndim else array
        case _:
            return array


arrays = st.builds(
    _arranged,
    npst.arrays(
        dtypes, npst.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4), fill=st.nothing()
    ),
    st.sampled_from(["C", "F", "strided", "reversed"]),
)
memoryviews = st.builds(
    lambda data, cast, step: memoryview(data).cast(cast)[::step],
    st.binary(max_size=8).map(lambda data: data * 8),
    st.sampled_from(["B", "b", "c", "h", "i", "d", "Q", "?", "f", "@i", "n"]),
    st.sampled_from([1, 2, -1]),
)
scalars = st.one_of(
    hashable_scalars,
    st.just(decimal.Decimal("sNaN17")),
    st.binary().map(bytearray),
    memoryviews,
    arrays,
    npst.scalar_dtypes().flatmap(lambda dtype: npst.arrays(dtype, ())).map(lambda array: array[()]),
)
hashables = st.recursive(
    hashable_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4)
    ),
    max_leaves=5,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(strs, inner, max_size=5),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
    ),
    max_leaves=12,
)
