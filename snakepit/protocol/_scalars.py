"""Values without members: big ints, bytes, times and zones, UUID, Decimal, Enum members, paths, complex.

Each is written so that the same type with the same value can be made of it; nothing is
rounded, moved to another zone or printed as text for want of something better.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import importlib
import struct
import sys
import uuid
from typing import Any, Final, cast

from msgspec.msgpack import Ext

from snakepit.errors import SerializationError

from . import _ext as ext
from ._ext import Reader, UnsendableError, Writer, encode_plain, malformed

INT64_MIN: Final = -(2**63)
UINT64_END: Final = 2**64
INT_BYTES_MAX: Final = 2**27
ZONE_KEY_CHARS_MAX: Final = 255
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_COMPLEX: Final = struct.Struct(">dd")


def write_int(_: Writer, value: int) -> Any:
    if INT64_MIN <= value < UINT64_END:
        return value
    size = value.bit_length() // 8 + 1
    if size > INT_BYTES_MAX:
        raise UnsendableError(f"an int of {size} bytes is over the maximum of {INT_BYTES_MAX}")
    return Ext(ext.INT, value.to_bytes(size, "big", signed=True))


def read_int(_: Reader, data: memoryview) -> int:
    if not 0 < len(data) <= INT_BYTES_MAX:
        malformed("an int of impossible size")
    return int.from_bytes(data, "big", signed=True)


def write_bytes(writer: Writer, value: bytes) -> Any:
    if len(value) < writer.threshold:
        return value
    return Ext(ext.BYTES, encode_plain(writer.data(value)))


def write_bytearray(writer: Writer, value: bytearray) -> Any:
    data = value if len(value) < writer.threshold else writer.data(memoryview(value))
    return Ext(ext.BYTEARRAY, encode_plain(data))


def read_bytes(reader: Reader, data: memoryview) -> bytes:
    content = reader.data(reader.read(data))
    reader.charge(len(content))
    made: bytes = reader.make(bytes, content)
    return made


def read_bytearray(reader: Reader, data: memoryview) -> bytearray:
    content = reader.data(reader.read(data))
    reader.charge(len(content))
    made: bytearray = reader.make(bytearray, content)
    return made


def write_str(writer: Writer, value: str) -> Any:
    if not writer.careful or value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(ext.SURROGATES, value.encode("utf-8", "surrogatepass"))
    return value


def read_surrogates(_: Reader, data: memoryview) -> str:
    return str(data, "utf-8", "surrogatepass")


def _zone(zone: dt.tzinfo | None) -> Any:
    """The zone's ext; nil for None."""
    if zone is None:
        return None
    if type(zone) is dt.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return Ext(ext.ZONE, encode_plain([offset // _MICROSECOND, name[0] if name else None]))
    zoneinfo: Any = sys.modules.get("zoneinfo")
    if zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo:
        if (key := cast("Any", zone).key) is None:
            raise UnsendableError("a ZoneInfo without a key cannot travel; use ZoneInfo(key)")
        return Ext(ext.ZONE, encode_plain(key))
    raise UnsendableError(
        f"a zone of type {_name(type(zone))} cannot travel; use zoneinfo.ZoneInfo or datetime.timezone"
    )


def write_zone(_: Writer, value: dt.tzinfo) -> Any:
    return _zone(value)


def read_zone(reader: Reader, data: memoryview) -> dt.tzinfo:
    value = reader.read(data)
    if type(value) is str:
        return _zoneinfo(value)
    if type(value) is not list or len(value) != 2 or type(value[0]) is not int:
        malformed("a zone is a key, or an offset and a name")
    offset = dt.timedelta(microseconds=value[0])
    return dt.timezone(offset) if value[1] is None else dt.timezone(offset, value[1])


def _zoneinfo(key: str) -> dt.tzinfo:
    import zoneinfo

    if not 0 < len(key) <= ZONE_KEY_CHARS_MAX:
        malformed("a zone key of impossible length")
    try:
        return zoneinfo.ZoneInfo(key)
    except Exception as error:
        raise SerializationError(
            f"the receiving side knows no time zone {key!r}; install tzdata there"
        ) from error


def _tz(value: Any) -> dt.tzinfo | None:
    if value is not None and not isinstance(value, dt.tzinfo):
        malformed("a time has something else for a zone")
    return value


def write_datetime(_: Writer, value: dt.datetime) -> Any:
    v = value
    fields = [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold]
    return Ext(ext.DATETIME, encode_plain([*fields, _zone(v.tzinfo)]))


def read_datetime(reader: Reader, data: memoryview) -> dt.datetime:
    *fields, fold, zone = reader.array(data, 9)
    make: Any = dt.datetime
    return cast("dt.datetime", make(*fields, tzinfo=_tz(zone), fold=fold))


def write_time(_: Writer, value: dt.time) -> Any:
    fields = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    return Ext(ext.TIME, encode_plain([*fields, _zone(value.tzinfo)]))


def read_time(reader: Reader, data: memoryview) -> dt.time:
    *fields, fold, zone = reader.array(data, 6)
    make: Any = dt.time
    return cast("dt.time", make(*fields, tzinfo=_tz(zone), fold=fold))


def write_date(_: Writer, value: dt.date) -> Any:
    return Ext(ext.DATE, encode_plain([value.year, value.month, value.day]))


def read_date(reader: Reader, data: memoryview) -> dt.date:
    return dt.date(*reader.array(data, 3))


def write_timedelta(_: Writer, value: dt.timedelta) -> Any:
    return Ext(ext.TIMEDELTA, encode_plain([value.days, value.seconds, value.microseconds]))


def read_timedelta(reader: Reader, data: memoryview) -> dt.timedelta:
    fields = reader.array(data, 3)
    if not all(type(field) is int for field in fields):
        malformed("a timedelta has fields that are no ints")
    return dt.timedelta(*fields)


def write_uuid(_: Writer, value: uuid.UUID) -> Any:
    return Ext(ext.UUID, value.bytes)


def read_uuid(_: Reader, data: memoryview) -> uuid.UUID:
    return uuid.UUID(bytes=bytes(data))


def write_decimal(_: Writer, value: decimal.Decimal) -> Any:
    return Ext(ext.DECIMAL, str(value).encode())


def read_decimal(_: Reader, data: memoryview) -> decimal.Decimal:
    return decimal.Decimal(str(data, "ascii"))


def write_complex(_: Writer, value: complex) -> Any:
    return Ext(ext.COMPLEX, _COMPLEX.pack(value.real, value.imag))


def read_complex(_: Reader, data: memoryview) -> complex:
    return complex(*_COMPLEX.unpack(data))


def write_path(_: Writer, value: Any) -> Any:
    import pathlib

    flavour = ""
    if type(value) is pathlib.PurePosixPath:
        flavour = "posix"
    elif type(value) is pathlib.PureWindowsPath:
        flavour = "windows"
    text = str(value)
    return Ext(ext.PATH, encode_plain([flavour, Writer(0, careful=True).walk(text)]))


def read_path(reader: Reader, data: memoryview) -> Any:
    import pathlib

    flavour, text = reader.array(data, 2)
    if type(text) is not str or flavour not in ("", "posix", "windows"):
        malformed("a path is a flavour and a str")
    if flavour == "":
        return pathlib.Path(text)
    return (pathlib.PurePosixPath if flavour == "posix" else pathlib.PureWindowsPath)(text)


# What the host runs as __main__ a worker has imported as __mp_main__.
_MAIN_NAMES: Final = ("__mp_main__", "__main__")


def write_enum(writer: Writer, value: enum.Enum) -> Any:
    kind = type(value)
    module, qualname = kind.__module__, kind.__qualname__
    known = sys.modules.get(module)
    found: Any = known
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not kind:
        raise UnsendableError(
            f"the enum {_name(kind)} cannot be imported by its name; define it in a module"
        )
    if module in _MAIN_NAMES:
        module = "__main__"
    name: str | None = value._name_
    if name is not None and kind.__members__.get(name) is value:
        return Ext(ext.ENUM, encode_plain([module, qualname, name]))
    writer.deeper()
    fields = [module, qualname, None, writer.walk(value._value_)]
    writer.depth -= 1
    return Ext(ext.ENUM, encode_plain(fields))


def read_enum(reader: Reader, data: memoryview) -> enum.Enum:
    fields = reader.array(data, 3, 4)
    module, qualname, name = fields[:3]
    if type(module) is not str or type(qualname) is not str:
        malformed("an enum's class is named by two strs")
    kind = _enum_class(module, qualname)
    try:
        member = kind(fields[3]) if len(fields) == 4 else kind.__members__[name]
    except Exception as error:
        what = fields[3] if len(fields) == 4 else name
        raise SerializationError(
            f"{module}.{qualname} has no member {str(what)[:80]!r} on the receiving side"
        ) from error
    if not isinstance(member, kind):
        raise SerializationError(f"{module}.{qualname} did not give one of its members")
    return member


def _enum_class(module: str, qualname: str) -> type[enum.Enum]:
    names = _MAIN_NAMES if module in _MAIN_NAMES else (module,)
    reason: Exception | None = None
    for name in names:
        found: Any = sys.modules.get(name)
        if found is None and module not in _MAIN_NAMES:
            try:
                found = importlib.import_module(name)
            except Exception as error:  # whatever the module raises
                reason = error
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type) and issubclass(found, enum.Enum):
            return found
    raise SerializationError(
        f"the receiving side cannot import the enum {module}.{qualname}"
        f"{f' ({type(reason).__name__}: {str(reason)[:200]})' if reason is not None else ''}"
    ) from reason


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


ext.WRITERS.update(
    {
        int: write_int,
        str: write_str,
        bytes: write_bytes,
        bytearray: write_bytearray,
        complex: write_complex,
        dt.datetime: write_datetime,
        dt.date: write_date,
        dt.time: write_time,
        dt.timedelta: write_timedelta,
        dt.timezone: write_zone,
        uuid.UUID: write_uuid,
        decimal.Decimal: write_decimal,
    }
)
ext.READERS.update(
    {
        ext.INT: read_int,
        ext.BYTES: read_bytes,
        ext.BYTEARRAY: read_bytearray,
        ext.SURROGATES: read_surrogates,
        ext.DATETIME: read_datetime,
        ext.DATE: read_date,
        ext.TIME: read_time,
        ext.TIMEDELTA: read_timedelta,
        ext.ZONE: read_zone,
        ext.UUID: read_uuid,
        ext.DECIMAL: read_decimal,
        ext.COMPLEX: read_complex,
        ext.PATH: read_path,
        ext.ENUM: read_enum,
    }
)
