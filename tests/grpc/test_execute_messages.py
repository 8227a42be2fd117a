"""What is read and written by hand where it is large is what the generated code makes of it."""

from __future__ import annotations

import pytest
from grpclib import GRPCError
from msgspec import Raw

from snakepit.grpc._generated.google.protobuf import Value as Json
from snakepit.grpc._generated.snakepit.v1 import ExecuteReply, ExecuteRequest, Value
from snakepit.worker._grpc_messages import MSGPACK, PackedReply, Request

LARGE_BYTES = 2**16
LARGE = bytes(range(256)) * (LARGE_BYTES // 256)
UNKNOWN = b"\x2a\x03new\x30\x01"  # fields that a newer client may have added


@pytest.mark.parametrize(
    "request_",
    [
        ExecuteRequest(tool="echo", params=Value(msgpack=LARGE), session="s"),
        ExecuteRequest(tool="ü", params=Value(msgpack=LARGE)),
        ExecuteRequest(tool="x" * LARGE_BYTES),
        ExecuteRequest(tool="echo", params=Value(json=Json(string_value="x" * LARGE_BYTES))),
        ExecuteRequest(tool="echo", params=Value(msgpack=b"\x80")),
    ],
    ids=["session", "unicode", "no params", "json", "small"],
)
@pytest.mark.parametrize("more", [b"", UNKNOWN], ids=["", "unknown fields"])
def test_a_request_is_read_as_the_generated_class_reads_it(
    request_: ExecuteRequest, more: bytes
) -> None:
    found = Request.parse(bytes(request_) + more)
    assert (found.tool, found.session) == (request_.tool, request_.session)
    params = request_.params
    if params is None:
        assert (found.json, found.msgpack) == (None, None)
    elif params.msgpack is not None:
        assert found.json is None
        assert found.msgpack is not None
        assert bytes(found.msgpack) == params.msgpack
    else:
        assert found.json is not None
        assert Json.parse(bytes(found.json)) == params.json
        assert found.msgpack is None


def test_a_request_that_says_a_thing_twice_means_the_last() -> None:
    twice = bytes(ExecuteRequest(tool="one", params=Value(msgpack=LARGE)))
    assert Request.parse(twice + bytes(ExecuteRequest(tool="two"))).tool == "two"


def test_large_params_are_not_copied() -> None:
    data = bytes(ExecuteRequest(tool="echo", params=Value(msgpack=LARGE)))
    params = Request.parse(data).msgpack
    assert params is not None
    assert params.obj is data


def test_what_is_no_request_is_refused() -> None:
    for data in (b"\x0a\x05ab", b"\x0a\x01\xff", b"\x12\x02\x0a\x05"):
        with pytest.raises(GRPCError, match="the request"):
            Request.parse(data)


@pytest.mark.parametrize("size", [1, 127, 128, LARGE_BYTES])
def test_a_reply_is_written_as_the_generated_class_writes_it(size: int) -> None:
    body = LARGE[:size]
    reply = PackedReply(MSGPACK, [Raw(body[:1]), body[1:]])
    assert bytes(reply) == bytes(ExecuteReply(value=Value(msgpack=body)))
    assert reply.size == len(bytes(reply))


def test_the_value_of_a_reply_is_not_copied() -> None:
    assert PackedReply(MSGPACK, [LARGE]).parts[-1] is LARGE
