"""Long lists of plain scalars as msgpack, a stretch at a time.

msgspec writes such a list in one call, and whoever waits for the GIL, as the thread with the event
loop may, waits for all of it. Between two stretches it gets its turn.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from ._ext import encode_plain

FLOATS_MIN: Final = 64  # members of a list, from where on a quicker look pays
LONG_MIN: Final = 2**17  # shorter ones take a few milliseconds, and a fifth less in one go
STRETCH: Final = 2**13
FLOAT_TAG: Final = b"\xcb"  # msgpack's float64, and eight bytes
FLOAT_BYTES: Final = 9
assert FLOATS_MIN >= 16, "a shorter array has a head of one byte"


def pack_scalars(value: list[Any], flat: frozenset[type]) -> Raw | None:
    """The list as msgpack if that is all floats, or long and of these types; None for any other."""
    if len(value) < LONG_MIN:
        packed = _pack_floats(value)
        return None if packed is None else Raw(packed)
    count, stretches, floats = 0, list[memoryview](), True
    while stretch := value[count : count + STRETCH]:
        packed = _pack_floats(stretch) if floats else None
        if packed is None:
            floats = False
            if not set(map(type, stretch)) <= flat:
                return None
            packed = encode_plain(stretch)
        stretches.append(memoryview(packed)[_head_bytes(len(stretch)) :])
        count += len(stretch)
    return Raw(b"".join((b"\xdd", count.to_bytes(4, "big"), *stretches)))


def _pack_floats(value: list[Any]) -> bytes | None:
    """A list of floats as msgpack; None if anything else is in it.

    Asking each member for its type takes five times as long as writing it. msgspec converts to
    float no subclass and no enum, but ints and Decimals; and these it does not write as floats.
    """
    if len(value) < FLOATS_MIN or type(value[0]) is not float:
        return None
    try:
        msgspec.convert(value, list[float])
    except msgspec.ValidationError:
        return None
    packed = encode_plain(value)
    count = len(value)
    head = _head_bytes(count)
    if len(packed) == head + FLOAT_BYTES * count and packed[head::FLOAT_BYTES] == FLOAT_TAG * count:
        return packed
    return None


def _head_bytes(count: int) -> int:
    """What stands before the members of an array of so many."""
    return 1 if count < 16 else 3 if count < 2**16 else 5
