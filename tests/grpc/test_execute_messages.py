"""What is read and written by hand where it is large is what the generated code makes of it."""

from __future__ import annotations

import pytest
from msgspec import Raw

from snakepit.grpc._generated.google.protobuf import Value as Json
from snakepit.grpc._generated.snakepit.v1 import ExecuteReply, ExecuteRequest, Value
from snakepit.worker._grpc_messages import LARGE_BYTES, PackedReply, Request

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
    assert found.params == request_.params


def test_a_request_that_says_a_thing_twice_means_the_last() -> None:
    twice = bytes(ExecuteRequest(tool="one", params=Value(msgpack=LARGE)))
    assert Request.parse(twice + bytes(ExecuteRequest(tool="two"))).tool == "two"


def test_large_params_are_not_copied() -> None:
    data = bytes(ExecuteRequest(tool="echo", params=Value(msgpack=LARGE)))
    params = Request.parse(data).params
    assert params is not None
    assert isinstance(params.msgpack, memoryview)
    assert params.msgpack.obj is data


@pytest.mark.parametrize("size", [1, 127, 128, LARGE_BYTES])
def test_a_reply_is_written_as_the_generated_class_writes_it(size: int) -> None:
    body = LARGE[:size]
    assert bytes(PackedReply(Raw(body))) == bytes(ExecuteReply(value=Value(msgpack=body)))
