"""What comes to a worker is read so that its other threads run meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit import shm
from snakepit.protocol import encode_value
from snakepit.worker._values import HELD_BYTES_MAX, read_value


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize(("size", "apart"), [(HELD_BYTES_MAX, 0), (HELD_BYTES_MAX + 1, 1)])
def test_large_bytes_are_copied_without_the_gil(
    monkeypatch: pytest.MonkeyPatch, kind: type, size: int, apart: int
) -> None:
    copied: list[int] = []

    def copy(kind: type[Any], source: Any) -> Any:
        copied.append(len(source))
        return real(kind, source)

    real = shm.private_bytes
    monkeypatch.setattr(shm, "private_bytes", copy)
    value = kind(bytes(range(256)) * (size // 256) + bytes(size % 256))
    body, buffers = encode_value({"value": value})
    read = read_value(body, [bytearray(buffer) for buffer in buffers])
    assert read == {"value": value}
    assert type(read["value"]) is kind
    assert copied == [size] * apart
