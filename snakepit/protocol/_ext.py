"""The msgpack extension codes of values, and the two tables that every kind of value enters.

None, bool, int (64 bit), float, str, bytes, list and dict with str keys are plain msgpack.
All else is an ext; unless stated, its payload is again one msgpack value, which may nest exts.
A worker in another language may refuse every code that it has no use for.

====  ==============  ============================================================================
code  value           payload
====  ==============  ============================================================================
1     int             raw: two's complement, big-endian, for ints outside int64 and uint64
2     str             raw: UTF-8 in which lone surrogates are encoded like other code points
3     bytearray       bin, or index of a buffer
4     tuple           array of the members
5     set             array of the members
6     frozenset       array of the members
7     dict            array key, value, key, value, … (where a key is not a str)
8     datetime        array year, month, day, hour, minute, second, microsecond, fold, zone or nil
9     date            array year, month, day
10    time            array hour, minute, second, microsecond, fold, zone or nil
11    timedelta       array days, seconds, microseconds
12    zone            str (IANA key), or array offset in microseconds, name or nil
13    UUID            raw: 16 bytes
14    Decimal         raw: the number in ASCII, as Python prints it
15    Enum member     array module, qualified name, member name; or … , nil, value (flags)
16    path            array "" (of the machine), "posix" or "windows"; str
17    complex         raw: two big-endian doubles
18    input           int: its number; only as a value of the map of arguments
32    bytes           index of a buffer; bin once there are `BUFFERS_MAX` buffers
33    memoryview      array format (of the struct module), shape, bin or index of a buffer
34    NumPy array     array dtype, shape, "C" or "F", bin or index of a buffer; in place of the order,
                      where memory is shared, array offset, strides in bytes
35    NumPy scalar    array dtype, bin (str for numpy.str_)
36    torch.Tensor    like NumPy array
37    Arrow           array kind, bin or index of a buffer (an Arrow IPC stream), array of extras;
                      in place of the stream, where memory is shared, a layout
====  ==============  ============================================================================

A dtype is a str like `"<f8"`, or an array: `["sub", dtype, shape]` or `["struct", names, dtypes,
offsets, titles, itemsize, aligned]`. The kinds of Arrow are in `_arrow.py`, the layout in `_arrow_layout.py`. msgpack's own
timestamp (ext -1) is read as a datetime in UTC and never written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import msgspec

from snakepit.errors import ProtocolError, SerializationError

from ._loose import Loose, Missing, Places

INT: Final = 1
SURROGATES: Final = 2
BYTEARRAY: Final = 3
TUPLE: Final = 4
SET: Final = 5
FROZENSET: Final = 6
DICT: Final = 7
DATETIME: Final = 8
DATE: Final = 9
TIME: Final = 10
TIMEDELTA: Final = 11
ZONE: Final = 12
UUID: Final = 13
DECIMAL: Final = 14
ENUM: Final = 15
PATH: Final = 16
COMPLEX: Final = 17
INPUT: Final = 18
BYTES: Final = 32
MEMORYVIEW: Final = 33
NDARRAY: Final = 34
SCALAR: Final = 35
TENSOR: Final = 36
ARROW: Final = 37

NESTING_MAX: Final = 150
BUFFERS_MAX: Final = 1000  # of one value; what is large beyond that stays in the body
SEGMENTS_SHOWN_MAX: Final = 12
SEGMENT_CHARS_MAX: Final = 80

encode_plain: Final = msgspec.msgpack.Encoder().encode


class UnsendableError(Exception):
    """Unwinds the walk from a value that cannot travel, collecting the way to it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.segments: list[str] = []  # innermost first
        self.seen: list[int] = []  # ids of the containers passed on the way out

    def passed(self, container: object, segment: str) -> None:
        self.segments.append(segment)
        self.seen.append(id(container))

    def error(self) -> SerializationError:
        path = self.segments[::-1]
        if len(path) > SEGMENTS_SHOWN_MAX:
            path = [*path[:SEGMENTS_SHOWN_MAX], "…"]
        reason = self.reason
        if len(set(self.seen)) < len(self.seen):
            reason = "the value contains itself; only trees can travel"
        return SerializationError(reason, "".join(path))


def key_segment(key: object) -> str:
    """How a dict's member is shown in `where`."""
    if type(key) not in (str, int, bytes, float, bool, type(None)):
        return f"[<{type(key).__name__}>]"
    text = repr(key) if not isinstance(key, int) or key.bit_length() < 256 else "<int>"
    return f"[{text if len(text) <= SEGMENT_CHARS_MAX else text[:SEGMENT_CHARS_MAX] + '…'}]"


class TakesLongError(Exception):
    """This value is not made in a moment: a thread should do it."""


class Writer:
    """One walk over one value: the buffers put aside so far, and how deep it is.

    `careful`: ints and strs are looked at one by one. The first walk does not, msgspec
    complains about the rare one that it cannot write, and a second, careful walk is made.
    `inputs`: where the async iterables among a call's arguments are put; None for other values.
    `places`: of a link that can share memory; None on others. `bytes_left`: how many may still be copied or
    converted before it is given up; None: any number.
    """

    __slots__ = (
        "buffers", "bytes_left", "careful", "depth", "exported", "inputs", "places", "threshold",
    )  # fmt: skip

    def __init__(
        self,
        threshold: int,
        *,
        careful: bool = False,
        inputs: list[Any] | None = None,
        places: Places | None = None,
        bytes_left: int | None = None,
    ) -> None:
        self.bytes_left = bytes_left
        self.buffers: list[memoryview | bytes | Loose] = []
        self.careful = careful
        self.depth = 0
        self.exported: dict[int, tuple[object, Any]] = {}  # what can be asked only once
        self.inputs = inputs
        self.places = places
        self.threshold = threshold

    def walk(self, value: object) -> Any:
        """The value as something that msgspec writes as it is."""
        return (WRITERS.get(type(value)) or write_other[0])(self, value)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > NESTING_MAX:
            raise UnsendableError(f"the value is nested deeper than {NESTING_MAX} levels")

    def charge(self, nbytes: int) -> None:
        """So many bytes are about to be copied or converted. Raises TakesLongError."""
        if self.bytes_left is not None:
            self.bytes_left -= nbytes
            if self.bytes_left < 0:
                raise TakesLongError

    def has_room(self, count: int) -> bool:
        """Can so many buffers be put aside?"""
        return len(self.buffers) + count <= BUFFERS_MAX

    def data(self, data: memoryview | bytes | Loose) -> Any:
        """Bytes inside an ext: themselves when short, else the index of a buffer."""
        if len(data) < self.threshold or len(self.buffers) >= BUFFERS_MAX:
            return bytes(data) if type(data) is Loose else data
        self.buffers.append(data)
        return len(self.buffers) - 1


def _make(kind: type, content: Any) -> Any:
    return kind(content)


class Reader:
    """Turns one body and its buffers back into a value. `writes`: into one that can be written.

    `make`: makes bytes, or a bytearray, of a buffer. `bytes_left`: how many may still be copied, or looked at one by
    one, before it is given up; None: any number.
    """

    __slots__ = ("_decode", "buffers", "bytes_left", "make")

    writes = False

    def __init__(self, buffers: Sequence[Any], bytes_left: int | None = None) -> None:
        self.buffers = buffers
        self.bytes_left = bytes_left
        self.make: Make = _make
        self._decode = msgspec.msgpack.Decoder(ext_hook=self._hook).decode

    def charge(self, nbytes: int) -> None:
        """So many bytes are about to be copied or looked at. Raises TakesLongError."""
        if self.bytes_left is not None:
            self.bytes_left -= nbytes
            if self.bytes_left < 0:
                raise TakesLongError

    def read(self, data: Any) -> Any:
        return self._decode(data)

    def array(self, data: Any, *lengths: int) -> list[Any]:
        """A payload that must be an array of one of these lengths."""
        value = self._decode(data)
        if type(value) is not list or (lengths and len(value) not in lengths):
            malformed("an ext has another shape than its code says")
        return value

    def data(self, value: Any) -> bytes | memoryview:
        """What `Writer.data` wrote, as bytes or a read-only memoryview of bytes."""
        if type(value) is bytes:
            return value
        if type(value) is not int or not 0 <= value < len(self.buffers):
            malformed("a value names a buffer that did not come with it")
        buffer = self.buffers[value]
        if type(buffer) is Missing:
            raise SerializationError(buffer.why)
        return buffer if type(buffer) is bytes else memoryview(buffer).cast("B").toreadonly()

    def view(self, value: Any) -> Any:
        """The same as the memory of an array: whoever gets it may write it if this can be written."""
        return self.data(value)

    def close(self) -> None:
        """Break the cycle through the decoder, which would keep the buffers alive."""
        del self._decode

    def _hook(self, code: int, data: memoryview) -> Any:
        read = READERS.get(code)
        if read is None:
            malformed(f"unknown ext code {code}")
        return read(self, data)


Make: TypeAlias = Callable[[type, Any], Any]
WriteValue: TypeAlias = Callable[[Writer, Any], Any]
ReadValue: TypeAlias = Callable[[Reader, memoryview], Any]

WRITERS: Final[dict[type, WriteValue]] = {}
READERS: Final[dict[int, ReadValue]] = {}
write_other: Final[list[WriteValue]] = []  # one entry: what is asked about every other type


def malformed(message: str) -> NoReturn:
    raise ProtocolError(f"malformed value: {message}")


def integers(value: Any) -> tuple[int, ...]:
    """A list of ints ≥ 0, as a tuple; else malformed."""
    if type(value) is not list or not all(type(item) is int and item >= 0 for item in value):
        malformed("a list of sizes was expected")
    return tuple(value)
