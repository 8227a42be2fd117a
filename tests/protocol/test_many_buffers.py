"""A value may hold any number of large members; only so many of them travel as buffers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from snakepit import protocol as p
from snakepit.protocol._ext import BUFFERS_MAX

LARGE = bytes(p.BUFFER_BYTES_MIN)
MANY = p.TRANSFERS_OPEN_MAX + 50


def through_the_wire(body: Raw, buffers: p.Buffers) -> tuple[Any, int]:
    """The value after the wire, and how many buffers it went in."""
    stream = bytearray()
    for head, data in p.Packer().pack_parts(p.Result(1, body, buffers)):
        stream += head
        stream += b"" if data is None else data
    [message] = p.Unpacker(p.decode_to_host).feed(bytes(stream))
    assert isinstance(message, p.Result)
    return p.decode_value(message.body, message.buffers), len(message.buffers)


@pytest.mark.parametrize(
    "member", [LARGE, bytearray(LARGE), memoryview(LARGE)], ids=lambda m: type(m).__name__
)
def test_more_large_members_than_transfers_may_be_open_arrive(member: Any) -> None:
    """The receiver allows 1024 open transfers; a longer list of large members still arrives."""
    value = [member] * MANY
    back, buffer_count = through_the_wire(*p.encode_value(value))
    assert buffer_count == BUFFERS_MAX
    assert {type(item) for item in back} == {type(member)}
    assert back == value
