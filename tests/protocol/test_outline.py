"""What is large in arguments that came in one piece is put beside them, and they mean the same."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from msgspec import DecodeError

from snakepit.protocol import decode_value, encode_value
from snakepit.protocol._ext import BUFFERS_MAX, encode_plain
from snakepit.protocol._outline import LARGE_BYTES, outline

BYTES = bytes(range(256)) * 300
ARRAY = np.arange(20_000, dtype=np.int64)
NESTED: dict[str, tuple[Any, int]] = {  # and how many buffers
    "bytes": (BYTES, 1),
    "bytearray": (bytearray(BYTES), 1),
    "memoryview": (memoryview(BYTES), 1),
    "array": (ARRAY, 1),
    "array in Fortran's order": (ARRAY.reshape(100, 200).T, 1),
    "table": (pa.table({"a": ARRAY}), 1),
    "in a list": ([1, BYTES, [BYTES]], 2),
    "in a dict": ({"x": BYTES, "y": {"z": ARRAY}}, 2),
    "in a tuple": ((1, (BYTES, 2)), 1),
    "in a dict whose keys are not str": ({1: BYTES, "x": None}, 1),
    "many small": (["x"] * 100_000, 0),
    "many small and one large": (["x"] * 100_000 + [BYTES], 0),
    "text": ("x" * LARGE_BYTES * 2, 0),
    "small": ((b"x", [1], np.arange(3)), 0),
}


def inlined(value: object) -> bytes:
    return bytes(encode_value(value, buffer_threshold=2**62)[0])


def shown(value: object) -> str:
    return re.sub("at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize("name", NESTED)
def test_what_is_large_is_put_aside_and_the_arguments_mean_the_same(name: str) -> None:
    value, count = NESTED[name]
    arguments = {"before": 1, "value": value, "after": [None]}
    body, buffers = outline(inlined(arguments))
    assert len(buffers) == count
    assert shown(decode_value(body, buffers)) == shown(arguments)
    assert inlined(decode_value(body, buffers)) == inlined(arguments)
    if count:
        assert len(memoryview(body)) < LARGE_BYTES


def address(buffer: Any) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)


def test_nothing_is_copied() -> None:
    packed = inlined({"a": BYTES, "b": [ARRAY, (BYTES,)]})
    _, buffers = outline(packed)
    start = address(packed)
    assert len(buffers) == 3
    assert all(start < address(buffer) < start + len(packed) for buffer in buffers)


def test_what_is_beyond_the_number_of_buffers_stays() -> None:
    arguments = {"a": [BYTES[:LARGE_BYTES]] * (BUFFERS_MAX + 1)}
    body, buffers = outline(encode_plain(arguments))
    assert len(buffers) == BUFFERS_MAX
    assert decode_value(body, buffers) == arguments


@pytest.mark.parametrize("params", [{}, {1: BYTES}, [BYTES], BYTES, None])
def test_what_is_no_map_of_names_is_left_as_it_is(params: Any) -> None:
    packed = encode_plain(params)
    assert outline(packed) == (packed, [])


def test_what_is_nested_too_deep_is_left_to_whoever_reads_it() -> None:
    value: Any = BYTES
    for _ in range(200):
        value = [value]
    packed = encode_plain({"value": value})
    assert outline(packed) == (packed, [])


def test_what_is_no_msgpack_is_refused() -> None:
    packed = encode_plain({"data": BYTES})
    with pytest.raises(DecodeError):
        outline(packed[:100])
    with pytest.raises(DecodeError):
        outline(packed + b"x")
