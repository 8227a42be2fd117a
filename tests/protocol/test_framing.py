"""Frames: whole, in order, unchanged, however the stream is cut; a lying length costs nothing."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.errors import ProtocolError
from snakepit.protocol import FRAME_BYTES_MAX, PREFIX_BYTES, FrameDecoder, frame


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_frames_survive_any_chunking(payloads: Any, data: Any) -> None:
    stream = b"".join(map(frame, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder, came = FrameDecoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        came += decoder.feed(stream[start:end])
    assert came == payloads
    assert not decoder.mid_frame


def test_frames_survive_single_bytes() -> None:
    payloads = [b"", b"x", b"", b"abc" * 100]
    decoder = FrameDecoder()
    came = [p for byte in b"".join(map(frame, payloads)) for p in decoder.feed(bytes([byte]))]
    assert came == payloads


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX])
@pytest.mark.parametrize("chunk", [65_536, FRAME_BYTES_MAX + PREFIX_BYTES + 1])
def test_frames_of_every_boundary_size(size: int, chunk: int) -> None:
    payload = bytes(size)
    stream, decoder = frame(payload) + frame(b"next"), FrameDecoder()
    came = [p for i in range(0, len(stream), chunk) for p in decoder.feed(stream[i : i + chunk])]
    assert came == [payload, b"next"]


def test_a_byte_over_the_maximum_is_refused_on_the_way_out() -> None:
    with pytest.raises(ProtocolError):
        frame(bytes(FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("split", [False, True])
def test_a_lying_length_is_an_error_and_no_allocation(length: int, split: bool) -> None:
    """And the decoder stays broken: a stream that lost its place never finds it again."""
    decoder, prefix = FrameDecoder(), length.to_bytes(PREFIX_BYTES, "big")
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            for chunk in [prefix[:2], prefix[2:]] if split else [prefix]:
                decoder.feed(chunk)
        with pytest.raises(ProtocolError):
            decoder.feed(frame(b"fine"))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_mid_frame_tells_a_death_from_a_goodbye() -> None:
    decoder = FrameDecoder()
    assert not decoder.mid_frame
    decoder.feed(frame(b"whole") + b"\x00")
    assert decoder.mid_frame
    decoder.feed(b"\x00\x00\x01!")
    assert not decoder.mid_frame
