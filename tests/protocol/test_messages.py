"""Messages: each arrives equal; what newer peers add is ignored, what nobody knows refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from snakepit import protocol as p
from snakepit.errors import ProtocolError

BODY = p.encode_value({"a": (1, 2)})[0]
ERROR = p.ErrorData(
    "builtins.KeyError", "'k'", "KeyError", p.encode_value(("k",))[0], "tb", ("note",)
)

TO_WORKER = [
    p.Start("w1", "pkg:Class", BODY, (), "trio", 0.5, ("/x",), "/main.py", "app"),
    p.Call(1, "predict", BODY, (3, 4), 1.5, 16),
    p.Call(2, "plain"),
    p.Call(3, "in a session", session="user_42"),
    p.Call(4, "with inputs", input_window=16),
    p.InputItem(4, 0, BODY, (5,)),
    p.InputEnd(4, 1),
    p.Cancel(1),
    p.Credit(1, 8),
    p.Recall((1, 2)),
    p.Shutdown(2.0),
    p.EndSession("user_42"),
    p.HostReply(3, BODY, (5,)),
    p.HostFailure(3, "tool", ERROR),
]
TO_HOST = [
    p.Hello(p.PROTOCOL_VERSION, 123, "python 3.11"),
    p.Ready((p.ToolInfo("predict", "d", {"type": "object"}, True, True, 1.0, "kill", 2.0),)),
    p.Result(1, BODY, (5,)),
    p.Failure(1, "tool", ERROR),
    p.Failure(1, "tool", msgspec.structs.replace(ERROR, cause=ERROR)),
    p.Item(1, BODY),
    p.InputCredit(4, 0, 16),
    p.InputStop(4, 1),
    p.End(1),
    p.Settled(1, False),
    p.Returned((1,)),
    p.Goodbye(),
    p.Progress(1, 3, 10.5, "third"),
    p.Progress(1, 0.5),
    p.HostCall(3, 1, "ask", BODY, (4,)),
    p.HostCancel(3, 1),
]


def data(message: object) -> object:
    """The message with Raws as bytes, so that it can be compared."""
    if isinstance(message, Raw):
        return bytes(message)
    if isinstance(message, msgspec.Struct):
        return type(message), [data(field) for field in msgspec.structs.astuple(message)]
    return [data(item) for item in message] if isinstance(message, list | tuple) else message


@pytest.mark.parametrize("message", TO_WORKER, ids=lambda m: type(m).__name__)
def test_messages_to_the_worker_arrive_equal(message: Any) -> None:
    assert data(p.decode_to_worker(p.encode_message(message))) == data(message)


@pytest.mark.parametrize("message", TO_HOST, ids=lambda m: type(m).__name__)
def test_messages_to_the_host_arrive_equal(message: Any) -> None:
    assert data(p.decode_to_host(p.encode_message(message))) == data(message)


def test_numbers_of_progress_stay_what_they_are() -> None:
    """A count is not turned into a float on its way."""
    for done, total in ((3, 10), (0.5, 1.0), (2**53, None)):
        message = p.decode_to_host(p.encode_message(p.Progress(1, done, total)))
        assert isinstance(message, p.Progress)
        assert (repr(message.done), repr(message.total)) == (repr(done), repr(total))


def test_parts_travel_both_ways() -> None:
    for decode in (p.decode_to_host, p.decode_to_worker):
        part = decode(p.encode_message(p.Part(7, memoryview(b"data"))))
        assert isinstance(part, p.Part)
        assert part.data is not None
        assert (part.transfer, bytes(part.data)) == (7, b"data")


@pytest.mark.parametrize("message", [*TO_WORKER, *TO_HOST], ids=lambda m: type(m).__name__)
def test_a_message_for_the_other_side_is_refused(message: Any) -> None:
    decode = p.decode_to_host if message in TO_WORKER else p.decode_to_worker
    with pytest.raises(ProtocolError):
        decode(p.encode_message(message))


def test_fields_that_a_newer_peer_appends_are_ignored() -> None:
    payload = msgspec.msgpack.encode([36, 1, None, [], "something new"])
    assert isinstance(p.decode_to_host(payload), p.Item)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x90", b"\x91\x63", b"\x92\x03\xa1x", b"\x93\x02\x01\xc0"]
)
def test_what_is_no_message_is_a_protocol_error(payload: bytes) -> None:
    for decode in (p.decode_to_host, p.decode_to_worker):
        with pytest.raises(ProtocolError):
            decode(payload)
