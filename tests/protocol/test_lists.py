"""Long lists of plain scalars, which are written a stretch at a time."""

from __future__ import annotations

import enum
import threading
from typing import Any

import pytest

from snakepit.errors import SerializationError
from snakepit.protocol import _lists, decode_value, encode_value
from snakepit.protocol._lists import LONG_MIN, STRETCH


class Colour(enum.IntEnum):
    RED = 1


def same(value: list[Any]) -> bool:
    body, buffers = encode_value(value)
    back = decode_value(body, buffers)
    return back == value and list(map(type, back)) == list(map(type, value))


@pytest.mark.parametrize("count", [LONG_MIN - 1, LONG_MIN, LONG_MIN + 1, LONG_MIN + STRETCH + 15])
@pytest.mark.parametrize("member", [7, 2.5, "ä", None, True])
def test_a_long_list_of_scalars_is_what_msgpack_makes_of_it(count: int, member: Any) -> None:
    value = [member] * count
    assert bytes(encode_value(value)[0]) == _lists.encode_plain(value)


@pytest.mark.parametrize(
    "odd",
    [b"bytes", (1, 2), [1.5], Colour.RED, 2**70, "\ud800"],
    ids=lambda odd: type(odd).__name__,
)
@pytest.mark.parametrize("place", [0, STRETCH, -1])
@pytest.mark.parametrize("member", [7, 2.5])
def test_one_odd_member_is_kept_as_it_is(member: Any, place: int, odd: Any) -> None:
    value: list[Any] = [member] * LONG_MIN
    value[place] = odd
    assert same(value)


def test_floats_among_ints_stay_floats() -> None:
    assert same([*[1.0] * STRETCH, *[1] * STRETCH, *[2.0, 3] * LONG_MIN])


def test_what_cannot_travel_is_named() -> None:
    value: list[Any] = [1] * LONG_MIN
    value[-1] = object()
    with pytest.raises(SerializationError) as caught:
        encode_value(value)
    assert caught.value.where == f"[{LONG_MIN - 1}]"


def test_no_stretch_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get the GIL between two of them."""
    written: list[int] = []

    def encode(value: list[Any]) -> bytes:
        written.append(len(value))
        return plain(value)

    plain = _lists.encode_plain
    monkeypatch.setattr(_lists, "encode_plain", encode)
    encode_value([1] * (3 * LONG_MIN))
    assert max(written) == STRETCH
    assert sum(written) == 3 * LONG_MIN


def test_a_list_that_another_thread_makes_shorter_is_a_whole_list_all_the_same() -> None:
    value = [1] * (8 * LONG_MIN)
    shorten = threading.Thread(target=lambda: value.__delitem__(slice(LONG_MIN, None)))
    shorten.start()
    body, _ = encode_value(value)
    shorten.join()
    assert set(decode_value(body)) == {1}
