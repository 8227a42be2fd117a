"""Execute's messages by hand where they are large: generated code copies each value five times."""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from snakepit.errors import ProtocolError
from snakepit.grpc import fields_of, head_of
from snakepit.grpc._generated.snakepit.v1 import ExecuteRequest, Value

LARGE_BYTES: Final = 2**16
TOOL, PARAMS, SESSION = 1, 2, 3  # fields of ExecuteRequest
VALUE = 1  # of ExecuteReply
MSGPACK = 2  # of Value


class Request:
    """What the server takes for the class of the request."""

    @staticmethod
    def parse(data: bytes) -> ExecuteRequest:
        """The request; large params in msgpack are a part of these bytes."""
        if len(data) >= LARGE_BYTES:
            try:
                found = _parse_large(memoryview(data))
            except (ProtocolError, UnicodeDecodeError):
                found = None  # the generated code says what is wrong
            if found is not None:
                return found
        return ExecuteRequest.parse(data)


def _parse_large(data: memoryview) -> ExecuteRequest | None:
    """The request, if it has each field once at most, and params in msgpack."""
    fields = list(fields_of(data))
    found = dict(fields)
    params = list(fields_of(found.get(PARAMS, memoryview(b""))))
    if len(found) < len(fields) or [number for number, _ in params] != [MSGPACK]:
        return None
    return ExecuteRequest(
        tool=str(found.get(TOOL, b""), "utf-8"),
        params=Value(msgpack=params[0][1]),  # type: ignore[arg-type]
        session=str(found.get(SESSION, b""), "utf-8"),
    )


class PackedReply:
    """An `ExecuteReply` with this value in msgpack."""

    def __init__(self, body: Raw) -> None:
        self._body = memoryview(body)

    def __bytes__(self) -> bytes:
        value = head_of(MSGPACK, len(self._body))
        return b"".join((head_of(VALUE, len(value) + len(self._body)), value, self._body))
