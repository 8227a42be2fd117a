"""Async iterables as arguments: in the encoded arguments stand numbers in their place.

Such an argument is an *input*: its items travel on their own, as the tool asks for them, so it is no
value. It can only be an argument itself, never a part of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec.msgpack import Ext

from . import _ext as ext
from ._ext import Reader, UnsendableError, Writer, encode_plain

ARGUMENT_DEPTH: Final = 1  # of a member of the map of arguments
ITERATOR_ADVICE: Final = "; make it a list; what a tool yields streams, and so does an argument that is an async iterable"


def is_input(kind: type) -> bool:
    """True for async iterables. Channels that are dataclasses are among them, so ask this first."""
    return hasattr(kind, "__aiter__")


def write_input(writer: Writer, value: object) -> Ext:
    """Put the async iterable aside. Raises UnsendableError where none can be."""
    kind = type(value).__qualname__
    if writer.inputs is None:
        raise UnsendableError(f"a value of type {kind} cannot travel{ITERATOR_ADVICE}")
    if writer.depth != ARGUMENT_DEPTH:
        raise UnsendableError(
            f"an async iterable, {kind}, can only be an argument itself, not within a value"
        )
    if any(one is value for one in writer.inputs):
        raise UnsendableError("the same async iterable is another argument, too")
    writer.inputs.append(value)
    return Ext(ext.INPUT, encode_plain(len(writer.inputs) - 1))


class InputReader(Reader):
    """Reads arguments with inputs among them."""

    __slots__ = ("_open_input",)

    def __init__(self, buffers: Sequence[Any], open_input: Callable[[int], Any]) -> None:
        super().__init__(buffers)
        self._open_input = open_input

    def _hook(self, code: int, data: memoryview) -> Any:
        if code != ext.INPUT:
            return super()._hook(code, data)
        number = self.read(data)
        if type(number) is not int or number < 0:
            ext.malformed("an input has no number")
        return self._open_input(number)
