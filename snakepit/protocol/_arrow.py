"""Arrow data: pyarrow, polars and pandas objects, as one Arrow IPC stream each, or by their layout.

polars and pandas objects are checked before they leave: a column whose type Arrow would
change is an error that names it. Needs pyarrow on both sides; nothing here imports it early.

The kinds: `table`, `batch`, `chunked` and `array` of pyarrow (the latter two as a table with one
column); `polars.DataFrame`, `polars.Series`; `pandas.DataFrame`, `pandas.Series`, `pandas.Index`,
whose extras are what Arrow does not keep: the name of a
Series (of polars too), the frequency of the index, the numbers of the columns of dtype object.
"""

from __future__ import annotations

import datetime as dt
import sys
from types import ModuleType, NoneType
from typing import Any, Final, cast

from snakepit.errors import SerializationError

from ._arrow_layout import LAYOUT_FIELDS, read_layout, write_layout
from ._ext import Reader, UnsendableError, Writer, malformed
from ._loose import Loose

COLUMN: Final = "value"
PANDAS_ITEM_BYTES: Final = 8
UNKNOWN_WORK: Final = 2**63  # of a query that runs when its rows are asked for, say
_OBJECT_TYPES: Final = (
    {str},
    {bytes},
    {int},
    {bool},
    {dt.date},
)  # what an object column may hold, with None


def speaks_arrow(value: object) -> bool:
    """True for what `export` takes."""
    kind = type(value)
    if hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__"):
        return True
    pandas = sys.modules.get("pandas")  # its Index speaks no Arrow protocol of its own
    return pandas is not None and isinstance(value, pandas.Index)


def work_of(value: Any) -> int:
    """How many bytes `export` converts; more than any limit if nobody knows before."""
    library = type(value).__module__.partition(".")[0]
    if library == "polars":
        return int(getattr(value, "estimated_size", int)())
    if library == "pandas":
        return int(value.size) * PANDAS_ITEM_BYTES
    # Asked of the type: to compute it takes milliseconds for a table of a thousand columns.
    return 0 if library == "pyarrow" and hasattr(type(value), "nbytes") else UNKNOWN_WORK


def export(value: Any) -> tuple[str, Any, list[Any]]:
    """Kind, table or batch, and extras."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    pa = _pyarrow(name)
    library = kind.__module__.partition(".")[0]
    try:
        if library == "polars":
            return _export_polars(value)
        if library == "pandas":
            return _export_pandas(pa, value)
        if isinstance(value, pa.RecordBatch):
            return "batch", value, []
        if isinstance(value, pa.Array):
            return "array", pa.record_batch([value], [COLUMN]), []
        if isinstance(value, pa.ChunkedArray):
            return "chunked", pa.table([value], [COLUMN]), []
        if isinstance(value, pa.Table):
            return "table", value, []
        if hasattr(value, "__arrow_c_stream__"):
            return _export_stream(pa, value)
        array = pa.array(value)
        return "array", pa.record_batch([array], [COLUMN]), []
    except UnsendableError:
        raise
    except Exception as error:  # whatever the library raises
        raise UnsendableError(
            f"{name} did not give its data by Arrow: {str(error)[:300]}"
        ) from error


def content(writer: Writer, data: Any) -> Any:
    """What stands for a table or batch: its layout where it lies in shared memory, else a stream."""
    pa = _pyarrow("pyarrow.Table")
    if writer.places is None:
        writer.charge(data.nbytes)
        return writer.data(_stream(pa, data))
    layout = write_layout(writer, writer.places, pa, data)
    if layout is None:
        return writer.data(_loose(pa, data))
    others = [number for number, column in enumerate(layout[2]) if column is None]
    if others:
        layout[3] = writer.data(_loose(pa, data.select(others)))
    return layout


def read(reader: Reader, data: memoryview) -> Any:
    kind, content, extras = reader.array(data, 3)
    if type(extras) is not list or type(kind) is not str:
        malformed("Arrow data of unknown form")
    try:
        import pyarrow as pa
    except ImportError:
        raise SerializationError(
            "Arrow data arrived; install pyarrow on the receiving side"
        ) from None
    table = _read_content(reader, pa, kind, content)
    if kind in ("batch", "table"):
        return table
    if kind in ("array", "chunked"):
        chunked = table.column(0)
        if (
            name := (table.schema.field(0).metadata or {}).get(b"ARROW:extension:name")
        ) is not None:
            raise SerializationError(
                f"Arrow data of the extension type {name.decode(errors='replace')!r} arrived; register it"
                " on the receiving side, or send its .storage"
            )
        if kind == "chunked":
            return chunked
        return chunked.chunk(0) if chunked.num_chunks else pa.array([], chunked.type)
    try:
        if kind.startswith("polars."):
            return _read_polars(kind, table, extras)
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how polars fails on data it cannot take
            raise
        malformed(f"polars refused it: {str(error)[:200]}")
    return _read_pandas(kind, table, extras)


def _work(pa: ModuleType, kind: str, table: Any) -> int:
    """How many bytes are looked at to check the data, or copied: of numbers none, unless pandas gets them."""
    if kind.startswith("pandas."):
        return int(table.nbytes)
    is_checked = [not pa.types.is_primitive(type_) for type_ in table.schema.types]
    return sum(table.column(i).nbytes for i, checked in enumerate(is_checked) if checked)


def _pyarrow(name: str) -> ModuleType:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise UnsendableError(f"{name} travels by Arrow; install pyarrow on both sides") from None
    return cast("ModuleType", pyarrow)


def _stream(pa: ModuleType, data: Any) -> memoryview:
    sink = pa.BufferOutputStream()
    _write(pa, sink, data)
    return memoryview(sink.getvalue())


def _loose(pa: ModuleType, data: Any) -> Loose:
    """The same, to be written straight to where it is wanted."""
    measured = pa.MockOutputStream()
    _write(pa, measured, data)
    size = measured.size()
    return Loose(
        size, lambda target: _write(pa, pa.FixedSizeBufferWriter(pa.py_buffer(target)), data)
    )


def _write(pa: ModuleType, sink: Any, data: Any) -> None:
    with pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write(data)


def _read_content(reader: Reader, pa: ModuleType, kind: str, content: Any) -> Any:
    """A batch, if it is of that kind, else a table; of sound data."""
    if type(content) is not list:
        # Batches are checked, not the table of them: of a thousand columns that takes a tenth of the time.
        schema, batches = _read_stream(reader, pa, kind, content)
        for batch in batches:
            _check(reader, pa, kind, batch)
        return batches[0] if kind == "batch" else pa.Table.from_batches(batches, schema)
    if len(content) != LAYOUT_FIELDS:
        malformed("an Arrow layout of unknown form")
    others = None
    if content[3] is not None:
        schema, batches = _read_stream(reader, pa, "table", content[3])
        others = pa.Table.from_batches(batches, schema)
    table = read_layout(reader, pa, content, others, kind)
    _check(reader, pa, kind, table)
    return table


def _read_stream(reader: Reader, pa: ModuleType, kind: str, content: Any) -> tuple[Any, list[Any]]:
    """Its schema and batches, the first alone if it is of that kind. Nothing of it has been checked."""
    with pa.ipc.open_stream(pa.py_buffer(reader.data(content))) as stream:
        schema = stream.schema
        _ = schema.names  # which raises where one is no UTF-8
        return schema, [stream.read_next_batch()] if kind == "batch" else list(stream)


def _check(reader: Reader, pa: ModuleType, kind: str, data: Any) -> None:
    """Raise ArrowInvalid if a buffer is not what its type says; TakesLongError, where that would take long."""
    if reader.bytes_left is not None:
        reader.charge(_work(pa, kind, data))
    data.validate(full=True)


def _export_stream(pa: ModuleType, value: Any) -> tuple[str, Any, list[Any]]:
    """A stream of structs is a table; of anything else, a chunked array."""
    try:
        return "table", pa.table(value), []
    except pa.ArrowException:
        chunked = pa.chunked_array(value)
        return "chunked", pa.table([chunked], [COLUMN]), []


def _export_polars(value: Any) -> tuple[str, Any, list[Any]]:
    polars = sys.modules["polars"]
    kind = type(value)
    if kind is polars.Series:
        frame, name, extras = value.alias(COLUMN).to_frame(), "polars.Series", [value.name]
    elif kind is polars.DataFrame:
        frame, name, extras = value, "polars.DataFrame", []
    else:
        raise UnsendableError(
            f"polars.{kind.__name__} cannot travel; send a DataFrame or Series of it"
        )
    table = frame.to_arrow()
    if (back := polars.from_arrow(table.slice(0, 0)).schema) != frame.schema:
        lost = [repr(name) for name, dtype in frame.schema.items() if back.get(name) != dtype]
        raise UnsendableError(f"Arrow would change the type of the polars column {', '.join(lost)}")
    return name, table, extras


def _read_polars(kind: str, table: Any, extras: list[Any]) -> Any:
    try:
        import polars
    except ImportError:
        raise SerializationError(
            f"a {kind} arrived; install polars on the receiving side"
        ) from None
    frame: Any = polars.from_arrow(table)
    if kind == "polars.Series":
        if len(extras) != 1 or type(extras[0]) is not str:
            malformed("a polars Series without a name")
        return frame.to_series(0).alias(extras[0])
    return frame if kind == "polars.DataFrame" else malformed("polars data of unknown kind")


def _export_pandas(pa: ModuleType, value: Any) -> tuple[str, Any, list[Any]]:
    pandas = sys.modules["pandas"]
    name = f"pandas.{type(value).__name__}"
    extras: list[Any] = []
    if type(value) is pandas.DataFrame:
        frame = value
    elif type(value) is pandas.Series:
        frame, extras = value.to_frame(COLUMN), [_label(value.name)]
    elif isinstance(value, pandas.Index) and type(value).__module__.partition(".")[0] == "pandas":
        frame, name = pandas.DataFrame(index=value), "pandas.Index"
    else:
        raise UnsendableError(
            f"{name}, a subclass, would lose its type; send a plain DataFrame or Series"
        )
    if frame.attrs:
        raise UnsendableError(
            "pandas attrs cannot travel; clear .attrs and send them beside the frame"
        )
    extras.append(getattr(frame.index, "freqstr", None) if _has_freq(pandas, frame.index) else None)
    extras.append([i for i, dtype in enumerate(frame.dtypes) if dtype.name == "object"])
    table = pa.Table.from_pandas(frame)
    _check_pandas(frame, table.slice(0, 0).to_pandas())
    return name, table, extras


def _has_freq(pandas: Any, index: Any) -> bool:
    return isinstance(index, (pandas.DatetimeIndex, pandas.TimedeltaIndex))


def _label(name: Any) -> Any:
    if name is None or type(name) in (str, int, float, bool):
        return name
    raise UnsendableError(
        f"a Series named {name!r} cannot travel; its name may be a str or a number"
    )


def _check_pandas(frame: Any, back: Any) -> None:
    """Raise UnsendableError unless labels and dtypes survive and object columns hold one type."""
    columns = frame.columns
    same = isinstance(back.columns, type(columns)) or len(columns) == 0
    if (
        not same
        or list(columns.names) != list(back.columns.names)
        or not columns.equals(back.columns)
    ):
        raise UnsendableError(
            "Arrow would change the column labels of this pandas object; use plain strs"
        )
    parts = [
        (f"column {label!r}", frame.iloc[:, i], back.iloc[:, i]) for i, label in enumerate(columns)
    ]
    for level in range(frame.index.nlevels):
        pair = (frame.index.get_level_values(level), back.index.get_level_values(level))
        if pair[0].name != pair[1].name:
            raise UnsendableError(f"Arrow would change the index name {pair[0].name!r}; use a str")
        parts.append(("the index", *pair))
    for label, column, returned in parts:
        objects = column.dtype == object
        if column.dtype != returned.dtype and not (objects and label != "the index"):
            raise UnsendableError(
                f"Arrow would change {label} from {column.dtype} to {returned.dtype}"
            )
        if objects:
            kinds = set(map(type, column)) - {NoneType}
            if kinds and kinds not in _OBJECT_TYPES:
                raise UnsendableError(
                    f"{label} is of dtype object and holds more than one of str, bytes, int, bool, date"
                )


def _read_pandas(kind: str, table: Any, extras: list[Any]) -> Any:
    if kind not in ("pandas.DataFrame", "pandas.Series", "pandas.Index"):
        malformed("Arrow data of unknown kind")
    try:
        import pandas
    except ImportError:
        raise SerializationError(
            f"a {kind} arrived; install pandas on the receiving side"
        ) from None
    frame = table.to_pandas()
    if len(extras) < 2 or type(extras[-1]) is not list:
        malformed("pandas data without its extras")
    *names, freq, objects = extras
    for i in objects:  # pandas would make str columns of them
        frame.isetitem(i, pandas.Series(table.column(i).to_pylist(), frame.index, dtype=object))
    if freq is not None:
        frame.index.freq = freq
    if kind == "pandas.DataFrame":
        return frame
    if kind == "pandas.Index":
        return frame.index
    if len(names) != 1:
        malformed("a pandas Series without a name")
    series = frame.iloc[:, 0]
    series.name = names[0]
    return series
