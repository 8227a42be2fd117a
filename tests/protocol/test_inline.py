"""A value with its buffers put back is what `encode` writes without any."""

from __future__ import annotations

import decimal
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from snakepit.protocol import encode_value
from snakepit.protocol._ext import encode_plain
from snakepit.protocol._inline import inline

BYTES = bytes(range(256)) * 300
ARRAY = np.arange(20_000, dtype=np.int64)
VALUES: dict[str, Any] = {
    "nothing large": {"a": [1, (2.5, "x"), None]},
    "bytes": BYTES,
    "bytearray": bytearray(BYTES),
    "memoryview": memoryview(BYTES),
    "array": ARRAY,
    "array in Fortran's order": ARRAY.reshape(100, 200).T,
    "table": pa.table({"a": ARRAY, "b": ARRAY + 1}),
    "several": [BYTES, BYTES, {"x": bytearray(BYTES)}, "y"],
    "in tuples": ("x", (BYTES, (ARRAY, 1)), b"small"),
    "in a set": frozenset([BYTES, b"small"]),
    "in a dict whose keys are not str": {1: BYTES, BYTES: 2},
    "beside other exts": [uuid.UUID(int=7), 2**80, "\ud800", decimal.Decimal("1.5"), (1, 2), BYTES],
}


@pytest.mark.parametrize("name", VALUES)
def test_the_pieces_are_the_value_without_buffers(name: str) -> None:
    value = VALUES[name]
    body, buffers = encode_value(value)
    written, none = encode_value(value, buffer_threshold=2**62)
    assert not none
    assert b"".join(inline(body, buffers)) == bytes(written)


def test_no_buffer_is_copied() -> None:
    buffers = [bytearray(BYTES), bytearray(BYTES)]
    body, _ = encode_value(({"a": BYTES, "b": bytearray(BYTES)},))
    memories = [piece.obj for piece in inline(body, buffers) if isinstance(piece, memoryview)]
    assert [memory is buffer for memory, buffer in zip(memories, buffers, strict=True)] == [
        True
    ] * 2


def test_a_body_without_buffers_is_the_only_piece() -> None:
    body = encode_plain([1, 2])
    assert inline(body, ()) == [body]
