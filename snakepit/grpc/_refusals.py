"""Calls that never begin: what grpclib answers with an exception in the log and `UNKNOWN`, or not at all.

Also what is wrong with a message, once that is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from grpclib import GRPCError
from grpclib.const import Status
from grpclib.metadata import decode_bin_value, decode_timeout, encode_grpc_message
from grpclib.protocol import Stream
from grpclib.server import Stream as Call
from h2.exceptions import StreamClosedError

PASSED_S: Final = 1e-4  # a deadline so near has passed before the call has begun
NEEDED: Final = frozenset((":method", ":path"))
Asked = TypeVar("Asked")


def refusal(headers: dict[str, str]) -> tuple[Status, str] | None:
    """Why a call with these headers is not even begun, if it is not."""
    if not headers.keys() >= NEEDED:
        return Status.INTERNAL, "no gRPC: there is no :method or no :path"
    for name, value in headers.items():
        if name == "grpc-timeout":
            if _has_passed(value):
                return Status.DEADLINE_EXCEEDED, "the deadline has passed"
        elif name.endswith("-bin"):
            try:
                decode_bin_value(value.encode("ascii"))
            except ValueError:
                return Status.INVALID_ARGUMENT, f"the metadata {name} is not base64"
    return None


def _has_passed(timeout: str) -> bool:
    try:
        return decode_timeout(timeout) <= PASSED_S
    except ValueError:
        return False  # which grpclib answers


async def refuse(
    stream: Stream, release: Callable[[], object], status: Status, reason: str
) -> None:
    """Answer the call with this status, and let go of its stream."""
    headers = [
        (":status", "200"),
        ("content-type", "application/grpc+proto"),
        ("grpc-status", str(status.value)),
        ("grpc-message", encode_grpc_message(reason)),
    ]
    try:
        await stream.send_headers(headers, end_stream=True)
        if stream.closable:
            stream.reset_nowait()
    except StreamClosedError:
        pass  # nobody waits for it
    finally:
        release()


async def receive(call: Call[Asked, Any]) -> Asked | None:
    """The next message of a call, None at their end. Raises GRPCError for what is no message of it."""
    try:
        return await call.recv_message()
    except NotImplementedError:
        reason = "the message is compressed; nothing but identity is known here"
        raise GRPCError(Status.UNIMPLEMENTED, reason) from None
    except (AssertionError, EOFError):
        raise GRPCError(Status.INVALID_ARGUMENT, "the message is cut short") from None
    except (ValueError, LookupError, ArithmeticError) as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"the message: {error}") from error
