"""Hostile bytes: only ProtocolError or SerializationError, no hang, no memory for what is only claimed."""

from __future__ import annotations

import datetime as dt
import decimal
import tracemalloc
import uuid
from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from _values_kit import Colour, Right
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakepit import protocol as p
from snakepit.errors import ProtocolError, SerializationError

# A decoded value may hold at most this many bytes for each byte that came (an empty set takes
# 4 bytes on the wire and 216 in memory), beside what the decoder itself needs.
BYTES_PER_BYTE_MAX = 200
OVERHEAD_BYTES_MAX = 256 * 2**10

fuzzing = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def eat(data: bytes) -> None:
    """Give the bytes to everything that reads bytes of the other side."""
    for read in (p.decode_to_host, p.decode_to_worker, decode_alone, decode_with_buffers, feed):
        try:
            read(data)
        except (ProtocolError, SerializationError):
            pass


def decode_alone(data: bytes) -> None:
    p.decode_value(data)


def decode_with_buffers(data: bytes) -> None:
    p.decode_value(data, (b"", bytearray(64), memoryview(bytes(1000))))


def feed(data: bytes) -> None:
    decoder = p.FrameDecoder()
    for start in range(0, len(data), 7):
        for payload in decoder.feed(data[start : start + 7]):
            p.decode_to_host(payload)


def bounded_eat(data: bytes) -> None:
    tracemalloc.start()
    try:
        eat(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < OVERHEAD_BYTES_MAX + BYTES_PER_BYTE_MAX * len(data)


SEEDS_OF_VALUES = [
    {"a": [1, 2.5, None, True, "text", b"bytes"], 3: (1, {2}, frozenset({3}))},
    [2**70, "\ud800", bytearray(b"xy"), 1j, uuid.UUID(int=5), decimal.Decimal("1.5")],
    [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.date(2024, 1, 1), dt.time(1), dt.timedelta(1)],
    [Colour.RED, Right.READ | Right.WRITE],
    [np.arange(6.0).reshape(2, 3), np.zeros(2, [("a", "i4"), ("b", "f8", (2,))]), np.float32(1)],
    [memoryview(b"abcd").cast("H"), np.str_("x"), np.zeros(200)],
]


def seeds() -> list[bytes]:
    values = [p.encode_value(value, buffer_threshold=500) for value in SEEDS_OF_VALUES]
    bodies = [body for body, _ in values]
    messages = [p.Call(1, "tool", body, (1,), 1.5, 16) for body in bodies]
    failure = p.Failure(1, "tool", p.describe(KeyError("k")))
    others = [
        failure,
        p.Ready((p.ToolInfo("t"),)),
        p.Result(3, bodies[0]),
        p.Part(1, memoryview(b"abc")),
        p.Hello(1, 2),
        p.Progress(1, 2, 3.5, "text"),
        p.Call(1, "tool", bodies[0], session="user_42"),
        p.EndSession("user_42"),
        p.HostCall(1, 2, "ask", bodies[0], (1,)),
        p.HostReply(1, bodies[0]),
        p.HostFailure(1, "tool", p.describe(KeyError("k"))),
        p.HostCancel(1, 2),
    ]
    payloads = [*map(bytes, bodies), *map(p.encode_message, [*messages, *others])]
    return payloads + [p.frame(payload) for payload in payloads]


SEEDS = seeds()


@fuzzing
@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    bounded_eat(data)


@fuzzing
@given(st.integers(0, 127), st.binary(max_size=60))
def test_random_payloads_of_every_ext(code: int, payload: bytes) -> None:
    bounded_eat(b"\xc7" + bytes([len(payload), code]) + payload)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@fuzzing
@given(st.integers(1, 40), plain)
def test_well_formed_payloads_of_the_wrong_shape(code: int, value: object) -> None:
    payload = bytes(p.encode_value(value)[0])
    bounded_eat(b"\xc9" + len(payload).to_bytes(4, "big") + bytes([code]) + payload)


@fuzzing
@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_mutated_bytes(data: bytes, seed: int) -> None:
    random, mutated = Random(seed), bytearray(data)
    for _ in range(random.randint(1, 6)):
        where = random.randrange(len(mutated) + 1)
        match random.randrange(4):
            case 0 if where < len(mutated):
                mutated[where] = random.randrange(256)
            case 1:
                mutated[where:where] = random.randbytes(random.randint(1, 5))
            case 2:
                del mutated[where : where + random.randint(1, 5)]
            case _:
                mutated[where:where] = random.choice(
                    [b"\xdd\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8, b"\xc6\x7f\xff\xff\xff"]
                )
    bounded_eat(bytes(mutated))


TABLES = [
    bytes(p.encode_value(value)[0])
    for value in (
        pa.table({"a": [1, None], "b": ["x", "y"], "c": [[1], [2, 3]]}),
        pa.array(["x", "y"]).dictionary_encode(),
        pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.date_range("2020", periods=2)),
    )
]


@fuzzing
@given(st.sampled_from(TABLES), st.integers(0, 2**32))
def test_mutated_tables(data: bytes, seed: int) -> None:
    """What pyarrow lets through can also be read to its end."""
    random, mutated = Random(seed), bytearray(data)
    for _ in range(random.randint(1, 4)):
        mutated[random.randrange(40, len(mutated))] = random.choice(
            [0, 127, 255, random.randrange(256)]
        )
    try:
        repr(p.decode_value(bytes(mutated)))
    except (ProtocolError, SerializationError):
        pass


@pytest.mark.parametrize(
    "value", [pa.table({"zzzz": [1]}), pa.record_batch({"zzzz": [1]}), pa.table({"zzzz": []})]
)
def test_a_column_s_name_that_is_no_text_is_refused(value: object) -> None:
    body = bytes(p.encode_value(value)[0])
    assert p.decode_value(body).column_names == ["zzzz"]
    with pytest.raises(ProtocolError, match="codec can't decode byte 0xff"):
        p.decode_value(body.replace(b"zzzz", b"zz\xffz"))


@pytest.mark.parametrize("data", SEEDS[: len(SEEDS) // 2], ids=lambda data: str(len(data)))
def test_truncated_bytes(data: bytes) -> None:
    for end in range(len(data)):
        eat(data[:end])


@pytest.mark.unmeasured
def test_memory_stays_below_the_maximum_at_full_frames() -> None:
    """The worst known shapes, in quantity."""
    for unit in (
        b"\x80",
        b"\x90",
        b"\xc7\x01\x05\x90",
        b"\xc7\x01\x04\x90",
        b"\xc7\x01\x06\x90",
        b"\xc7\x02\x0e10",
        b"\xd4\x01\x01",
    ):
        count = 40_000
        bounded_eat(b"\xdd" + count.to_bytes(4, "big") + unit * count)
