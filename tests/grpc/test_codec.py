"""`Frames` by hand is `Frames` as generated code has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import ProtocolError
from snakepit.grpc import frames_from, frames_with
from snakepit.grpc._generated.snakepit.v1 import ExecuteReply, Frames

EDGES = [0, 1, 127, 128, 2**14 - 1, 2**14, 2**20, 2**21]


@pytest.mark.parametrize("size", EDGES)
def test_frames_are_encoded_as_the_generated_class_does(size: int) -> None:
    data = bytes([7]) * size
    assert frames_with(data) == bytes(Frames(data=data))
    assert frames_from(bytes(Frames(data=data))) == data
    assert Frames.parse(frames_with(data)).data == data


def test_fields_that_a_newer_peer_adds_are_ignored() -> None:
    """One of each wire type, before and after."""
    more = b"\x10\x96\x01\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x2a\x03abc"
    assert frames_from(more + frames_with(b"data") + more) == b"data"


@pytest.mark.parametrize(
    "message",
    [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\x19\x00", b"\xff" * 11, b"\x10", b"\x10\x80"],
    ids=lambda message: message.hex()[:8],
)
def test_what_is_no_frames_is_a_protocol_error(message: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a message of protobuf"):
        frames_from(message)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_with_one_kind_of_error(message: bytes) -> None:
    try:
        assert isinstance(frames_from(message), bytes)
    except ProtocolError:
        return


@given(st.lists(st.tuples(st.integers(2, 15), st.binary(max_size=9))), st.binary(max_size=300))
def test_both_read_the_same(others: list[tuple[int, bytes]], data: bytes) -> None:
    """With any fields around it that are no Frames'."""
    more = b"".join(bytes([number << 3 | 2, len(text)]) + text for number, text in others)
    message = more + frames_with(data) + more
    assert frames_from(message) == Frames.parse(message).data == data


def test_the_generated_code_belongs_to_the_runtime_that_is_here() -> None:
    """It says so itself when it is imported; here it also works."""
    assert bytes(ExecuteReply()) == b""
