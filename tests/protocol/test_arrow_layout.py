"""Tables by their layout: every type arrives as it was, and a layout that lies is a protocol error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from msgspec.msgpack import Ext

from snakepit.errors import ProtocolError, SerializationError
from snakepit.protocol import decode_value, encode_value
from snakepit.protocol._loose import Loose
from snakepit.shm import Heap

ROWS = 40_000
COLUMNS: dict[str, Any] = {
    "ints": pa.array(np.arange(ROWS)),
    "ints with nulls": pa.array([1, None] * (ROWS // 2)),
    "bools": pa.array([True, False, None, True] * (ROWS // 4)),
    "decimals": pa.array(np.arange(ROWS)).cast(pa.decimal128(30, 2)),
    "times": pa.array(np.arange(ROWS)).cast(pa.timestamp("us", "Europe/Berlin")),
    "strings": pa.array(["", "a", None, "xyz"] * (ROWS // 4)),
    "large strings": pa.array(["a", None] * (ROWS // 2), pa.large_string()),
    "bytes of one size": pa.array([b"1234", None] * (ROWS // 2), pa.binary(4)),
    "lists": pa.array([[1, 2], None, [], [3]] * (ROWS // 4)),
    "lists of strings": pa.array([["a"], [None, "b"]] * (ROWS // 2), pa.large_list(pa.string())),
    "a dictionary": pa.array(["x" * 100, "y", None, "x"] * (ROWS // 4)).dictionary_encode(),
    "structs": pa.array([{"a": 1}, None] * (ROWS // 2)),
    "views": pa.array(["a longer string than twelve", "b"] * (ROWS // 2), pa.string_view()),
    "lists of lists": pa.array([[[1]], []] * (ROWS // 2)),
    "nulls": pa.nulls(ROWS),
    "lists of one size": pa.array([[1, 2], None] * (ROWS // 2), pa.list_(pa.int32(), 2)),
    "lists of dictionaries": pa.array(
        [["a"], [None, "b"]] * (ROWS // 2), pa.list_(pa.dictionary(pa.int8(), pa.string()))
    ),
    "a dictionary of lists": pa.DictionaryArray.from_arrays([0, 1] * (ROWS // 2), [[1], [2, 3]]),
    "UUIDs": pa.array([b"16 bytes of one.", None] * (ROWS // 2), pa.uuid()),
    "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((ROWS, 2, 2))),
}


NOT_LAID_OUT = {"structs", "views"}  # of nulls there is nothing but their number


class Celsius(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.float64(), "snakepit.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Celsius:
        return cls()


DEGREES = pa.ExtensionArray.from_storage(Celsius(), pa.array(np.arange(ROWS) / 7))


@pytest.fixture
def known() -> Iterator[None]:
    """In this process, as in one that has imported what defines the type."""
    pa.register_extension_type(Celsius())
    yield
    pa.unregister_extension_type("snakepit.celsius")


@pytest.fixture
def heap() -> Iterator[Heap]:
    heap = Heap(2**27)
    yield heap
    heap.close()


def arrived(heap: Heap, value: Any) -> Any:
    """The value as it comes out of shared memory."""
    body, (loose,) = encode_value(value, places=heap)
    assert isinstance(loose, Loose)
    block = heap.take(len(loose))
    assert block is not None
    block.fill(loose)
    return decode_value(body, (block.view(len(loose), writable=False),))


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_lies_there_arrives_the_same(name: str, heap: Heap) -> None:
    ints = COLUMNS["ints"]
    table = arrived(heap, pa.table({"i": ints, "c": COLUMNS[name]}))
    for part in (table, table.slice(7, 20_000), pa.concat_tables([table, table.slice(100)])):
        body, buffers = encode_value(part, places=heap)
        assert type(buffers[0]) is memoryview  # it was laid out
        assert any(isinstance(buffer, Loose) for buffer in buffers) == (name in NOT_LAID_OUT)
        back = decode_value(body, tuple(map(bytes, buffers)), work_max=2**40)
        back.validate(full=True)
        assert back.equals(part)
        assert back.schema.equals(part.schema)


def test_batches_arrays_and_chunked_arrays_keep_their_type(heap: Heap) -> None:
    table = arrived(heap, pa.table({"i": COLUMNS["ints"]}))
    chunked = table["i"]
    for value in (table.to_batches()[0], chunked, chunked.chunk(0)):
        body, buffers = encode_value(value, places=heap)
        back = decode_value(body, buffers)
        assert type(back) is type(value)
        assert back.equals(value)


@pytest.mark.usefixtures("known")
def test_an_extension_type_goes_to_whoever_does_not_know_it_and_back(heap: Heap) -> None:
    """Told by its metadata there: the side that lays it out need not know what the other one does."""
    table = arrived(heap, pa.table({"c": DEGREES}))
    assert table.schema.field("c").type == Celsius()
    body, buffers = encode_value(table, places=heap)
    pa.unregister_extension_type("snakepit.celsius")
    stored = decode_value(body, buffers)
    assert stored.schema.field("c").type == pa.float64()
    assert stored["c"].equals(pa.chunked_array([DEGREES.storage]))
    body, buffers = encode_value(stored, places=heap)
    pa.register_extension_type(Celsius())
    back = decode_value(body, buffers)
    assert back.equals(pa.table({"c": DEGREES}))
    assert type(buffers[0]) is memoryview


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("value", [DEGREES, pa.chunked_array([DEGREES])], ids=["array", "chunked"])
def test_an_array_whose_type_is_not_known_is_refused_by_name(value: Any) -> None:
    """It has no metadata that would tell, and would come back as something else."""
    body, buffers = encode_value(value)
    assert decode_value(body, buffers).type == Celsius()
    pa.unregister_extension_type("snakepit.celsius")
    with pytest.raises(SerializationError, match=r"'snakepit\.celsius' arrived; register it"):
        decode_value(body, buffers)
    pa.register_extension_type(Celsius())


def test_what_lies_nowhere_there_is_a_stream(heap: Heap) -> None:
    body, (loose,) = encode_value(pa.table({"i": COLUMNS["ints"]}), places=heap)
    assert decode_value(body, (bytes(loose),)).num_rows == ROWS


def spoil(*path: int) -> Callable[[list[Any], Any], None]:
    def change(layout: list[Any], value: Any) -> None:
        place: Any = layout
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


BUFFER, START, LENGTH, OFFSET = (1, 0, 0), (1, 0, 1), (2, 0, 0, 0), (2, 0, 0, 1)
PART, PARTS, UNDER = (2, 0, 0, 2, 1), (2, 0, 0, 2), (2, 0, 0, 3)
LIES: list[tuple[tuple[int, ...], Any]] = [
    ((0,), b"no schema"),
    ((0,), 7),
    ((1,), []),
    ((1,), None),
    (BUFFER, 9),
    (BUFFER, -1),
    (START, 2**40),
    (START, -8),
    (START, "here"),
    ((2,), []),
    ((2, 0), None),
    ((2, 0), 3),
    ((2, 0, 0), []),
    (LENGTH, -1),
    (LENGTH, ROWS + 1),
    (LENGTH, 2**62),
    (LENGTH, None),
    (OFFSET, -1),
    (OFFSET, 1),
    (OFFSET, 2**62),
    (PART, None),
    (PART, [0, 0, 8]),
    (PART, [0, -8, 8 * ROWS]),
    (PART, [0, 2**40, 8 * ROWS]),
    (PART, [1, 0, 8 * ROWS]),
    (PART, [-1, 0, 0]),
    (PART, [0, 0, -8]),
    (PART, [0]),
    (PARTS, []),
    (PARTS, [None, None]),
    (PARTS, None),
    ((3,), b"no stream"),
    ((3,), [1, 2]),
]


FIXED_LIES = [(LENGTH, ROWS + 1), (OFFSET, 1), (OFFSET, 2**40), (LENGTH, 2**62)]


@pytest.mark.parametrize(("path", "lie"), FIXED_LIES, ids=str)
def test_more_lists_of_one_size_than_there_are_values_for_do_not_make_arrow_abort(
    path: tuple[int, ...], lie: int, heap: Heap
) -> None:
    table = arrived(heap, pa.table({"f": COLUMNS["lists of one size"]}))
    body, buffers = encode_value(table, places=heap)
    kind, layout, extras = msgspec.msgpack.decode(msgspec.msgpack.decode(body).data)
    spoil(*path)(layout, lie)
    spoilt = msgspec.msgpack.encode(Ext(37, msgspec.msgpack.encode([kind, layout, extras])))
    with pytest.raises(ProtocolError):
        decode_value(spoilt, buffers, work_max=0)


@pytest.mark.parametrize(("path", "lie"), LIES, ids=str)
def test_a_layout_that_lies_is_a_protocol_error(
    path: tuple[int, ...], lie: Any, heap: Heap
) -> None:
    table = arrived(heap, pa.table({"i": COLUMNS["ints"]}))
    body, buffers = encode_value(table, places=heap)
    kind, layout, extras = msgspec.msgpack.decode(msgspec.msgpack.decode(body).data)
    spoil(*path)(layout, lie)
    spoilt = msgspec.msgpack.encode(Ext(37, msgspec.msgpack.encode([kind, layout, extras])))
    with pytest.raises(ProtocolError):
        decode_value(spoilt, buffers)


STRIDED_LIES: list[Any] = [[], [0], [0, 8], [0, 8, 8, 8], [-8, 8, 8], [0, 2**40, 8], [0, "a", 8], [2**30, 8, 8]]  # fmt: skip


@pytest.mark.parametrize("lie", STRIDED_LIES, ids=str)
def test_strides_that_lie_are_a_protocol_error(lie: Any, heap: Heap) -> None:
    block = heap.take(2**20)
    assert block is not None
    array = np.frombuffer(block.view(2**20), "i8").reshape(512, 256)[::2, ::2]
    body, buffers = encode_value(array, places=heap)
    fields = msgspec.msgpack.decode(msgspec.msgpack.decode(body).data)
    assert fields[2] == [0, 4096, 16]
    back = decode_value(body, buffers)
    assert back.strides == array.strides
    assert back.ctypes.data == array.ctypes.data
    fields[2] = lie
    spoilt = msgspec.msgpack.encode(Ext(34, msgspec.msgpack.encode(fields)))
    with pytest.raises(ProtocolError):
        decode_value(spoilt, buffers)


def test_what_pretends_to_be_more_than_there_is_is_refused_where_it_is_sent(heap: Heap) -> None:
    """The kernel gives a file pages until none are left; to be asked for all at once it refuses."""
    with pytest.raises(MemoryError):
        encode_value(np.broadcast_to(np.zeros(1), (2**45,)), places=heap)
