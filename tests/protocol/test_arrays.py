"""Arrays and tables: dtype, order, shape and index arrive; what would change is refused."""

from __future__ import annotations

import builtins
import pathlib
import sys
import types
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from _values_kit import arrays, read_only, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from snakepit.errors import ProtocolError, SerializationError
from snakepit.protocol import BUFFER_BYTES_MIN, TakesLongError, decode_value, encode_value
from snakepit.protocol import _ext as ext


def travel(value: object, threshold: int = BUFFER_BYTES_MIN) -> Any:
    body, buffers = encode_value(value, buffer_threshold=threshold)
    return decode_value(body, tuple(bytearray(buffer) for buffer in buffers))


@pytest.mark.unmeasured
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(arrays, st.sampled_from([1, BUFFER_BYTES_MIN]))
def test_arrays_arrive_as_they_were_sent(array: Any, threshold: Any) -> None:
    arrived = travel(array, threshold)
    assert same(array, arrived)
    assert read_only(arrived)


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_neither_copied_out_nor_in(order: Any) -> None:
    array = np.arange(60_000, dtype="f8").reshape((200, 300), order=order)
    body, (buffer,) = encode_value(array)
    assert np.shares_memory(np.frombuffer(buffer, "u1"), array)
    came = bytearray(buffer)
    arrived = decode_value(body, (came,))
    assert same(array, arrived)
    assert np.shares_memory(np.frombuffer(came, "u1"), arrived)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((), "M8[ns]"),
        np.array(["NaT", "2020-01-01"], "M8[25s]"),
        np.zeros((0, 3), ">i2"),
        np.zeros((3, 0)),
        np.zeros(3, "V5"),
        np.zeros(3, "S0"),
        np.zeros(3, np.longlong),
        np.array(["a", "ü\0b"]),
        np.longlong(3),
        np.float16(1.5),
        np.bool_(True),
        np.str_("a\0\ud800"),
        np.bytes_(b"a\0"),
        np.datetime64("NaT"),
        np.timedelta64(3, "h"),
        np.complex64(1j),
        np.longdouble("1.1"),
        np.zeros(1, [("a", "<i4"), ("b", [("c", "f8", (2, 3))])])[0],
    ],
    ids=lambda value: str(value.dtype),
)
def test_rare_arrays_and_scalars_arrive_as_they_were_sent(value: Any) -> None:
    assert same(value, travel(value))


def test_a_memmap_arrives_as_an_array(tmp_path: pathlib.Path) -> None:
    mapped = np.memmap(tmp_path / "data", "i4", "w+", shape=(3, 4))
    arrived = travel(mapped)
    assert type(arrived) is np.ndarray
    assert arrived.shape == (3, 4)
    mapped._mmap.close()  # type: ignore[attr-defined]


class Sub(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([None]), "references"),
        (np.zeros(2, [("a", "O")]), "references"),
        (np.ma.masked_array([1]), "subclass of numpy.ndarray.*send its .data and .mask"),
        (np.zeros(2).view(Sub), "subclass of numpy.ndarray"),
        (np.zeros(2, [("a", "i4")]).view(np.recarray), "subclass of numpy.ndarray"),
        (np.zeros((2, 2), ">f8").data, "format"),
        (np.zeros((0, 2)).data, "empty"),
        (pd.DataFrame({"a": [[1], [2]]}), "column 'a' is of dtype object"),
        (pd.DataFrame({"a": [{"b": 1}]}), "column 'a'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Arrow"),
        (pd.Series([1], name=("a", 1)), "name"),
        (pl.DataFrame({"a": [1]}).lazy(), "cannot travel"),
        (pl.DataFrame({"a": [object()]}, schema={"a": pl.Object}), "Arrow"),
        (pd.Timestamp("2020-01-01"), "to_pydatetime"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrays_and_tables_that_would_change_are_refused(value: Any, says: Any) -> None:
    with pytest.raises(SerializationError, match=says) as caught:
        encode_value({"x": value})
    assert caught.value.where == "['x']"


def fields_of(array: Any) -> Any:
    body = bytes(encode_value(array)[0])
    ext_value = msgspec.msgpack.decode(body)
    return msgspec.msgpack.decode(ext_value.data)


def wire(code: int, payload: object) -> bytes:
    return msgspec.msgpack.encode(Ext(code, msgspec.msgpack.encode(payload)))


@pytest.mark.parametrize(
    ("index", "lie"),
    [
        (0, "|O"),
        (0, "O"),
        (0, "f8,f8"),
        (0, "<f4"),
        (0, "<U999999999"),
        (0, ["sub", "O", [1]]),
        (0, ["struct", ["a"], ["O"], [0], [None], 8, False]),
        (0, ["struct", ["a"], ["<f8"], [2**40], [None], 8, False]),
        (0, ["struct", ["a"], ["<f8"], [0], [None], -1, False]),
        (0, ["struct", ["a"], ["<f8"], [0], [], 8, False]),
        (0, None),
        (1, [2**60]),
        (1, [2**63, 2]),
        (1, [-1]),
        (1, [4, 2]),
        (1, [1] * 1000),
        (1, "4"),
        (1, [True] * 4),
        (2, "A"),
        (2, 1),
        (3, b""),
        (3, b"x" * 31),
        (3, 0),
        (3, None),
    ],
)
def test_arrays_that_lie_are_a_protocol_error(index: int, lie: object) -> None:
    fields = fields_of(np.zeros(4))
    fields[index] = lie
    with pytest.raises(ProtocolError):
        decode_value(wire(ext.NDARRAY, fields))


@pytest.mark.parametrize(
    "fields",
    [
        ["T{d}", [1], b"x" * 8],
        ["d", [2], b"x" * 8],
        ["d", [0, 0], b""],
        ["d", [1] * 100, b"x" * 8],
        ["P", [2**62], b"x" * 8],
        ["B", [-1], b""],
        [b"B", [1], b"x"],
    ],
)
def test_memoryviews_that_lie_are_a_protocol_error(fields: Any) -> None:
    with pytest.raises(ProtocolError):
        decode_value(wire(ext.MEMORYVIEW, fields))


ARROW = [
    pa.table({"a": [1, None], "b": ["x", "y"]}),
    pa.table({}),
    pa.table({"a": pa.chunked_array([[1], [2, 3]])}).replace_schema_metadata({"k": "v"}),
    pa.record_batch([pa.array([1, 2])], ["x"]),
    pa.array([[1], None]),
    pa.array([1, 2, 3])[1:],
    pa.array([], pa.int8()),
    pa.array(["x", "y", "x"]).dictionary_encode(),
    pa.chunked_array([[1], [2]]),
    pa.chunked_array([], pa.int64()),
]


@pytest.mark.parametrize("value", ARROW, ids=lambda value: type(value).__name__)
def test_arrow_arrives_as_it_was_sent(value: Any) -> None:
    for threshold in (1, BUFFER_BYTES_MIN):
        arrived = travel(value, threshold)
        assert type(arrived) is type(value)
        assert arrived.equals(value)


def test_other_speakers_of_arrow_arrive_as_pyarrow() -> None:
    table = pa.table({"a": [1, 2]})

    class Stream:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return table.__arrow_c_stream__(requested_schema)

    class Array:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return pa.array([1]).__arrow_c_array__(requested_schema)

    assert travel(Stream()).equals(table)
    assert travel(Array()).equals(pa.array([1]))
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
    assert travel([reader, 2**64])[0].equals(table), (
        "a stream is read once, also on the careful walk"
    )


POLARS = [
    pl.DataFrame({"a": [1, None], "b": [["x"], []], "c": [b"x", b"y"]}),
    pl.DataFrame(
        {
            "e": pl.Series(["x"], dtype=pl.Enum(["x", "y"])),
            "c": pl.Series(["x"], dtype=pl.Categorical),
        }
    ),
    pl.DataFrame(),
    pl.Series("s", [1.5, None]),
    pl.Series([None]),
]


@pytest.mark.parametrize("value", POLARS, ids=lambda value: type(value).__name__)
def test_polars_arrives_as_it_was_sent(value: Any) -> None:
    arrived = travel(value)
    assert type(arrived) is type(value)
    assert arrived.equals(value)
    if isinstance(value, pl.DataFrame):
        assert arrived.schema == value.schema
    else:
        assert (arrived.dtype, arrived.name) == (value.dtype, value.name)


PANDAS = [
    pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=["p", "q"]),
    pd.DataFrame(
        {
            "o": pd.Series(["x", None], dtype=object),
            "t": pd.date_range("2020", periods=2, tz="Asia/Tokyo"),
        }
    ),
    pd.DataFrame(
        {"c": pd.Categorical(["x", "y"], ordered=True), "n": pd.array([1, None], dtype="Int64")}
    ),
    pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["i", "j"])
    ),
    pd.DataFrame({"a": []}),
    pd.Series([1.0, float("nan")], index=pd.date_range("2020", periods=2), name="s"),
    pd.Series([True, False]),
    pd.Series([1], name=7),
]


@pytest.mark.parametrize("value", PANDAS, ids=lambda value: type(value).__name__)
def test_pandas_arrives_as_it_was_sent(value: Any) -> None:
    arrived = travel(value)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(value, arrived)
    else:
        pd.testing.assert_series_equal(value, arrived)


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a", "b"], name="n"),
        pd.RangeIndex(4, 10, 2),
        pd.date_range("2020", periods=3, freq="h"),
        pd.Index([1.5]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_pandas_index_arrives_as_it_was_sent(index: Any) -> None:
    arrived = travel(index)
    pd.testing.assert_index_equal(index, arrived, exact=True)
    assert getattr(index, "freq", None) == getattr(arrived, "freq", None)


def test_garbage_for_arrow_is_a_protocol_error() -> None:
    good = fields_of(ARROW[0])
    for kind in ("table", "batch", "array", "polars.DataFrame", "pandas.Series", "nonsense", None):
        for data in (b"", b"garbage", good[1][:-40], b"\xff" * 64):
            with pytest.raises(ProtocolError):
                decode_value(wire(ext.ARROW, [kind, data, []]))


class Tensor:
    """Stands in for a CPU tensor of another library."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class Elsewhere(Tensor):
    """In the memory of some device; the data cannot be had, and asking for it is an accident."""

    device = 2

    def __dlpack_device__(self) -> Any:
        return (self.device, 0)

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("asked for data that this process cannot read")


def test_dlpack_tensors_arrive_as_arrays() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert same(array, travel(Tensor(array)))


@pytest.mark.parametrize(
    ("library", "device", "advice"),
    [
        ("torch", 2, r"torch\.Tensor is in the memory of a CUDA device.*: send \.cpu\(\) of it"),
        ("torch", 8, r"a Metal device.*: send \.cpu\(\) of it"),
        ("cupy", 2, r"a CUDA device.*: send \.get\(\) of it"),
        ("jaxlib._jax", 2, r"a CUDA device.*: send jax\.device_get\(\) of it"),
        ("somebody.s", 99, r"another device.*: send a copy in the memory of the CPU of it"),
    ],
)
def test_a_tensor_on_a_device_is_an_error_that_says_what_to_do(
    library: str, device: int, advice: str
) -> None:
    kind = type("Tensor", (Elsewhere,), {"__module__": library, "device": device})
    with pytest.raises(SerializationError, match=advice) as caught:
        encode_value({"weights": [kind(None)]})
    assert caught.value.where == "['weights'][0]"


def test_memory_that_is_pinned_for_a_device_is_the_cpu_s() -> None:
    array = np.arange(6.0)
    pinned = type("Tensor", (Tensor,), {"__dlpack_device__": lambda _: (3, 0)})
    assert same(array, travel(pinned(array)))


def test_torch_tensors_arrive_as_torch_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = types.ModuleType("torch")
    kind: Any = type("Tensor", (Tensor,), {"__module__": "torch"})
    torch.from_numpy = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    arrived = travel(kind(np.arange(3)))
    assert type(arrived) is kind
    assert arrived.array.flags.writeable
    assert arrived.array.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "lacking"),
    [(np.zeros(3), "numpy"), (ARROW[0], "pyarrow"), (POLARS[0], "polars"), (PANDAS[0], "pandas")],
    ids=lambda value: str(type(value).__name__),
)
def test_a_receiver_that_lacks_the_library_says_what_to_install(
    value: Any, lacking: Any, monkeypatch: Any
) -> None:
    body, buffers = encode_value(value)
    real = builtins.__import__

    def without(name: Any, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == lacking:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SerializationError, match=f"install {lacking} on the receiving side"):
        decode_value(body, buffers)


def test_a_memoryview_that_is_not_contiguous_is_copied_in_a_thread_where_it_is_large() -> None:
    view = memoryview(bytearray(range(8)))
    assert travel(view[::2]) == view[::2]
    encode_value(view, work_max=3)  # which is not copied
    encode_value(view[::2], work_max=4)
    with pytest.raises(TakesLongError):
        encode_value(view[::2], work_max=3)
