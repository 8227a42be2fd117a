"""Values ⇄ bytes: what arrives is what was sent, or an error says where it is not."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import subprocess
import sys
import types
import zoneinfo
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest
from _leaks import unmeasured_env
from _values_kit import Colour, Right, read_only, same, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakepit.errors import ProtocolError, SerializationError, SnakepitError
from snakepit.protocol import BUFFER_BYTES_MIN, decode_value, encode_params, encode_value
from snakepit.protocol._ext import NESTING_MAX
from snakepit.protocol._values import FLOATS_MIN

relaxed = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def travel(value: object, threshold: int = BUFFER_BYTES_MIN) -> Any:
    body, buffers = encode_value(value, buffer_threshold=threshold)
    return decode_value(body, tuple(bytearray(buffer) for buffer in buffers))


@relaxed
@given(values, st.sampled_from([1, 20, BUFFER_BYTES_MIN]))
def test_values_arrive_as_they_were_sent(value: Any, threshold: Any) -> None:
    """The same type, value, order and writability, in the body or out of it."""
    arrived = travel(value, threshold)
    assert same(value, arrived), f"{value!r} arrived as {arrived!r}"
    assert read_only(arrived)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        -0.0,
        math.inf,
        2**64,
        -(2**63) - 1,
        2**100_000,
        [1, 2**64],
        {"a": 2**64, "\ud800": "\udfff"},
        (2**64,),
        {2**64, 1},
        "\ud800",
        decimal.Decimal("sNaN17"),
        decimal.Decimal("-0E+999999"),
        decimal.Decimal("1.10"),
        dt.timedelta.max,
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.datetime.min,
        dt.timezone(dt.timedelta(hours=1), "CET"),
        zoneinfo.ZoneInfo("Asia/Kathmandu"),
        Colour.CRIMSON,
        Right.READ | Right.EXECUTE,
        Right(0),
        pathlib.Path("/tmp/\udcff"),
        complex(-0.0, math.nan),
        {1: "a", "1": "b", (1, 2): "c", None: "d", 1.5: "e", b"x": "f"},
        {},
        [],
        (),
        set(),
        frozenset(),
        bytearray(),
        b"",
        "",
        [b"x" * BUFFER_BYTES_MIN, b"y"],
        [[[]], [()], {(): ()}],
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_rare_values_arrive_as_they_were_sent(value: Any) -> None:
    assert same(value, travel(value))


def test_a_named_zone_keeps_its_name() -> None:
    zone = dt.timezone(dt.timedelta(0), "Z")
    assert travel(zone).tzname(None) == "Z"
    assert travel(dt.UTC) is dt.UTC


def test_a_bytearray_arrives_writable() -> None:
    for size in (3, BUFFER_BYTES_MIN):
        arrived = travel(bytearray(size))
        arrived[0] = 1
        assert arrived[0] == 1


def test_large_bytes_are_not_copied_on_the_way_out() -> None:
    data = b"x" * BUFFER_BYTES_MIN
    view = memoryview(bytearray(BUFFER_BYTES_MIN))
    _, buffers = encode_value([data, view])
    assert buffers[0] is data
    assert isinstance(buffers[1], memoryview)
    assert buffers[1].obj is view.obj


def test_a_received_memoryview_is_a_read_only_view_of_its_buffer() -> None:
    body, _ = encode_value(memoryview(bytearray(BUFFER_BYTES_MIN)))
    came = bytearray(BUFFER_BYTES_MIN)
    view = decode_value(body, (came,))
    assert view.readonly
    assert view.obj is came


def test_buffers_are_released_with_the_value() -> None:
    """No cycle keeps a received buffer until the garbage collector comes."""
    body, _ = encode_value(memoryview(bytearray(BUFFER_BYTES_MIN)))
    came = bytearray(BUFFER_BYTES_MIN)
    del_me = decode_value(body, (came,))
    del del_me
    came += b"more"  # BufferError while a view is alive


def test_params_without_and_with_arguments() -> None:
    assert decode_value(encode_params({})[0]) == {}
    assert decode_value(encode_params({"text": "hi", "top_k": 5})[0]) == {"text": "hi", "top_k": 5}


@attrs.define
class AttrsPoint:
    x: int
    tags: tuple[str, ...] = ()


@dataclasses.dataclass
class DataPoint:
    x: int
    inner: AttrsPoint


class StructPoint(msgspec.Struct):
    x: int


def test_records_arrive_as_dicts_of_their_fields() -> None:
    assert travel(DataPoint(1, AttrsPoint(2, ("a",)))) == {
        "x": 1,
        "inner": {"x": 2, "tags": ("a",)},
    }
    assert travel([StructPoint(3)]) == [{"x": 3}]


class Pair(NamedTuple):
    a: int


class Shout(str):
    __slots__ = ()


class OwnZone(dt.tzinfo):
    pass


def cyclic_list() -> list[object]:
    value: list[object] = []
    value.append([{"again": value}])
    return value


def deep(depth: int, *, kind: type = list) -> Any:
    value: object = 1.5
    for _ in range(depth):
        value = kind([value]) if kind is not dict else {"k": value}
    return value


@dataclasses.dataclass
class Model:
    weights: object


@pytest.mark.parametrize(
    ("value", "where", "says"),
    [
        (object(), "", "object"),
        ({"model": [1, 2, 3, Model(object())]}, "['model'][3].weights", "object"),
        ([{"a": (1, {object()})}], "[0]['a'][1]{…}", "object"),
        ({(1, Shout("x")): 1}, "[<tuple>] (the key)[1]", "subclass of str"),
        (collections.OrderedDict(), "", "subclass of dict"),
        (collections.defaultdict(list), "", "subclass of dict"),
        (Pair(1), "", "_asdict"),
        (Shout("x"), "", "subclass of str"),
        ([1, Shout("x")], "[1]", "subclass of str"),
        ({"a": Shout("x")}, "['a']", "subclass of str"),
        ({Shout("x"): 1}, "[<Shout>] (the key)", "subclass of str"),
        (dt.datetime(2024, 1, 1, tzinfo=OwnZone()), "", "zoneinfo"),
        ((i for i in ()), "", "list"),
        (len, "", "functions"),
        (cyclic_list(), "[0][0]['again']", "contains itself"),
        (deep(10_000), "", "nested deeper"),
        (deep(10_000, kind=tuple), "", "nested deeper"),
        (deep(10_000, kind=dict), "", "nested deeper"),
        (AttrsPoint.__new__(AttrsPoint), ".x", "no value"),
        (enum.Enum("Local", "A").A, "", "cannot be imported"),
    ],
    ids=lambda value: str(type(value).__name__) if not isinstance(value, str) else value[:12],
)
def test_what_cannot_travel_is_an_error_that_says_where(value: Any, where: Any, says: Any) -> None:
    with pytest.raises(SerializationError) as caught:
        encode_value(value)
    assert says in caught.value.message
    assert caught.value.where.startswith(where)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_nesting_up_to_the_maximum_travels(kind: Any) -> None:
    value = deep(NESTING_MAX, kind=kind)
    assert same(value, travel(value))


def test_nesting_near_the_end_of_the_stack_is_an_error() -> None:
    def descend(left: int) -> None:
        if left:
            return descend(left - 1)
        encode_value(deep(140, kind=tuple))
        return None

    with pytest.raises((SerializationError, RecursionError)):
        descend(sys.getrecursionlimit())


def test_hostile_nesting_is_an_error() -> None:
    for nest in (b"\x91" * 100_000, b"\x81\xa1k" * 100_000, nested_tuples(3000)):
        with pytest.raises(SnakepitError):
            decode_value(nest + b"\xc0")


def nested_tuples(depth: int) -> bytes:
    data = b"\x90"
    for _ in range(depth):
        data = b"\x91\xc9" + len(data).to_bytes(4, "big") + b"\x04" + data
    return data


def test_enums_are_found_in_the_other_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is __main__ on the host is __mp_main__ in a worker, and the other way round."""
    main = types.ModuleType("__mp_main__")

    class Mode(enum.Enum):
        FAST = 1

    Mode.__module__, Mode.__qualname__ = "__mp_main__", "Mode"
    main.Mode = Mode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    body, _ = encode_value(Mode.FAST)
    assert b"__main__" in bytes(body)
    assert decode_value(body) is Mode.FAST
    monkeypatch.delitem(sys.modules, "__mp_main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert decode_value(body) is Mode.FAST


def test_an_enum_unknown_here_is_a_serialization_error() -> None:
    body = bytes(encode_value(Colour.RED)[0])
    for old, new in ((b"_values_kit", b"_valuez_kit"), (b"Colour", b"Column"), (b"RED", b"REB")):
        with pytest.raises(SerializationError):
            decode_value(body.replace(old, new))


def test_a_class_that_is_no_enum_is_not_instantiated() -> None:
    body = b"\xc7\x16\x0f" + msgspec.msgpack.encode(["builtins", "dict", None, []])
    body = bytes([0xC7, len(body) - 3, 15]) + body[3:]
    with pytest.raises(SerializationError, match="enum"):
        decode_value(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x01\x01",
        b"\xd4\x7f\x00",  # unknown ext
        b"\xc7\x00\x01",  # an int of no bytes
        b"\xd4\x20\x00",  # buffer 0, which did not come
        b"\xd4\x20\xff",  # buffer -1
        b"\xd4\x20\xc3",  # buffer True
        b"\xd4\x05\x00",  # a set of 0
        b"\xd5\x05\x91\x90",  # a set of a list
        b"\xd5\x07\x91\x01",  # a dict with half a pair
        b"\xd4\x0d\x00",  # a UUID of one byte
        b"\xd4\x0e\x78",  # the Decimal "x"
        b"\xd4\x11\x00",  # a complex of one byte
        b"\xa1\xff",  # not UTF-8
        b"\xdd\xff\xff\xff\xff",  # 2**32 members
        b"\xc7\x06\x0b\x93\xcd\xff\xff\x00\xc2",
        b"\xc7\x0c\x0b\x93\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00",  # timedelta out of range
    ],
)
def test_malformed_bytes_are_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_value(body)


def test_importing_the_protocol_imports_nothing_heavy() -> None:
    code = "import snakepit.protocol, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=unmeasured_env(),
    )
    heavy = {
        "numpy",
        "pyarrow",
        "attr",
        "attrs",
        "dataclasses",
        "asyncio",
        "trio",
        "anyio",
        "psutil",
    }
    heavy |= {
        "pandas",
        "polars",
        "torch",
        "traceback",
        "zoneinfo",
        "pathlib",
        "subprocess",
        "grpclib",
    }
    assert heavy.isdisjoint(done.stdout.split())


class FloatKind(float, enum.Enum):
    HALF = 0.5


class Kind(enum.Enum):
    HALF = 0.5


class MyFloat(float):
    """A subclass, which cannot travel as itself."""


@pytest.mark.unmeasured
@pytest.mark.parametrize("count", [FLOATS_MIN - 1, FLOATS_MIN, 2**16 - 1, 2**16])
@pytest.mark.parametrize(
    "odd",
    [
        0.5,
        math.nan,
        1,
        2**40,
        -(2**63),
        2**70,
        True,
        None,
        decimal.Decimal("0.5"),
        "0.5",
        b"123456789",
    ],
    ids=repr,
)
def test_a_list_of_floats_is_no_hiding_place_for_anything_else(count: int, odd: Any) -> None:
    """Long lists of floats are written without a look at each; what only resembles one is found."""
    for position in (1, count // 2, count - 1):
        value = [0.25] * count
        value[position] = odd
        assert same(value, travel(value))


@pytest.mark.parametrize("odd", [FloatKind.HALF, Kind.HALF], ids=str)
def test_an_enum_among_floats_stays_one(odd: Any) -> None:
    value = [0.25] * (2 * FLOATS_MIN)
    value[-1] = odd
    assert travel(value)[-1] is odd


def test_a_subclass_of_float_among_floats_is_refused_by_its_place() -> None:
    value = [0.25] * FLOATS_MIN
    value.append(MyFloat(0.5))
    with pytest.raises(SerializationError) as caught:
        encode_value({"x": value})
    assert caught.value.where == f"['x'][{FLOATS_MIN}]"
