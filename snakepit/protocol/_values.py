"""Values ⇄ bytes: lossless or refused, without pickle.

`encode` walks a value once, by exact type, and gives one msgpack value (the body) plus the
large buffers, which stay where they are; `decode` is its inverse. A value arrives with the
same type and value, or `SerializationError` says where in it the trouble is; bytes that no
`encode` wrote raise `ProtocolError`. Nothing is allocated for a size that is only claimed.

Lists and dicts of plain scalars go to msgspec as they are; the codes of all else are in `_ext.py`.
Objects referred to twice arrive as two; an array must not be changed before it has been sent.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import sys
import uuid
from collections.abc import AsyncIterable, Callable, Sequence
from types import NoneType
from typing import Any, Final, TypeAlias, cast

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from snakepit.errors import ProtocolError, SerializationError, SnakepitError

from . import _arrays, _inputs, _scalars, _writable
from . import _ext as ext
from ._ext import (
    READERS,
    WRITERS,
    Make,
    Reader,
    TakesLongError,
    UnsendableError,
    Writer,
    encode_plain,
    key_segment,
)
from ._lists import FLOATS_MIN, LONG_MIN, pack_scalars
from ._loose import Loose, Places
from ._writable import Copy

BUFFER_BYTES_MIN: Final = 2**16

Data: TypeAlias = memoryview | bytes | Loose
_EMPTY_DICT: Final = Raw(b"\x80")
_STR: Final = {str}
_BYTES: Final = {bytes}
_FLAT: Final = frozenset({NoneType, bool, int, float, str})
_BUILTINS: Final = (
    int, float, complex, str, bytes, bytearray, memoryview, list, tuple, set, frozenset, dict,
    dt.datetime, dt.date, dt.time, dt.timedelta, dt.tzinfo, uuid.UUID, decimal.Decimal,
)  # fmt: skip


def encode(
    value: object,
    *,
    buffer_threshold: int = BUFFER_BYTES_MIN,
    inputs: list[AsyncIterable[Any]] | None = None,
    places: Places | None = None,
    work_max: int | None = None,
) -> tuple[Raw, tuple[Data, ...]]:
    """The value as one msgpack value and the buffers that it refers to by index.

    C- or F-contiguous arrays, memoryviews and byte strings of `buffer_threshold` bytes or more
    are not copied. Async iterables are put into `inputs`, if there is such a list, and the value
    refers to them by index. `places`: of a link that can share memory; then some of the buffers may
    be `Loose`, and parts of shared memory. Raises SerializationError, and TakesLongError, before anything has
    been asked that can be asked only once, if more than `work_max` bytes have to be copied or converted.
    """
    try:
        try:
            if type(value) in _FLAT:
                return Raw(encode_plain(value)), ()
            writer = Writer(buffer_threshold, inputs=inputs, places=places, bytes_left=work_max)
            return Raw(encode_plain(writer.walk(value))), tuple(writer.buffers)
        except (OverflowError, UnicodeEncodeError):
            if inputs:
                inputs.clear()
            careful = Writer(buffer_threshold, careful=True, inputs=inputs, places=places)
            careful.exported = writer.exported if type(value) not in _FLAT else {}
            return Raw(encode_plain(careful.walk(value))), tuple(careful.buffers)
    except UnsendableError as unsendable:
        raise unsendable.error() from unsendable.__cause__
    except RecursionError:
        raise SerializationError(
            "the value is nested too deep for the stack that is left"
        ) from None
    except (OverflowError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise SerializationError(f"the value cannot be written: {error}") from error


def encode_params(
    params: dict[str, Any], places: Places | None = None
) -> tuple[Raw, tuple[Data, ...]]:
    """`encode` for the arguments of a call; quick for none and for flat scalars."""
    return encode(params, places=places) if params else (_EMPTY_DICT, ())


def encode_arguments(
    params: dict[str, Any], places: Places | None = None, work_max: int | None = None
) -> tuple[Raw, tuple[Data, ...], Sequence[AsyncIterable[Any]]]:
    """`encode_params` where async iterables may be among the arguments: these come as the third."""
    if not params:
        return _EMPTY_DICT, (), ()
    inputs: list[AsyncIterable[Any]] = []
    body, buffers = encode(params, inputs=inputs, places=places, work_max=work_max)
    return body, buffers, inputs


def decode(
    body: Raw | bytes | bytearray | memoryview,
    buffers: Sequence[Any] = (),
    open_input: Callable[[int], Any] | None = None,
    *,
    copy: Copy | None = None,
    make: Make | None = None,
    work_max: int | None = None,
) -> Any:
    """The value that `encode` was given. Arrays and memoryviews are read-only views of the buffers.

    `open_input` gives what stands for the input of a number; without it there may be none. With
    `copy` they can be written: buffers that are no bytearrays of the receiver's own are copied by it.
    `make` makes bytes and bytearrays of theirs. Raises TakesLongError if more than `work_max` bytes of buffers
    would have to be copied or looked at one by one, ProtocolError for what is no value, SerializationError for a value that this
    interpreter cannot hold (a class or library that cannot be imported here).
    """
    reader: Reader
    if open_input is not None:
        reader = _inputs.InputReader(buffers, open_input)
    elif copy is not None:
        reader = _writable.WritableReader(buffers, copy, work_max)
    else:
        reader = Reader(buffers, work_max) if buffers else _BARE
    if make is not None and reader is not _BARE:
        reader.make = make
    try:
        return reader.read(body)
    except (SnakepitError, TakesLongError, MemoryError):
        raise
    except RecursionError:
        raise ProtocolError("malformed value: nested too deep") from None
    except Exception as error:
        raise ProtocolError(f"malformed value: {str(error)[:200]}") from error
    finally:
        if reader is not _BARE:
            reader.close()


_BARE: Final = Reader(())


def _write_as_is(_: Writer, value: object) -> Any:
    return value


def _members(writer: Writer, container: object, members: Any, mark: str = "") -> list[Any]:
    """Walk each member; `mark` stands for an index in `where` if there is none."""
    writer.deeper()
    out: list[Any] = []
    append, writers, other = out.append, WRITERS, _write_other
    try:
        for member in members:
            append(writers.get(type(member), other)(writer, member))
    except UnsendableError as unsendable:
        unsendable.passed(container, mark or f"[{len(out)}]")
        raise
    writer.depth -= 1
    return out


def _flat(writer: Writer, kinds: set[type]) -> bool:
    """True if msgspec writes members of these types as they are."""
    return kinds <= _FLAT and not writer.careful


def _write_list(writer: Writer, value: list[Any]) -> Any:
    count = len(value)
    if (
        count >= FLOATS_MIN
        and not writer.careful
        and (count >= LONG_MIN or type(value[0]) is float)
    ):
        packed = pack_scalars(value, _FLAT)
        if packed is not None:
            return packed
    if _flat(writer, kinds := set(map(type, value))):
        return value
    if kinds == _BYTES and max(map(len, value)) < writer.threshold:
        return value
    return _members(writer, value, value)


def _write_tuple(writer: Writer, value: tuple[Any, ...]) -> Any:
    flat = _flat(writer, set(map(type, value)))
    return Ext(ext.TUPLE, encode_plain(value if flat else _members(writer, value, value)))


def _write_set(writer: Writer, value: set[Any] | frozenset[Any]) -> Any:
    members: Any = list(value)
    if not _flat(writer, set(map(type, members))):
        members = _members(writer, value, members, "{…}")
    return Ext(ext.SET if type(value) is set else ext.FROZENSET, encode_plain(members))


def _write_dict(writer: Writer, value: dict[Any, Any]) -> Any:
    if not value:
        return value
    careful = writer.careful
    plain_keys = set(map(type, value)) == _STR
    if plain_keys and not careful and set(map(type, value.values())) <= _FLAT:
        return value
    writer.deeper()
    out: dict[str, Any] = {}
    flat: list[Any] = []
    writers, other = WRITERS, _write_other
    if plain_keys and careful:
        plain_keys = all(type(_scalars.write_str(writer, key)) is str for key in value)
    key: Any = None
    part = ""
    try:
        if plain_keys:
            for key, member in value.items():
                out[key] = writers.get(type(member), other)(writer, member)
        else:
            for key, member in value.items():
                part = " (the key)"
                flat.append(writer.walk(key))
                part = ""
                flat.append(writers.get(type(member), other)(writer, member))
    except UnsendableError as unsendable:
        unsendable.passed(value, key_segment(key) + part)
        raise
    writer.depth -= 1
    return out if plain_keys else Ext(ext.DICT, encode_plain(flat))


def _read_tuple(reader: Reader, data: memoryview) -> tuple[Any, ...]:
    return tuple(reader.array(data))


def _read_set(reader: Reader, data: memoryview) -> set[Any]:
    return set(reader.array(data))


def _read_frozenset(reader: Reader, data: memoryview) -> frozenset[Any]:
    return frozenset(reader.array(data))


def _read_dict(reader: Reader, data: memoryview) -> dict[Any, Any]:
    flat = reader.array(data)
    if len(flat) % 2:
        ext.malformed("a dict has a key without a value")
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _write_other(writer: Writer, value: Any) -> Any:
    """A value whose exact type is in no table."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return _scalars.write_enum(writer, value)
    if _arrays.is_numpy(value):
        return _arrays.write_numpy(writer, value)
    if (zoneinfo := sys.modules.get("zoneinfo")) is not None and kind is zoneinfo.ZoneInfo:
        return _scalars.write_zone(writer, value)
    if isinstance(value, _BUILTINS):
        raise UnsendableError(_subclass_advice(kind))
    if _inputs.is_input(kind):
        return _inputs.write_input(writer, value)
    if (pathlib := sys.modules.get("pathlib")) is not None and isinstance(value, pathlib.PurePath):
        flavours = (
            pathlib.PosixPath,
            pathlib.WindowsPath,
            pathlib.PurePosixPath,
            pathlib.PureWindowsPath,
        )
        if kind not in flavours:
            raise UnsendableError(
                f"a subclass of Path, {_name(kind)}, would lose its type; send pathlib.Path"
            )
        return _scalars.write_path(writer, value)
    fields = _fields(kind)
    if fields is not None:
        return _write_record(writer, value, fields)
    written = _arrays.write_exporter(writer, value)
    if written is not None:
        return written
    raise UnsendableError(f"a value of type {_name(kind)} cannot travel{_advice(value)}")


def _fields(kind: type) -> tuple[str, ...] | None:
    """The names of the fields of an attrs class, dataclass or msgspec Struct; None for others."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        return tuple(attribute.name for attribute in attributes)
    if any("__dataclass_fields__" in vars(base) for base in kind.__mro__):
        import dataclasses

        return tuple(field.name for field in dataclasses.fields(cast("Any", kind)))
    return None


def _write_record(writer: Writer, value: object, fields: tuple[str, ...]) -> dict[str, Any]:
    writer.deeper()
    out: dict[str, Any] = {}
    name = ""
    try:
        for name in fields:
            try:
                member = getattr(value, name)
            except AttributeError:
                raise UnsendableError(
                    f"the field has no value in this {_name(type(value))}"
                ) from None
            out[name] = writer.walk(member)
    except UnsendableError as unsendable:
        unsendable.passed(value, f".{name}")
        raise
    writer.depth -= 1
    return out


def _name(kind: type) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name.removeprefix("builtins.")


def _subclass_advice(kind: type) -> str:
    base = next(base for base in kind.__mro__ if base in _BUILTINS)
    if base is tuple and hasattr(kind, "_asdict"):
        advice = "call ._asdict(), or tuple() on it"
    elif kind.__module__.startswith("pandas") and base is dt.datetime:
        advice = "call .to_pydatetime(), or send a Series"
    elif base is dt.tzinfo:
        advice = "use zoneinfo.ZoneInfo or datetime.timezone"
    else:
        advice = f"convert it to {base.__name__} if nothing else of it is needed"
    return f"{_name(kind)}, a subclass of {base.__name__}, would lose its type; {advice}"


def _advice(value: object) -> str:
    if hasattr(value, "__next__"):
        return _inputs.ITERATOR_ADVICE
    if callable(value):
        return "; functions and classes stay in their process"
    return "; send its parts: builtins, dataclass, attrs, msgspec.Struct, or NumPy and Arrow data"


for _kind in _FLAT - {int, str}:
    WRITERS[_kind] = _write_as_is
WRITERS.update(
    {
        list: _write_list,
        tuple: _write_tuple,
        set: _write_set,
        frozenset: _write_set,
        dict: _write_dict,
    }
)
READERS.update(
    {
        ext.TUPLE: _read_tuple,
        ext.SET: _read_set,
        ext.FROZENSET: _read_frozenset,
        ext.DICT: _read_dict,
    }
)
ext.write_other.append(_write_other)
