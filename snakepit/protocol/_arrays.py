"""Arrays: memoryviews, NumPy arrays and scalars, DLPack tensors.

NumPy is never imported for the sake of a value that is no array: types are recognised by
looking at `sys.modules`. Contiguous data is referred to, not copied; what arrives is a
read-only view of the buffer it came in. Sizes are checked before NumPy hears of them.
"""

from __future__ import annotations

import math
import re
import sys
from types import ModuleType
from typing import Any, Final, cast

from msgspec.msgpack import Ext

from snakepit.errors import SerializationError

from . import _arrow
from . import _ext as ext
from ._ext import Reader, UnsendableError, Writer, encode_plain, integers, malformed
from ._loose import Loose, Places

DIMENSIONS_MAX: Final = 64
SPARSE_MAX: Final = 16  # of what is named of shared memory, so many bytes for each that is meant
# Not compiled here, which each worker would pay for at its start; `re` keeps what it has compiled.
_FORMAT: Final = r"@?[bBcChHiIlLqQnNfdeP?]"
_DTYPE: Final = r"[<>|=]?[A-Za-z?][0-9]{0,9}(\[[0-9A-Za-z/]{1,20}\])?"
_DLPACK_CPU: Final = (1, 3, 11)  # and the CPU's memory that is pinned for CUDA or ROCm
_DLPACK_DEVICES: Final = {
    2: "a CUDA",
    7: "a Vulkan",
    8: "a Metal",
    10: "a ROCm",
    13: "a CUDA",
    14: "a oneAPI",
}
_TO_CPU: Final = {"torch": ".cpu()", "cupy": ".get()", "jax": "jax.device_get()"}


def write_memoryview(writer: Writer, value: memoryview) -> Any:
    if not re.fullmatch(_FORMAT, value.format):
        raise UnsendableError(
            f"a memoryview of format {value.format!r} cannot travel; send the array itself"
        )
    if value.nbytes == 0:
        if value.ndim != 1:
            raise UnsendableError(
                "an empty memoryview of several dimensions cannot travel; send the array itself"
            )
        data: bytes | memoryview = b""
    elif value.c_contiguous:
        data = value.cast("B")
    else:
        writer.charge(value.nbytes)
        data = value.tobytes()
    return Ext(ext.MEMORYVIEW, encode_plain([value.format, value.shape, writer.data(data)]))


def read_memoryview(reader: Reader, data: memoryview) -> memoryview:
    format_, sizes, content = reader.array(data, 3)
    if type(format_) is not str or not re.fullmatch(_FORMAT, format_):
        malformed("a memoryview of unknown format")
    shape = integers(sizes)
    view: Any = memoryview(reader.view(content))  # typeshed knows neither format nor shape
    if len(shape) == 1:
        view = view.cast(format_)
        if view.shape != shape:
            malformed("a memoryview's shape and size differ")
        return cast("memoryview", view)
    if len(shape) > DIMENSIONS_MAX or not all(shape):
        malformed("a memoryview of impossible shape")
    return cast("memoryview", view.cast(format_, shape))


def is_numpy(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def write_numpy(writer: Writer, value: Any) -> Any:
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.generic):
        return _write_scalar(numpy, value)
    return Ext(ext.NDARRAY, encode_plain(_array_fields(writer, numpy, value)))


def _array_fields(writer: Writer, numpy: ModuleType, array: Any) -> list[Any]:
    kind = type(array)
    if kind is not numpy.ndarray:
        if kind is not numpy.memmap:
            masked = kind.__module__.startswith("numpy.ma")
            raise UnsendableError(
                f"{kind.__module__}.{kind.__qualname__}, a subclass of numpy.ndarray, would lose its"
                f" type; send {'its .data and .mask' if masked else 'numpy.asarray() of it'}"
            )
        array = array.view(numpy.ndarray)
    dtype = _write_dtype(numpy, array.dtype)
    flags, order = array.flags, "C"
    flat = array
    if not flags.c_contiguous:
        if flags.f_contiguous:
            order, flat = "F", array.T
        else:
            if writer.places is not None and array.nbytes >= writer.threshold:
                where = _in_place(writer, writer.places, array)
                return [dtype, array.shape, *(where or ("C", writer.data(_loose(numpy, array))))]
            writer.charge(array.nbytes)
            flat = numpy.ascontiguousarray(array)
    # As bytes by way of uint8, because datetime64 and others offer no buffer.
    data = b"" if array.nbytes == 0 else flat.reshape(-1).view(numpy.uint8).data
    return [dtype, array.shape, order, writer.data(data)]


def _loose(numpy: ModuleType, array: Any) -> Loose:
    """An array that is not contiguous, to be copied straight to where it is wanted.

    Raises MemoryError: there is none for so much, as what is broadcast may pretend to be.
    """
    numpy.empty(array.nbytes, numpy.uint8)  # asked now, where it costs the caller alone

    def write(target: memoryview) -> None:
        numpy.copyto(numpy.ndarray(array.shape, array.dtype, target), array)

    return Loose(array.nbytes, write)


def _in_place(writer: Writer, places: Places, array: Any) -> tuple[list[int], int] | None:
    """An array that is not contiguous and lies in shared memory: how, and the part that it is of."""
    steps = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    before = -sum(step for step in steps if step < 0)
    span = before + sum(step for step in steps if step > 0) + array.itemsize
    if not writer.threshold <= span <= SPARSE_MAX * array.nbytes or not writer.has_room(1):
        return None
    start = array.ctypes.data - before
    if places.place_of(start, span) is None:
        return None
    return [before, *array.strides], writer.data(places.view(start, span, array))


def _read_array(reader: Reader, data: memoryview) -> Any:
    fields = reader.array(data, 4)
    numpy = _numpy()
    dtype = _read_dtype(numpy, fields[0])
    if type(fields[2]) is list:
        return _read_strided(reader, numpy, dtype, fields)
    shape, order, content = integers(fields[1]), fields[2], reader.view(fields[3])
    if len(shape) > DIMENSIONS_MAX or order not in ("C", "F"):
        malformed("an array of impossible shape or order")
    if math.prod(shape) * dtype.itemsize != len(content):
        malformed("an array's shape and size differ")
    return numpy.ndarray(shape, dtype, content, order=order)


def _read_strided(reader: Reader, numpy: ModuleType, dtype: Any, fields: list[Any]) -> Any:
    shape, content, strides = integers(fields[1]), reader.data(fields[3]), fields[2]
    if len(shape) > DIMENSIONS_MAX or len(strides) != len(shape) + 1 or not all(shape):
        malformed("an array of impossible shape or strides")
    if not all(type(number) is int and abs(number) < 2**62 for number in strides):
        malformed("an array of impossible shape or strides")
    # NumPy itself refuses what would reach out of the buffer.
    array = numpy.ndarray(shape, dtype, content, strides[0], tuple(strides[1:]))
    if not reader.writes:
        return array
    reader.charge(array.nbytes)
    return array.copy()


def _write_scalar(numpy: ModuleType, value: Any) -> Any:
    if type(value) not in numpy.dtype(type(value)).type.__mro__[:1]:
        raise UnsendableError(
            f"{type(value).__qualname__}, a subclass of a NumPy scalar, would lose its type"
        )
    if isinstance(value, numpy.str_):
        return Ext(ext.SCALAR, encode_plain(["<U", Writer(0, careful=True).walk(str(value))]))
    if isinstance(value, numpy.bytes_):
        return Ext(ext.SCALAR, encode_plain(["|S", bytes(value)]))
    return Ext(ext.SCALAR, encode_plain([_write_dtype(numpy, value.dtype), value.tobytes()]))


def _read_scalar(reader: Reader, data: memoryview) -> Any:
    kind, content = reader.array(data, 2)
    numpy = _numpy()
    if kind == "<U" and type(content) is str:
        return numpy.str_(content)
    if kind == "|S" and type(content) is bytes:
        return numpy.bytes_(content)
    dtype = _read_dtype(numpy, kind)
    if type(content) is not bytes or len(content) != dtype.itemsize:
        malformed("a scalar's dtype and size differ")
    # A void scalar is a view of its array, hence the array of its own.
    return numpy.ndarray((), dtype, bytearray(content))[()]


def _write_dtype(numpy: ModuleType, dtype: Any) -> Any:
    """The dtype as data; UnsendableError where it would not come back the same."""
    if dtype.hasobject:
        raise UnsendableError(
            f"an array of dtype {dtype} holds references; convert it, or send .tolist()"
        )
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["sub", _write_dtype(numpy, base), list(shape)]
    if dtype.type is numpy.void and dtype.names is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        titles = [field[2] if len(field) > 2 else None for field in fields]
        if not all(title is None or type(title) is str for title in titles):
            raise UnsendableError(f"the titles of dtype {dtype} are not strs")
        formats = [_write_dtype(numpy, field[0]) for field in fields]
        offsets = [field[1] for field in fields]
        aligned = bool(dtype.isalignedstruct)
        return ["struct", list(dtype.names), formats, offsets, titles, dtype.itemsize, aligned]
    # The str names size and order; the char tells apart C types of one size (long, long long).
    for name in (dtype.str, (dtype.byteorder + dtype.char).removeprefix("=")):
        try:
            known = numpy.dtype(name)
        except TypeError:
            continue
        if known == dtype and known.type is dtype.type:
            return name
    raise UnsendableError(
        f"an array of dtype {dtype!r} cannot travel; convert it to a dtype of NumPy's own"
    )


def _read_dtype(numpy: ModuleType, value: Any) -> Any:
    if type(value) is str:
        if not re.fullmatch(_DTYPE, value):
            malformed("a dtype of unknown form")
        dtype = numpy.dtype(value)
    elif type(value) is list and len(value) == 3 and value[0] == "sub":
        dtype = numpy.dtype((_read_dtype(numpy, value[1]), integers(value[2])))
    elif type(value) is list and len(value) == 7 and value[0] == "struct":
        dtype = _read_struct(numpy, *value[1:])
    else:
        malformed("a dtype of unknown form")
    if dtype.hasobject:
        malformed("a dtype that holds references")
    return dtype


def _read_struct(
    numpy: ModuleType,
    names: Any,
    formats: Any,
    offsets: Any,
    titles: Any,
    itemsize: Any,
    aligned: Any,
) -> Any:
    lists = (names, formats, offsets, titles)
    if not all(type(part) is list and len(part) == len(names) for part in lists):
        malformed("a structured dtype whose fields do not match")
    if type(itemsize) is not int or not all(type(name) is str for name in names):
        malformed("a structured dtype of unknown form")
    description = {
        "names": names,
        "formats": [_read_dtype(numpy, format_) for format_ in formats],
        "offsets": list(integers(offsets)),
        "itemsize": itemsize,
    }
    if any(title is not None for title in titles):
        description["titles"] = titles
    return numpy.dtype(description, align=aligned is True)


def write_exporter(writer: Writer, value: Any) -> Any:
    """An object of a library that speaks the Arrow or DLPack protocol; None for any other."""
    kind = type(value)
    known = writer.exported.get(id(value))
    if known is not None:
        fields = known[1]
    elif _arrow.speaks_arrow(value):
        if writer.bytes_left is not None:
            writer.charge(_arrow.work_of(value))
        fields = (ext.ARROW, *_arrow.export(value))
    elif hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__"):
        fields = (ext.TENSOR if _is_torch(kind) else ext.NDARRAY, _tensor_as_array(value))
    else:
        return None
    writer.exported[id(value)] = (value, fields)
    if fields[0] == ext.ARROW:
        _, name, data, extras = fields
        return Ext(ext.ARROW, encode_plain([name, _arrow.content(writer, data), extras]))
    return Ext(fields[0], encode_plain(_array_fields(writer, sys.modules["numpy"], fields[1])))


def _is_torch(kind: type) -> bool:
    return kind.__module__ == "torch" and kind.__name__ == "Tensor"


def _tensor_as_array(value: Any) -> Any:
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        import numpy
    except ImportError:
        raise UnsendableError(
            f"a tensor, {name}, travels only with NumPy; install numpy on this side"
        ) from None
    try:
        if (device := int(value.__dlpack_device__()[0])) not in _DLPACK_CPU:
            raise UnsendableError(_elsewhere(name, device))
        return numpy.from_dlpack(value)
    except UnsendableError:
        raise
    except Exception as error:  # whatever the other library raises
        raise UnsendableError(
            f"{name} did not give its data by DLPack: {str(error)[:200]}"
        ) from error


def _elsewhere(name: str, device: int) -> str:
    """What to do with a tensor that this process cannot even read."""
    where = f"{_DLPACK_DEVICES[device]} device" if device in _DLPACK_DEVICES else "another device"
    copy = _TO_CPU.get(
        name.partition(".")[0].removesuffix("lib"), "a copy in the memory of the CPU"
    )
    return f"{name} is in the memory of {where}; only the CPU's can travel: send {copy} of it"


def _read_tensor(reader: Reader, data: memoryview) -> Any:
    array = _read_array(reader, data)
    reader.charge(array.nbytes)
    try:
        import torch  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise SerializationError(
            "a torch.Tensor arrived; install torch on the receiving side"
        ) from None
    # torch has no read-only tensors
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _numpy() -> ModuleType:
    try:
        import numpy
    except ImportError:
        raise SerializationError(
            "a NumPy array arrived; install numpy on the receiving side"
        ) from None
    return numpy


ext.WRITERS[memoryview] = write_memoryview
ext.READERS.update(
    {
        ext.MEMORYVIEW: read_memoryview,
        ext.NDARRAY: _read_array,
        ext.SCALAR: _read_scalar,
        ext.TENSOR: _read_tensor,
        ext.ARROW: _arrow.read,
    }
)
