"""Messages of any size through frames of bounded size, and hostile parts."""

from __future__ import annotations

import tracemalloc
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from snakepit import protocol as p
from snakepit.errors import ProtocolError
from snakepit.protocol._parts import BODY_IN_TRANSFER

MIB = 2**20
BIG = p.PART_BYTES_MAX


def raw(size: int) -> Raw:
    """A msgpack value of some size."""
    return p.encode_value(bytes(size), buffer_threshold=2**40)[0]


def frames_of(packer: p.Packer, message: Any) -> list[bytes]:
    """The message's frames, each as the bytes that travel."""
    whole = packer.pack(message)
    if whole is not None:
        return [whole]
    return [
        head if data is None else head + bytes(data) for head, data in packer.pack_parts(message)
    ]


def unpack(*frames: bytes, chunk_bytes: int = 65_536) -> list[Any]:
    """What the receiver makes of it; nothing half-done may be left."""
    unpacker, stream = p.Unpacker(p.decode_to_host), b"".join(frames)
    messages = []
    for start in range(0, len(stream), chunk_bytes):
        messages += unpacker.feed(stream[start : start + chunk_bytes])
        if unpacker.broken:
            raise ProtocolError(unpacker.broken)
    assert not unpacker.mid_message
    return messages


def same(came: Any, sent: Any) -> bool:
    """Whether two results carry the same bytes."""
    return (
        type(came) is type(sent)
        and came.id == sent.id
        and bytes(came.body) == bytes(sent.body)
        and [bytes(b) for b in came.buffers] == [bytes(memoryview(b)) for b in sent.buffers]
    )


# -- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, BIG - 5, BIG - 4, BIG + 1, 3 * BIG, 3 * BIG + 1])
def test_a_body_of_any_size_arrives_unchanged(size: int) -> None:
    body = raw(size)
    message = p.Result(7, body)
    frames = frames_of(p.Packer(), message)
    assert (len(frames) > 1) is (len(memoryview(body)) > BIG)
    assert all(len(frame) <= BIG + 1024 for frame in frames)
    [came] = unpack(*frames)
    assert same(came, p.Result(7, body))


@pytest.mark.parametrize("size", [0, 1, BIG - 1, BIG, BIG + 1, 2 * BIG, 2 * BIG + 1])
def test_a_buffer_of_any_size_arrives_unchanged(size: int) -> None:
    data = np.random.default_rng(1).bytes(size)
    frames = frames_of(p.Packer(), p.Result(7, p.NIL, (data,)))
    assert len(frames) == max(1, -(-size // BIG)) + 1
    [came] = unpack(*frames, chunk_bytes=MIB + 7)
    assert same(came, p.Result(7, p.NIL, (data,)))


def test_several_buffers_and_a_large_body_arrive_in_their_places() -> None:
    buffers = (b"", b"one", bytearray(BIG + 1), memoryview(b"three"), b"")
    message = p.Result(1, raw(BIG), buffers)
    [came] = unpack(*frames_of(p.Packer(), message))
    assert same(came, message)


@pytest.mark.parametrize(
    "buffer",
    [
        array("d", [1.5, 2.5]),
        memoryview(array("H", range(100))),
        memoryview(bytes(24)).cast("i", (2, 3)),
        np.arange(12.0).reshape(3, 4),
        memoryview(b""),
    ],
    ids=lambda buffer: type(buffer).__name__,
)
def test_a_buffer_of_any_format_and_shape_travels_as_its_bytes(buffer: Any) -> None:
    [came] = unpack(*frames_of(p.Packer(), p.Result(1, p.NIL, (buffer,))))
    assert [bytes(b) for b in came.buffers] == [memoryview(buffer).tobytes()]


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6e4).reshape(200, 300).T,
        np.asfortranarray(np.arange(6e4).reshape(200, 300)),
        np.arange(12e4)[::2],
        np.arange(6e4)[::-1],
        np.empty((0, 3)),
        np.broadcast_to(np.arange(300.0), (200, 300)),
        memoryview(bytes(range(256)) * 1000)[::2],
        memoryview(bytes(range(256)) * 1000)[::-1],
    ],
    ids=["transposed", "fortran", "strided", "reversed", "empty", "broadcast", "view", "backwards"],
)
def test_what_is_not_contiguous_in_memory_can_be_packed_once_encoded(value: Any) -> None:
    body, buffers = p.encode_value(value, buffer_threshold=0)
    [came] = unpack(*frames_of(p.Packer(), p.Result(1, body, buffers)))
    back = p.decode_value(came.body, came.buffers)
    assert np.array_equal(np.asarray(back), np.asarray(value))


def test_the_other_fields_of_a_message_stay_as_they_were() -> None:
    """Packing in parts makes a new message and leaves the caller's alone."""
    message = p.Call(9, "tool", raw(5), (b"abc",), 1.5, 16)
    stream = b"".join(frames_of(p.Packer(), message))
    [came] = p.Unpacker(p.decode_to_worker).feed(stream)
    assert came == p.Call(9, "tool", raw(5), (bytearray(b"abc"),), 1.5, 16)
    assert message == p.Call(9, "tool", raw(5), (b"abc",), 1.5, 16)


sizes = st.sampled_from([0, 1, 30_000, BIG - 1, BIG, BIG + 1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(sizes, st.lists(sizes, max_size=3)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_frames_of_several_messages_may_go_between_each_other(shapes: Any, random: Any) -> None:
    """In any order that keeps each message's own."""
    packer = p.Packer()
    messages = [
        p.Result(
            number, raw(body), tuple(bytes([number, k]) * (s // 2) for k, s in enumerate(sizes))
        )
        for number, (body, sizes) in enumerate(shapes)
    ]
    waiting = [frames_of(packer, message) for message in messages]
    stream = []
    while waiting:
        frames = random.choice(waiting)
        stream.append(frames.pop(0))
        waiting = [frames for frames in waiting if frames]
    came = sorted(unpack(*stream, chunk_bytes=random.choice([999_983, 65_536])), key=lambda m: m.id)
    assert len(came) == len(messages)
    assert all(map(same, came, messages))


def test_transfers_are_numbered_through_messages() -> None:
    packer = p.Packer()
    numbers = []
    for _ in range(3):
        for head, data in packer.pack_parts(p.Result(1, p.NIL, (b"a", b"b"))):
            if data is not None:
                numbers.append(p.transfer_of(head))
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_a_transfer_that_is_given_up_is_forgotten() -> None:
    """It ends the state of being inside a message, costs no place, and may be said twice."""
    unpacker, packer = p.Unpacker(p.decode_to_host), p.Packer()
    head, data = next(packer.pack_parts(p.Result(1, p.NIL, (bytes(2 * BIG),))))
    assert data is not None
    assert unpacker.feed(head + bytes(data)) == []
    assert unpacker.mid_message
    assert unpacker.feed(p.forget(1)) == []
    assert not unpacker.mid_message
    assert unpacker.feed(p.forget(1) + p.forget(99)) == []
    [came] = unpacker.feed(b"".join(frames_of(packer, p.Result(2, p.NIL, (b"next",)))))
    assert same(came, p.Result(2, p.NIL, (b"next",)))


def test_inside_a_message_is_also_between_its_frames() -> None:
    """The end of the stream there is a death, not a goodbye."""
    frames = frames_of(p.Packer(), p.Result(1, p.NIL, (b"abc",)))
    unpacker = p.Unpacker(p.decode_to_host)
    states = [unpacker.mid_message]
    for frame in frames:
        unpacker.feed(frame)
        states.append(unpacker.mid_message)
    assert states == [False, True, False]


def test_what_arrived_is_not_touched_by_what_comes_after() -> None:
    unpacker, packer = p.Unpacker(p.decode_to_host), p.Packer()
    [first] = unpacker.feed(b"".join(frames_of(packer, p.Result(1, raw(9), (b"first",)))))
    unpacker.feed(b"".join(frames_of(packer, p.Result(2, raw(9), (b"other",)))))
    assert same(first, p.Result(1, raw(9), (b"first",)))


# -- hostile parts ---------------------------------------------------------------------------------


def part(transfer: int, data: bytes | None) -> bytes:
    return p.frame(p.encode_message(p.Part(transfer, None if data is None else memoryview(data))))


def result(body: Raw, buffers: tuple[Any, ...]) -> bytes:
    return p.frame(p.encode_message(p.Result(1, body, buffers)))


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([result(p.NIL, (5,))], id="a transfer that never came"),
        pytest.param([part(1, b"x"), result(p.NIL, (1, 1))], id="one transfer named twice"),
        pytest.param(
            [part(1, b"x"), result(p.NIL, (1,)), result(p.NIL, (1,))], id="a transfer used twice"
        ),
        pytest.param([part(1, b"x"), part(1, None), result(p.NIL, (1,))], id="a forgotten one"),
        pytest.param([result(p.NIL, ([1],))], id="a list as a number"),
        pytest.param([result(p.NIL, (None,))], id="nil as a number"),
        pytest.param([result(p.NIL, (b"bytes",))], id="the bytes themselves"),
        pytest.param([result(p.NIL, ({},))], id="a map as a number"),
        pytest.param([part(-1, b"x"), result(p.NIL, (1,))], id="a negative number"),
        pytest.param(
            [part(1, b""), result(BODY_IN_TRANSFER, (1,)), b"\xff" * 8],
            id="a lying length after an empty body",
        ),
    ],
)
def test_a_message_that_names_what_is_not_there_is_a_protocol_error(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        unpack(*frames)


@pytest.mark.parametrize("bad", [b"\xff" * 4, p.frame(b"hello"), result(p.NIL, (5,))])
def test_what_was_said_before_a_breach_counts(bad: bytes) -> None:
    """Good messages that share a chunk with a broken one are not lost; nothing follows them."""
    unpacker = p.Unpacker(p.decode_to_host)
    assert unpacker.feed(p.frame(p.encode_message(p.Settled(7))) + bad) == [p.Settled(7)]
    assert unpacker.broken
    with pytest.raises(ProtocolError):
        unpacker.feed(p.frame(p.encode_message(p.Settled(8))))


def test_a_body_in_a_transfer_without_transfers_is_refused_when_it_is_decoded() -> None:
    [came] = unpack(result(BODY_IN_TRANSFER, ()))
    with pytest.raises(ProtocolError):
        p.decode_value(came.body, came.buffers)


def test_no_more_transfers_may_be_open_than_the_maximum() -> None:
    unpacker = p.Unpacker(p.decode_to_host)
    for number in range(p.TRANSFERS_OPEN_MAX):
        unpacker.feed(part(number, b""))
    unpacker.feed(part(0, b"more of a known one"))
    unpacker.feed(part(0, None))
    unpacker.feed(part(p.TRANSFERS_OPEN_MAX, b""))
    with pytest.raises(ProtocolError, match=str(p.TRANSFERS_OPEN_MAX)):
        unpacker.feed(part(p.TRANSFERS_OPEN_MAX + 1, b""))


def test_parts_take_the_memory_of_what_came() -> None:
    unpacker, piece = p.Unpacker(p.decode_to_host), bytes(100_000)
    tracemalloc.start()
    try:
        for _ in range(100):
            unpacker.feed(part(1, piece))
        unpacker.feed(part(1, None))
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 25 * MIB  # 10 MB came; a growing bytearray is copied now and then
    assert size < MIB


hostile = st.one_of(
    st.builds(part, st.integers(-3, 6), st.none() | st.binary(max_size=9)),
    st.builds(
        result,
        st.sampled_from([p.NIL, BODY_IN_TRANSFER, raw(3)]),
        st.lists(st.integers(-1, 6) | st.none() | st.binary(max_size=2), max_size=4).map(tuple),
    ),
    st.binary(max_size=12).map(p.frame),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(hostile, max_size=12))
def test_any_sequence_of_parts_ends_well_or_in_a_protocol_error(frames: list[bytes]) -> None:
    unpacker = p.Unpacker(p.decode_to_host)
    try:
        for frame in frames:
            for message in unpacker.feed(frame):
                if isinstance(message, p.Result):
                    p.decode_value(message.body, message.buffers)
    except ProtocolError:
        pass
