"""Async iterables among arguments: put aside, a number in their place; nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import trio
from anyio.streams.memory import MemoryObjectReceiveStream

from snakepit import protocol as p
from snakepit.errors import ProtocolError, SerializationError


async def numbers() -> AsyncIterator[int]:
    yield 1


class Iterates:
    def __aiter__(self) -> AsyncIterator[int]:
        return numbers()


def receiving_end_of_anyio() -> MemoryObjectReceiveStream[int]:
    send, receive = anyio.create_memory_object_stream[int](1)
    send.close()
    return receive


@pytest.mark.parametrize(
    "kind",
    [
        numbers,
        Iterates,
        lambda: trio.open_memory_channel[int](1)[1],  # an attrs class
        receiving_end_of_anyio,  # a dataclass
    ],
)
def test_every_kind_of_async_iterable_is_an_input(kind: Any) -> None:
    body, buffers, inputs = p.encode_arguments({"left": kind(), "right": (it := kind()), "n": (3,)})
    assert (buffers, len(inputs)) == ((), 2)
    assert inputs[1] is it
    assert p.decode_value(body, (), lambda number: f"input {number}") == {
        "left": "input 0",
        "right": "input 1",
        "n": (3,),
    }
    for one in inputs:
        if hasattr(one, "close"):
            one.close()


def test_arguments_without_inputs_are_encoded_as_ever() -> None:
    for params in ({}, {"a": 1}, {"a": (1, 2), "b": b"b" * p.BUFFER_BYTES_MIN}):
        body, buffers, inputs = p.encode_arguments(params)
        assert (bytes(body), buffers) == (bytes(p.encode_params(params)[0]), tuple(buffers))
        assert not inputs
        assert p.decode_value(body, buffers) == params


def test_an_argument_that_needs_a_second_look_is_no_second_input() -> None:
    """An int of more than 64 bits makes the walk begin anew."""
    body, _, inputs = p.encode_arguments({"numbers": (it := numbers()), "n": 2**80})
    assert list(inputs) == [it]
    assert p.decode_value(body, (), lambda number: number) == {"numbers": 0, "n": 2**80}


@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda it: [it], "['a'][0]"),
        (lambda it: {"b": it}, "['a']['b']"),
        (lambda it: ((it,),), "['a'][0][0]"),
    ],
)
def test_within_a_value_there_is_no_input(wrap: Any, where: str) -> None:
    with pytest.raises(SerializationError, match="can only be an argument itself") as caught:
        p.encode_arguments({"a": wrap(numbers())})
    assert caught.value.where == where


def test_one_iterable_is_not_two_inputs() -> None:
    it = numbers()
    with pytest.raises(SerializationError, match="another argument") as caught:
        p.encode_arguments({"a": it, "b": it})
    assert caught.value.where == "['b']"


def test_a_plain_iterator_is_told_what_to_be_instead() -> None:
    with pytest.raises(SerializationError, match=r"make it a list; .* async iterable") as caught:
        p.encode_arguments({"a": iter([1])})
    assert caught.value.where == "['a']"


def test_a_result_that_is_an_async_iterable_is_told_to_yield() -> None:
    with pytest.raises(SerializationError, match="what a tool yields streams"):
        p.encode_value(numbers())


def test_an_input_is_no_value() -> None:
    """Where none is expected its code is unknown; one without a number is malformed."""
    body = p.encode_arguments({"a": numbers()})[0]
    with pytest.raises(ProtocolError, match="unknown ext code 18"):
        p.decode_value(body)
    for payload in (b"\xc0", b"\xff", b"\xc3"):
        with pytest.raises(ProtocolError, match="an input has no number"):
            p.decode_value(b"\x81\xa1a\xd4\x12" + payload, (), lambda number: number)


@pytest.mark.parametrize("size", [10, 70_000, 2_000_000])
def test_an_item_travels_as_values_do(size: int) -> None:
    body, buffers = p.encode_value([b"i" * size, "t" * size])
    packer, unpacker = p.Packer(), p.Unpacker(p.decode_to_worker)
    message = p.InputItem(7, 1, body, buffers)
    frame = packer.pack(message)
    parts = [(frame, None)] if frame is not None else packer.pack_parts(message)
    came = [m for part in parts for data in part if data for m in unpacker.feed(bytes(data))]
    [item] = came
    assert type(item) is p.InputItem
    assert (item.id, item.input) == (7, 1)
    assert p.decode_value(item.body, item.buffers) == [b"i" * size, "t" * size]
