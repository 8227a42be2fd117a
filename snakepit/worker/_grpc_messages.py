"""Execute's messages by hand: generated code copies each value five times, and is slow to read JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from grpclib import GRPCError
from grpclib.const import Status

from snakepit.errors import ProtocolError
from snakepit.grpc import fields_of, head_of
from snakepit.protocol import Buffer

TOOL, PARAMS, SESSION = 1, 2, 3  # fields of ExecuteRequest
VALUE = 1  # of ExecuteReply
JSON, MSGPACK = 1, 2  # of Value


class Request(NamedTuple):
    """An `ExecuteRequest`, whose params are a part of its bytes; with neither there are none."""

    tool: str
    session: str
    json: memoryview | None
    msgpack: memoryview | None

    @classmethod
    def parse(cls, data: bytes | bytearray) -> Request:
        """The request. Raises GRPCError."""
        texts, params = {TOOL: "", SESSION: ""}, dict[int, memoryview]()
        try:
            for number, part in fields_of(memoryview(data)):
                if number in texts:
                    texts[number] = str(part, "utf-8")
                elif number == PARAMS:
                    for kind, value in fields_of(part):
                        if kind in (JSON, MSGPACK):
                            params = {kind: value}  # the last one is the one that is meant
        except (ProtocolError, UnicodeDecodeError) as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"the request: {error}") from error
        return cls(texts[TOOL], texts[SESSION], params.get(JSON), params.get(MSGPACK))


class PackedReply:
    """An `ExecuteReply` with this value, which is encoded as `kind` says: `parts`, of `size` bytes."""

    def __init__(self, kind: int, value: Sequence[Buffer]) -> None:
        size = sum(memoryview(part).nbytes for part in value)
        of_value = head_of(kind, size)
        head = head_of(VALUE, len(of_value) + size) + of_value
        self.parts: tuple[Buffer, ...] = (head, *value)
        self.size: int = len(head) + size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)
