"""Exceptions as data: the builtin type, its fields, notes and causes arrive, bounded."""

from __future__ import annotations

import copy
import os
import pickle
import traceback
from typing import Any

import pytest

from snakepit.errors import ProtocolError, SerializationError, ToolError
from snakepit.protocol import (
    NIL,
    ErrorData,
    Failure,
    decode_to_host,
    decode_value,
    describe,
    encode_message,
    encode_value,
    rebuild,
)
from snakepit.protocol._exceptions import CAUSES_MAX, ERROR_BYTES_MAX, TEXT_BYTES_MAX


def travel(error: BaseException) -> ToolError:
    try:
        raise error
    except BaseException as raised:
        payload = encode_message(Failure(1, "tool", describe(raised)))
    assert len(payload) < ERROR_BYTES_MAX
    failure = decode_to_host(payload)
    assert isinstance(failure, Failure)
    return rebuild(failure.error, tool="predict", worker_id="w1")


def unicode_error() -> UnicodeDecodeError:
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


class OwnSignatureError(ValueError):
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(code, detail)
        self.detail = detail


class BadDecodeError(UnicodeDecodeError):
    """Its args do not fit the constructor of its builtin."""

    def __init__(self) -> None:
        super().__init__("utf-8", b"x", 0, 1, "why")
        self.args = ("other",)


BUILTINS = [
    KeyError("k", (1, 2)),
    ValueError(),
    ZeroDivisionError("division by zero"),
    FileNotFoundError(2, "No such file", "/x"),
    OSError("text alone"),
    PermissionError(13, "no", "/a", None, "/b"),
    BlockingIOError(11, "again", 5),
    TimeoutError("late"),
    ConnectionResetError(104, "reset"),
    unicode_error(),
    SyntaxError("bad", ("f.py", 1, 2, "x = = 1")),
    ImportError("no", name="m"),
    AttributeError("a"),
    NotImplementedError("x"),
    AssertionError((1, 2)),
    MemoryError(),
    RecursionError("deep"),
    UserWarning("w"),
    OwnSignatureError(3, detail="d"),
    BadDecodeError(),
    KeyError(object()),
]


@pytest.mark.parametrize("error", BUILTINS, ids=lambda error: type(error).__name__)
def test_builtin_errors_arrive_as_themselves(error: Any) -> None:
    arrived = travel(error)
    builtin = next(base for base in type(error).__mro__ if base.__module__ == "builtins")
    assert isinstance(arrived, ToolError)
    assert isinstance(arrived, builtin)
    assert arrived.type == f"{type(error).__module__}.{type(error).__qualname__}"
    assert arrived.message == str(error)
    assert (arrived.tool, arrived.worker_id) == ("predict", "w1")
    if (
        not isinstance(error.args[0] if error.args else 0, object)
        or type(error.args[:1]) is not object
    ):
        travels = decode_value(describe(error).args) is not None
        assert arrived.args == (error.args if travels else (str(error),))
    for field in (
        "errno",
        "strerror",
        "filename",
        "filename2",
        "reason",
        "object",
        "lineno",
        "detail",
    ):
        if (
            field != "detail"
            and isinstance(error, builtin)
            and not isinstance(error, BadDecodeError)
        ):
            assert getattr(arrived, field, None) == getattr(error, field, None)


@pytest.mark.parametrize("error", BUILTINS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_tool_errors_pickle_and_copy_with_equal_fields(error: Any, duplicate: Any) -> None:
    arrived = travel(error)
    arrived.add_note("one more")
    twin = duplicate(arrived)
    assert type(twin) is type(arrived)
    for field in ("args", "tool", "type", "message", "traceback", "worker_id", "__notes__"):
        assert getattr(twin, field) == getattr(arrived, field)
    for field in ("errno", "filename", "filename2"):
        assert getattr(twin, field, None) == getattr(arrived, field, None)
    assert str(twin) == str(arrived)


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(1),
        StopAsyncIteration(),
        ExceptionGroup("g", [ValueError("inside")]),
        BaseExceptionGroup("g", [KeyboardInterrupt()]),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        Exception("plain"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_control_flow_and_groups_arrive_as_plain_tool_errors(error: Any) -> None:
    arrived = travel(error)
    assert type(arrived) is ToolError
    assert arrived.type == f"builtins.{type(error).__name__}"


def test_members_of_a_group_are_in_the_traceback() -> None:
    arrived = travel(
        ExceptionGroup("g", [ValueError("inside"), ExceptionGroup("h", [KeyError("deep")])])
    )
    assert "inside" in arrived.traceback
    assert "deep" in arrived.traceback


def test_our_own_errors_arrive_as_their_builtin() -> None:
    arrived = travel(SerializationError("no", "[1]"))
    assert isinstance(arrived, TypeError)
    assert arrived.args == ("no", "[1]")


def test_notes_and_the_traceback_arrive_as_notes() -> None:
    error = ValueError("x")
    error.add_note("remember")
    arrived = travel(error)
    assert arrived.__notes__[0] == "remember"
    assert "Traceback in worker w1" in arrived.__notes__[-1]
    assert "in travel" in arrived.traceback
    assert "remember" in "".join(traceback.format_exception(arrived))


def test_causes_arrive_with_their_types() -> None:
    try:
        try:
            {}["k"]
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as raised:
        arrived = travel(raised)
    assert isinstance(arrived.__cause__, KeyError)
    assert arrived.__cause__.args == ("k",)
    assert "direct cause" in arrived.traceback


def test_the_context_counts_as_cause_unless_suppressed() -> None:
    for suppress in (False, True):
        error = ValueError("x")
        error.__context__, error.__suppress_context__ = KeyError("k"), suppress
        assert (travel_bare(error).__cause__ is None) is suppress


def travel_bare(error: BaseException) -> ToolError:
    return rebuild(describe(error), tool="t", worker_id="w")


def test_chains_are_bounded_and_cycles_end() -> None:
    first: BaseException = ValueError("0")
    top = first
    for number in range(1, 1000):
        following = ValueError(str(number))
        following.__cause__ = top
        top = following
    arrived, length = travel_bare(top), 0
    here: BaseException | None = arrived
    while (here := here.__cause__ if here else None) is not None:
        length += 1
    assert length == CAUSES_MAX
    first.__cause__ = top
    assert travel_bare(top).message == "999"


class HatefulError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__


class HatefulArgError(ValueError):
    pass


def test_an_error_whose_str_raises_still_arrives() -> None:
    assert "RuntimeError" in travel(HatefulError("x")).message
    error = HatefulArgError(HatefulError())
    error.__notes__ = 5  # type: ignore[assignment]
    assert isinstance(travel(error), ValueError)


@pytest.mark.unmeasured
def test_huge_errors_fit() -> None:
    """Every text is clipped, in bytes, head and tail kept."""
    top: BaseException = ValueError("x")
    for _ in range(12):
        error = type("E" * 5000, (KeyError,), {})("ü" * 10**6, list(range(10**5)), "\ud800")
        for _ in range(100):
            error.add_note("€" * 10**5)
        error.__cause__, top = top, error
    arrived = travel(top)
    assert isinstance(arrived, KeyError)
    assert len(arrived.message.encode()) <= TEXT_BYTES_MAX
    assert len(arrived.traceback.encode()) <= TEXT_BYTES_MAX
    assert "cut" in arrived.traceback
    assert sum(len(note.encode()) for note in arrived.__notes__) < 4 * TEXT_BYTES_MAX


def test_a_runaway_recursion_arrives_soon() -> None:
    def run_away() -> None:
        run_away()

    try:
        run_away()
    except RecursionError as raised:
        data = describe(raised)
    assert "repeated" in data.traceback
    assert isinstance(rebuild(data, tool="t", worker_id="w"), RecursionError)


def test_args_that_cannot_travel_or_are_large_are_left_out() -> None:
    for argument in (object(), b"x" * TEXT_BYTES_MAX, [0.5] * TEXT_BYTES_MAX):
        assert bytes(describe(ValueError(argument)).args) == bytes(NIL)


def test_frames_of_the_library_are_hidden_at_the_start_only() -> None:
    here = os.path.dirname(__file__)
    try:
        decode_value(b"")
    except ProtocolError as raised:
        shown, hidden = describe(raised, hide=()), describe(raised, hide=(here,))
    assert "test_exceptions.py" in shown.traceback
    assert "test_exceptions.py" not in hidden.traceback.split("direct cause")[-1]
    assert "_values.py" in hidden.traceback
    try:
        raise ValueError
    except ValueError as raised:
        assert "test_exceptions.py" in describe(raised, hide=(here,)).traceback, (
            "never an empty one"
        )


@pytest.mark.parametrize(
    "builtin", [None, "", "Exception", "int", "print", "SystemExit", "nonsense", "__import__"]
)
def test_a_lying_builtin_is_a_plain_tool_error(builtin: Any) -> None:
    data = ErrorData("x.Y", "m", builtin, encode_value((1,))[0])
    assert type(rebuild(data, tool="t", worker_id="w")) is ToolError


@pytest.mark.parametrize("args", [b"\xc1", b"\x01", b"\xd4\x20\x00"])
def test_malformed_args_are_left_out(args: bytes) -> None:
    from msgspec import Raw

    data = ErrorData("builtins.KeyError", "m", "KeyError", Raw(args))
    arrived = rebuild(data, tool="t", worker_id="w")
    assert isinstance(arrived, KeyError)
    assert arrived.args == ("m",)
