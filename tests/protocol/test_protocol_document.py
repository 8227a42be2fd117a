"""docs/protocol.md says what the code does: messages, codes, limits, and its examples."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import pathlib
import re
import typing
import uuid
import zoneinfo
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from msgspec import Raw

from snakepit import protocol as p
from snakepit.pool import _call, _host_calls, _seat, _sessions, _stream, _tools
from snakepit.process import _stderr
from snakepit.protocol import _arrays, _exceptions, _ext, _framing, _parts, _scalars, _values
from snakepit.protocol._ext import READERS
from snakepit.worker import _progress

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
TO_WORKER, TO_HOST = (set(typing.get_args(union)) for union in (p.ToWorker, p.ToHost))
MESSAGES = sorted(TO_WORKER | TO_HOST, key=lambda kind: kind.__struct_config__.tag)
RECORDS: list[type[msgspec.Struct]] = [p.ToolInfo, p.ErrorData]

# What the document calls the type of a field.
TYPES = {
    str: "str", int: "int", bool: "bool", float: "number", Raw: "value", Any: "value",
    int | float: "number", int | float | None: "number/nil",
    p.Buffers: "[int]", str | None: "str/nil", float | None: "number/nil", int | None: "int/nil",
    tuple[int, ...]: "[int]", tuple[str, ...]: "[str]", tuple[p.ToolInfo, ...]: "[ToolInfo]",
    memoryview | None: "bin/nil", p.ErrorData: "ErrorData", p.ErrorData | None: "ErrorData/nil",
}  # fmt: skip


@cache
def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under the line of that beginning, without its head."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text(), re.MULTILINE)
    assert table is not None, heading
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in table[1].splitlines()]


def shown_default(default: object) -> str:
    if isinstance(default, Raw):
        default = msgspec.msgpack.decode(default)
    if isinstance(default, tuple):
        default = list(default)
    return f'"{default}"' if isinstance(default, str) else msgspec.json.encode(default).decode()


def shown_fields(kind: type[msgspec.Struct]) -> str:
    """The fields as the document must show them: names in order, types and defaults."""
    shown = []
    for field in msgspec.structs.fields(kind):
        line = f"`{field.name}` {TYPES[field.type]}"
        if field.default is not msgspec.NODEFAULT:
            default = shown_default(field.default).replace("null", "nil")
            line += f" = {default}"
        shown.append(line)
    return ", ".join(shown)


def test_every_message_is_shown_with_tag_direction_and_fields() -> None:
    wanted = []
    for kind in MESSAGES:
        direction = "to worker" if kind in TO_WORKER else "to host"
        if kind in TO_WORKER & TO_HOST:
            direction = "both ways"
        tag = str(kind.__struct_config__.tag)
        wanted.append([tag, kind.__name__, direction, shown_fields(kind)])
    assert [row[:4] for row in rows("tag")] == wanted
    assert all(row[4] for row in rows("tag"))


def test_every_record_is_shown_with_its_fields() -> None:
    assert rows("record") == [[kind.__name__, shown_fields(kind)] for kind in RECORDS]


def test_the_version_and_the_ranges_of_tags_are_shown() -> None:
    assert f"Version **{p.PROTOCOL_VERSION}**." in text()
    ranges = {1: TO_WORKER - TO_HOST, 16: TO_WORKER & TO_HOST, 32: TO_HOST - TO_WORKER}
    for start, kinds in ranges.items():
        end = {1: 16, 16: 32, 32: 64}[start]
        assert all(start <= kind.__struct_config__.tag < end for kind in kinds)
    assert "Tags 1 to 15 go to the worker, 16 to 31 both ways, 32 to 63 to the host." in text()


def test_every_kind_of_failure_is_shown() -> None:
    from snakepit.worker._execution import _KINDS

    kinds = {kind for _, kind in _KINDS} | {"tool", "start"}
    assert {row[0].strip('"') for row in rows("kind")} == kinds


# -- values -----------------------------------------------------------------------------------


class Right(enum.Flag):
    READ = 1
    WRITE = 2


LARGE = b"b" * p.BUFFER_BYTES_MIN
ZONE = [12, "Europe/Berlin"]
# For each code: a value, and its payload as the document describes it, extensions as [code, …].
SAMPLES: dict[int, list[tuple[Any, Any]]] = {
    1: [(2**64, b"\x01" + bytes(8)), (-(2**63) - 1, b"\xff\x7f" + b"\xff" * 7)],
    2: [("a\ud800", b"a\xed\xa0\x80")],
    3: [(bytearray(b"x"), b"x"), (bytearray(LARGE), 0)],
    4: [((1, (2,)), [1, [4, [2]]])],
    5: [({1}, [1])],
    6: [(frozenset({1}), [1])],
    7: [({1: "a", "b": 2}, [1, "a", "b", 2])],
    8: [
        (dt.datetime(2024, 2, 29, 1, 2, 3, 4, fold=1), [2024, 2, 29, 1, 2, 3, 4, 1, None]),
        (
            dt.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
            [2024, 1, 1, 0, 0, 0, 0, 0, ZONE],
        ),
    ],
    9: [(dt.date(2024, 2, 29), [2024, 2, 29])],
    10: [(dt.time(1, 2, 3, 4), [1, 2, 3, 4, 0, None])],
    11: [(dt.timedelta(microseconds=-1), [-1, 86399, 999_999])],
    12: [
        (zoneinfo.ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (dt.timezone(dt.timedelta(hours=1)), [3_600_000_000, None]),
        (dt.timezone(dt.timedelta(hours=-1), "W"), [-3_600_000_000, "W"]),
    ],
    13: [(uuid.UUID(int=1), bytes(15) + b"\x01")],
    14: [(decimal.Decimal("1.50"), b"1.50"), (decimal.Decimal("1e3"), b"1E+3")],
    15: [
        (Right.READ, [__name__, "Right", "READ"]),
        (Right.READ | Right.WRITE, [__name__, "Right", None, 3]),
    ],
    16: [
        (pathlib.Path("/a"), ["", "/a"]),
        (pathlib.PurePosixPath("a"), ["posix", "a"]),
        (pathlib.PureWindowsPath("a"), ["windows", "a"]),
    ],
    17: [(1 + 0j, b"\x3f\xf0" + bytes(14))],
    32: [(LARGE, 0)],
    33: [
        (memoryview(b"ab"), ["B", [2], b"ab"]),
        (memoryview(LARGE).cast("i"), ["i", [len(LARGE) // 4], 0]),
    ],
    34: [
        (np.array([[1, 2]], "<i2"), ["<i2", [1, 2], "C", b"\1\0\2\0"]),
        (np.zeros((2, 2), "|u1", "F"), ["|u1", [2, 2], "F", bytes(4)]),
        (np.zeros(1, "i1,f8"), [
            ["struct", ["f0", "f1"], ["|i1", "<f8"], [0, 1], [None, None], 9, False], [1], "C", bytes(9),
        ]),
    ],
    35: [(np.int8(1), ["|i1", b"\1"]), (np.str_("a"), ["<U", "a"])],
}  # fmt: skip
ELSEWHERE = {36: "needs torch", 37: "an Arrow stream is no sample to write down: tested below"}
NO_VALUES = {_ext.INPUT: "stands for an input: tested below"}


def plain(value: Any) -> Any:
    """A body as a foreign decoder sees it: extensions as [code, payload]."""
    if isinstance(value, msgspec.msgpack.Ext):
        raw = value.code in (1, 2, 13, 14, 17)
        data = bytes(value.data)
        return [value.code, data if raw else plain(msgspec.msgpack.decode(data))]
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    return [plain(member) for member in value] if isinstance(value, list) else value


def test_every_code_is_shown_and_no_other() -> None:
    listed = {int(row[0]): row for row in rows("ext")}
    assert sorted(listed) == sorted([*READERS, *NO_VALUES])
    assert all(name and payload for _, name, payload in listed.values())
    raw = {code for code, row in listed.items() if row[2].startswith("raw:")}
    assert raw == {1, 2, 13, 14, 17}
    assert sorted([*SAMPLES, *ELSEWHERE]) == sorted(READERS)
    assert "ext 127 without payload (`c7 00 7f`)" in text()
    assert bytes(_parts.BODY_IN_TRANSFER) == b"\xc7\x00\x7f"


@pytest.mark.parametrize("code", SAMPLES)
def test_payloads_are_what_the_table_says(code: int) -> None:
    for value, payload in SAMPLES[code]:
        body, _ = p.encode_value(value)
        assert plain(msgspec.msgpack.decode(body)) == [code, payload]


def test_an_input_is_written_as_its_number() -> None:
    body, _, inputs = p.encode_arguments({"a": 1, "b": (first := numbers()), "c": numbers()})
    assert plain(msgspec.msgpack.decode(body)) == {"a": 1, "b": [18, 0], "c": [18, 1]}
    assert inputs[0] is first


async def numbers() -> AsyncIterator[int]:
    yield 1


def test_kinds_of_arrow_data_are_what_the_text_says() -> None:
    for kind, value in {
        "table": pa.table({"a": [1]}),
        "batch": pa.record_batch({"a": [1]}),
        "array": pa.array([1]),
        "chunked": pa.chunked_array([[1]]),
    }.items():
        body, _ = p.encode_value(value)
        code, [said, stream, extras] = plain(msgspec.msgpack.decode(body))
        assert (code, said, extras) == (37, kind, [])
        column = "a" if kind in ("table", "batch") else "value"
        assert pa.ipc.open_stream(stream).read_all().column_names == [column]
        assert f'"{kind}"' in text()


def test_the_timestamp_of_msgpack_is_a_datetime_in_utc() -> None:
    body = b"\xd6\xff" + (1).to_bytes(4, "big")
    assert p.decode_value(body) == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)


# -- limits -----------------------------------------------------------------------------------

LIMIT = re.compile(r"[A-Z][A-Z_]*_(MAX|MIN|BYTES)")
OWN_AFFAIRS = {
    "SPARSE_MAX",
    "SEGMENTS_SHOWN_MAX",
    "SEGMENT_CHARS_MAX",
    "FLOATS_MIN",
    "LONG_MIN",
    "FLOAT_BYTES",
    "CHUNK_BYTES",
    "PIPE_BYTES",
}  # nobody else sees them


def limits(*modules: ModuleType) -> dict[str, int]:
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if LIMIT.fullmatch(name) and isinstance(value, int) and name not in OWN_AFFAIRS
    }


def test_every_limit_is_shown_with_its_number() -> None:
    known = limits(
        _framing, _parts, _ext, _values, _scalars, _arrays, _exceptions, _seat, _call, _stream, _stderr,
        _progress, _sessions, _host_calls, _tools,
    )  # fmt: skip
    shown = {name.strip("`"): int(value.replace(",", "")) for name, value, _ in rows("name")}
    assert len(shown) == 26
    assert shown == known


def test_the_numbers_in_the_running_text_are_those_of_the_code() -> None:
    from snakepit.options import Startup, Stop
    from snakepit.pool._worker import OWN_EXIT_S

    said = [
        f"at most {p.FRAME_BYTES_MAX:,} bytes",
        f"At most {p.TRANSFERS_OPEN_MAX} transfers",
        f"at most {_ext.BUFFERS_MAX} in one message",
        f"average under {_seat.PREFETCH_AVERAGE_MAX_S * 1000:g} ms",
        f"longer than {_seat.OVERDUE_S * 1000:g} ms",
        f"up to {_seat.PREFETCH_MAX} calls behind",
        f"together under {_seat.PREFETCH_S * 1000:g} ms",
        f"lines over {_stderr.LINE_BYTES_MAX} bytes",
        f"the last {_stderr.TAIL_LINES_MAX} lines",
        f"`Startup.timeout` ({Startup().timeout:g} s)",
        f"`Startup.init_timeout` ({Startup().init_timeout:g} s)",
        f"Stop.term_grace ({Stop().term_grace:g} s)",
        f"does not exit within {OWN_EXIT_S:g} s",
        f"at most {_exceptions.CAUSES_MAX} deep",
        f"then one in {_progress.INTERVAL_S * 1000:g} ms",
    ]
    running = " ".join(text().split())
    assert [phrase for phrase in said if phrase not in running] == []


# -- examples ---------------------------------------------------------------------------------


def examples() -> list[tuple[str, bytes]]:
    """Title and bytes of each block whose title has an arrow, in the order of the document."""
    found = []
    for title, block in re.findall(
        r"^```text\n(\w+, \w+ → \w+)\n(.*?)^```$", text(), re.MULTILINE | re.DOTALL
    ):
        data = b""
        for line in block.splitlines():
            hexes, _, comment = line.partition("  ")
            byte, _, count = hexes.partition(" × ")
            data += bytes.fromhex(byte) * int(count or 1)
            assert comment.strip()
        found.append((title, data))
    return found


def data_of(message: Any) -> Any:
    """A message with its raw parts as bytes, so that it can be compared."""
    if isinstance(message, msgspec.Struct):
        return type(message), [data_of(field) for field in msgspec.structs.astuple(message)]
    if isinstance(message, tuple):
        return [data_of(item) for item in message]
    return bytes(message) if isinstance(message, Raw | memoryview) else message


ARGUMENTS = p.encode_params({"a": 2, "b": 40})[0]
LARGE_BODY, LARGE_BUFFERS = p.encode_params({"x": b"a" * 65536})
EXAMPLES = [
    ("Hello, worker → host", p.Hello(1, 4711, "spec")),
    ("Start, host → worker", p.Start("default-1.1", body=p.encode_value(())[0])),
    ("Ready, worker → host", p.Ready((p.ToolInfo("add", "a + b"),))),
    ("Call, host → worker", p.Call(1, "add", ARGUMENTS)),
    ("Result, worker → host", p.Result(1, p.encode_value(42)[0])),
    ("Part, host → worker", p.Part(1, memoryview(b"a" * 65536))),
    ("Call, host → worker", p.Call(2, "size", LARGE_BODY, (1,))),
]


def test_the_examples_decode_to_what_they_say() -> None:
    """Byte by byte; what the host sends in them is also what the host would write."""
    shown = examples()
    assert [title for title, _ in shown] == [title for title, _ in EXAMPLES]
    for (title, data), (_, message) in zip(shown, EXAMPLES, strict=True):
        [payload] = p.FrameDecoder().feed(data)
        if "host →" in title:
            assert data_of(p.decode_to_worker(payload)) == data_of(message)
        else:
            assert data_of(p.decode_to_host(payload)) == data_of(message)
    packer = p.Packer()
    written = [packer.pack(EXAMPLES[1][1]), packer.pack(EXAMPLES[3][1])]
    parts = packer.pack_parts(p.Call(2, "size", LARGE_BODY, LARGE_BUFFERS))
    written += [head + bytes(data or b"") for head, data in parts]
    assert written == [data for title, data in shown if "host →" in title]


def test_the_lengths_told_in_the_examples_are_those_of_the_frames() -> None:
    told = [int(number) for number in re.findall(r"  (\d+) bytes follow$", text(), re.MULTILINE)]
    assert told == [len(data) - p.PREFIX_BYTES for _, data in examples()]
