"""Arrow tables that lie in shared memory: which part of it each of their buffers is.

A table that came in shared memory, a slice of it, a selection of its columns, one made of such: none
of its bytes is touched. In place of an IPC stream stands

    [schema, [[buffer, start], ...], columns, stream of the other columns or nil]

`schema` is an IPC schema message. Each `buffer` is the index of one, a part of shared memory that begins
at `start`. A column is nil (the next of the other columns), or an array of its chunks; a chunk is
`[length, offset, parts, child]`, where a part is nil or `[which of the buffers, start, size]`, and the
child is a chunk, of the values of a list or a dictionary, or nil.
Structs, maps, unions and views, at whatever depth, go into the stream.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final, TypeAlias

from ._ext import Reader, Writer, malformed
from ._loose import Place, Places

LAYOUT_FIELDS: Final = 4
COLUMNS_ASKED: Final = (
    16  # of a table, whether they lie in shared memory; if none does, it is written
)
_EMPTY: Final = [-1, 0, 0]

Chunk: TypeAlias = list[Any]


class _NotThereError(Exception):
    """A buffer that lies elsewhere, or a type that is not laid out."""


class _Span:
    """What is named of one place: from the first byte to the last."""

    __slots__ = ("base", "end", "number", "place", "start")

    def __init__(self, number: int, place: Place, base: int) -> None:
        self.number, self.place, self.base = number, place, base
        self.start, self.end = place.end, place.offset

    def covers(self, start: int, size: int) -> bool:
        return self.place.offset <= start and start + size <= self.place.end


class _Kinds:
    """How arrays of each type are laid out, asked once for each: it is asked for every column."""

    def __init__(self, pa: ModuleType) -> None:
        self._pa = pa
        self._known: dict[int, str] = {}

    def of(self, kind: Any) -> str:
        """One of "flat", "list", "fixed", "dictionary", "extension", and "other" for what goes into the stream."""
        number: int = kind.id
        known = self._known.get(number)
        if known is None:
            known = self._known[number] = self._found(kind)
        return known

    def _found(self, kind: Any) -> str:
        types = self._pa.types
        if types.is_dictionary(kind):
            return "dictionary"
        if types.is_list(kind) or types.is_large_list(kind):
            return "list"
        if types.is_fixed_size_list(kind):
            return "fixed"
        if isinstance(kind, self._pa.BaseExtensionType):
            return "extension"
        if kind.num_fields or types.is_null(kind):
            return "other"
        return "other" if str(kind).endswith("_view") else "flat"


class _Survey:
    """Where the buffers of one table lie."""

    def __init__(self, pa: ModuleType, places: Places) -> None:
        self._places = places
        self._kinds = _Kinds(pa)
        self._in_chunks = pa.ChunkedArray
        self._last: _Span | None = None
        self.spans: list[_Span] = []
        self.nbytes = 0

    def knows_any(self, data: Any) -> bool:
        """Does any column lie here? Of a wide table not all are asked."""
        step = data.num_columns // COLUMNS_ASKED + 1
        return any(
            buffer is not None and self._places.place_of(buffer.address, buffer.size)
            for number in range(0, data.num_columns, step)
            for chunk in self._chunks(data.column(number))[:1]
            for buffer in chunk.buffers()
        )

    def column(self, column: Any) -> list[Chunk] | None:
        """Its chunks; None if it is not all here."""
        try:
            return [self._chunk(chunk) for chunk in self._chunks(column)]
        except _NotThereError:
            return None

    def _chunks(self, column: Any) -> list[Any]:
        return column.chunks if isinstance(column, self._in_chunks) else [column]

    def _chunk(self, array: Any) -> Chunk:
        kind = self._kinds.of(array.type)
        under: Chunk | None = None
        if kind == "extension":
            return self._chunk(array.storage)
        if kind == "flat":
            buffers = array.buffers()
        elif kind == "other":
            raise _NotThereError
        else:
            under = self._chunk(array.dictionary if kind == "dictionary" else array.values)
            buffers = array.buffers()[: array.type.num_buffers]
        parts = [None if buffer is None else self._part(buffer) for buffer in buffers]
        return [len(array), array.offset, parts, under]

    def _part(self, buffer: Any) -> list[int]:
        address, size = buffer.address, buffer.size
        span = self._last  # where the last one was, the next one mostly is
        if span is None or not span.covers(address - span.base, size):
            if not size:
                return _EMPTY
            place = self._places.place_of(address, size)
            if place is None:
                raise _NotThereError
            span = self._last = self._span(place)
        start: int = address - span.base
        span.start, span.end = min(span.start, start), max(span.end, start + size)
        self.nbytes += size
        return [span.number, start, size]

    def _span(self, place: Place) -> _Span:
        for span in self.spans:
            if span.place is place:
                return span
        self.spans.append(_Span(len(self.spans), place, self._places.address_in(place)))
        return self.spans[-1]


def write_layout(writer: Writer, places: Places, pa: ModuleType, data: Any) -> list[Any] | None:
    """The layout of a table or batch, the stream of what is not in it left out; None: it has none."""
    survey = _Survey(pa, places)
    if not survey.knows_any(data):
        return None
    columns = [survey.column(column) for column in data.columns]
    if survey.nbytes < writer.threshold or not writer.has_room(len(survey.spans) + 1):
        return None
    spans = [
        [writer.data(places.view(span.base + span.start, span.end - span.start, data)), span.start]
        for span in survey.spans
        if span.end > span.start
    ]
    if len(spans) < len(survey.spans) or any(type(index) is not int for index, _ in spans):
        return None
    return [bytes(data.schema.serialize()), spans, columns, None]


def read_layout(reader: Reader, pa: ModuleType, fields: list[Any], others: Any, kind: str) -> Any:
    """The table, or the batch if it is of that kind. `others`: the columns that came as a stream.

    Whatever is raised here says that the layout is malformed.
    """
    schema_bytes, spans, columns, _ = fields
    schema = pa.ipc.read_schema(pa.py_buffer(schema_bytes))
    layout = _Layout(pa, [(pa.py_buffer(reader.data(index)), start) for index, start in spans])
    left = iter(() if others is None else others.columns)
    made: list[Any] = []
    for type_, chunks in zip(schema.types, columns, strict=True):
        if chunks is None:
            column = next(left, None)
            if column is None or column.type != type_:
                malformed("an Arrow layout without one of its columns")
        else:
            arrays = [layout.chunk(type_, *chunk) for chunk in chunks]
            column = arrays[0] if len(arrays) == 1 else pa.chunked_array(arrays, type_)
        if kind == "batch" and isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        made.append(column)
    maker = pa.RecordBatch if kind == "batch" else pa.Table
    return maker.from_arrays(made, schema=schema)


class _Layout:
    """Makes arrays of parts of memory. `memory`: Arrow buffers, and where in their segments they begin."""

    def __init__(self, pa: ModuleType, memory: list[tuple[Any, int]]) -> None:
        self._kinds = _Kinds(pa)
        self._from_buffers = pa.Array.from_buffers
        self._dictionary_from_buffers = pa.DictionaryArray.from_buffers
        self._empty = pa.py_buffer(b"")
        self._memory = memory

    def chunk(self, type_: Any, length: int, offset: int, parts: list[Any], under: Any) -> Any:
        kind = self._kinds.of(type_)
        if (
            kind == "extension"
        ):  # which the other side may know as no more than what it is stored as
            return type_.wrap_array(self.chunk(type_.storage_type, length, offset, parts, under))
        if length < 0 or offset < 0 or kind == "other":
            malformed("an Arrow layout of what is not laid out")
        buffers = [None if part is None else self._part(*part) for part in parts]
        if kind == "flat":
            return self._from_buffers(type_, length, buffers, -1, offset)
        child = self.chunk(type_.value_type, *under)
        if kind == "fixed" and (offset + length) * type_.list_size > len(child):
            malformed(
                "an Arrow layout of more lists than it has values for"
            )  # or Arrow would abort
        if kind != "dictionary":
            return self._from_buffers(type_, length, buffers, -1, offset, [child])
        return self._dictionary_from_buffers(type_, length, buffers, child, -1, offset)

    def _part(self, number: int, start: int, size: int) -> Any:
        if number < 0:
            return self._empty
        buffer, base = self._memory[number]
        if size < 0 or start < base or start + size > base + buffer.size:
            malformed("an Arrow layout names memory that is not there")
        return buffer.slice(start - base, size)
