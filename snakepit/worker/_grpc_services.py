"""The services of a worker for any gRPC client: Worker, Health, and Reflection beside them."""

from __future__ import annotations

import asyncio
import json
from typing import Final, TypeAlias

import msgspec
from grpclib import GRPCError
from grpclib.const import Cardinality, Handler, Status
from grpclib.metadata import Deadline
from grpclib.server import Stream
from msgspec import Raw

from snakepit._trace_context import NO_TRACE, Trace, trace_of
from snakepit.errors import ProtocolError, SerializationError
from snakepit.grpc import hold_if_lost, receive, send_in_pieces
from snakepit.grpc._generated.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
)
from snakepit.grpc._generated.grpc.health.v1 import (
    HealthCheckResponseServingStatus as ServingStatus,
)
from snakepit.grpc._generated.snakepit.v1 import (
    ErrorDetail,
    ExecuteReply,
    ListToolsReply,
    ListToolsRequest,
    Tool,
)
from snakepit.grpc._json import read_json
from snakepit.protocol import (
    PART_BYTES_MAX,
    Buffers,
    Failure,
    Item,
    Result,
    Settled,
    encode_value,
)
from snakepit.protocol._outline import outline
from snakepit.worker._grpc_host import OwnHost, WorkerGoneError
from snakepit.worker._grpc_messages import Request
from snakepit.worker._grpc_replies import LARGE_BYTES, Arrivals, ExecuteCall, reply_with

SERVICE: Final = "snakepit.v1.Worker"
NO_PARAMS: Final = Raw(b"\x80")
NAME_BYTES_MAX: Final = 1024  # of a tool, of a session
# What goes in headers has to be short: clients take 8 KiB of them. In the status message a byte may
# take three there, in the detail 4/3.
STATUS_BYTES_MAX: Final = 1024
MESSAGE_BYTES_MAX: Final = 1024
TYPE_BYTES_MAX: Final = 256
TRACEBACK_BYTES_MAX: Final = 1700
INLINE: Final = 2**62  # no buffer is so large: all of a value is in its body

HealthCall: TypeAlias = Stream[HealthCheckRequest, HealthCheckResponse]

STATUS_OF: Final = {
    "not_found": Status.NOT_FOUND,
    "params": Status.INVALID_ARGUMENT,
    "serialization": Status.INTERNAL,
    "tool": Status.UNKNOWN,
}
UNSENDABLE: Final = f"{SerializationError.__module__}.{SerializationError.__name__}"
UNREADABLE: Final = (
    f"{ProtocolError.__module__}.{ProtocolError.__name__}"  # of params: of a result there is none
)
_check = msgspec.msgpack.Decoder(Raw).decode


class WorkerService:
    """Execute, ExecuteStream, ListTools."""

    def __init__(self, host: OwnHost) -> None:
        self._host = host
        self._turns = asyncio.Lock()

    def __mapping__(self) -> dict[str, Handler]:
        ask, reply = Request, ExecuteReply
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"/{SERVICE}/Execute": Handler(self._execute, unary, ask, reply),
            f"/{SERVICE}/ExecuteStream": Handler(self._execute_stream, stream, ask, reply),
            f"/{SERVICE}/ListTools": Handler(
                self._list_tools, unary, ListToolsRequest, ListToolsReply
            ),
        }

    async def _execute(self, call: ExecuteCall) -> None:
        await self._run(call, streams=False)

    async def _execute_stream(self, call: ExecuteCall) -> None:
        await self._run(call, streams=True)

    async def _run(self, call: ExecuteCall, *, streams: bool) -> None:
        request = await receive(call)
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "there is no request")
        for what, name in (("tool", request.tool), ("session", request.session)):
            if len(name.encode()) > NAME_BYTES_MAX:
                reason = f"the name of the {what} is over {NAME_BYTES_MAX} bytes"
                raise GRPCError(Status.INVALID_ARGUMENT, reason)
        if not self._host.ready.is_set():
            await self._host.ready.wait()
        self._limit(call, request.tool)
        (params, buffers), as_json = await _params(request), request.msgpack is None
        comes = Arrivals(call, as_json=as_json)
        timeout_s = call.deadline.time_remaining() if call.deadline is not None else None
        try:
            async with self._host.call(
                request.tool,
                params,
                buffers,
                session=request.session,
                timeout_s=timeout_s,
                streams=streams,
                trace=_trace(call),
                comes=comes,
            ):
                while isinstance(message := await comes.get(), Item | Result):
                    if comes.answered:
                        return
                    reply = comes.reply or await reply_with(message, as_json=as_json)
                    await hold_if_lost(call)
                    if reply.size < LARGE_BYTES:
                        await call.send_message(reply)
                    else:
                        await send_in_pieces(call, reply.parts, reply.size, self._turns)
                    if isinstance(message, Result):
                        return
                    self._host.credit(message.id)
        except WorkerGoneError:
            message = None
        except SerializationError as error:
            failed = ErrorDetail(kind="serialization", type=UNSENDABLE, message=str(error))
            await _fail(call, Status.INTERNAL, failed)
            return
        if isinstance(message, Failure):
            raised = message.error
            detail = ErrorDetail(
                kind=message.kind,
                type=raised.type,
                message=raised.message,
                traceback=raised.traceback,
            )
            await _fail(call, _status_of(message), detail)
        elif message is None or isinstance(message, Settled):
            raise GRPCError(Status.UNAVAILABLE, "the worker ends")

    def _limit(self, call: ExecuteCall, tool: str) -> None:
        """Have the call end by the tool's own timeout, if it has one and the client has set no deadline."""
        timeout_s = self._host.timeouts.get(tool)
        if timeout_s is None or call.deadline is not None:
            return
        task = asyncio.current_task()
        assert task is not None, "a handler of grpclib's is one"
        call.deadline = Deadline.from_timeout(timeout_s)
        late = GRPCError(Status.DEADLINE_EXCEEDED, f"the tool's own timeout of {timeout_s:g} s")
        wrapper = call._stream.wrapper
        assert wrapper is not None, "grpclib has made one for each call"
        timer = asyncio.get_running_loop().call_later(timeout_s, wrapper.cancel, late)
        task.add_done_callback(lambda _: timer.cancel())

    async def _list_tools(self, call: Stream[ListToolsRequest, ListToolsReply]) -> None:
        await receive(call)
        await self._host.ready.wait()
        tools = [
            Tool(
                name=tool.name,
                description=tool.description,
                parameters="" if tool.parameters is None else json.dumps(tool.parameters),
                streaming=tool.streaming,
                idempotent=tool.idempotent,
            )
            for tool in self._host.tools
        ]
        await call.send_message(ListToolsReply(tools=tools))


def _status_of(failure: Failure) -> Status:
    if failure.kind == "serialization" and failure.error.type == UNREADABLE:
        return Status.INVALID_ARGUMENT
    return STATUS_OF.get(failure.kind, Status.UNKNOWN)


def _trace(call: ExecuteCall) -> Trace:
    """What the call's metadata say that it is part of."""
    metadata = call.metadata
    if metadata is None or "traceparent" not in metadata:
        return NO_TRACE
    said = [str(one) for one in metadata.getall("tracestate", ())]  # a list that may be cut up
    return trace_of(str(metadata["traceparent"]), ",".join(said))


async def _params(request: Request) -> tuple[Raw, Buffers]:
    """The params as the wire has them, with what is large beside them. Whatever is sent there must be msgpack. Raises GRPCError."""
    kind = "JSON" if request.msgpack is None else "msgpack"
    try:
        if request.msgpack is not None:
            if len(request.msgpack) <= PART_BYTES_MAX:
                return _check(request.msgpack), ()
            # In parts it cannot spoil what goes with it: what is no map is for who reads it.
            params, buffers = await asyncio.to_thread(outline, request.msgpack)
            return Raw(params), tuple(buffers)
        if request.json is None:
            return NO_PARAMS, ()
        if len(request.json) < LARGE_BYTES:
            return _from_json(request.json), ()
        return await asyncio.to_thread(_from_json, request.json), ()
    except (ValueError, ProtocolError, SerializationError, RecursionError) as error:
        reason = _clip(f"params are no {kind}: {error}", STATUS_BYTES_MAX)
        raise GRPCError(Status.INVALID_ARGUMENT, reason) from error


def _from_json(data: memoryview) -> Raw:
    return encode_value(read_json(data), buffer_threshold=INLINE)[0]


async def _fail(call: ExecuteCall, status: Status, detail: ErrorDetail) -> None:
    """End the call with this status; the whole of the detail is in the trailing metadata."""
    detail.message = _clip(detail.message, MESSAGE_BYTES_MAX)
    detail.type = _clip(detail.type, TYPE_BYTES_MAX)
    detail.traceback = detail.traceback.encode("utf-8", "replace")[-TRACEBACK_BYTES_MAX:].decode(
        "utf-8", "ignore"
    )
    name = detail.type.removeprefix("builtins.")
    await call.send_trailing_metadata(
        status=status,
        status_message=_clip(f"{name}: {detail.message}", STATUS_BYTES_MAX),
        metadata={"snakepit-error-bin": bytes(detail)},
    )


def _clip(text: str, bytes_max: int) -> str:
    """The beginning of the text, of whole characters, in so many bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")


class HealthService:
    """grpc.health.v1, of the worker as a whole and of its service: they are the same."""

    def __init__(self, host: OwnHost) -> None:
        self._host = host

    def __mapping__(self) -> dict[str, Handler]:
        ask, reply = HealthCheckRequest, HealthCheckResponse
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            "/grpc.health.v1.Health/Check": Handler(self._check, unary, ask, reply),
            "/grpc.health.v1.Health/Watch": Handler(self._watch, stream, ask, reply),
        }

    async def _check(self, call: HealthCall) -> None:
        request = await receive(call)
        if request is not None and request.service not in ("", SERVICE):
            reason = _clip(f"there is no service {request.service!r} here", STATUS_BYTES_MAX)
            raise GRPCError(Status.NOT_FOUND, reason)
        await call.send_message(HealthCheckResponse(status=self._status()))

    async def _watch(self, call: HealthCall) -> None:
        request = await receive(call)
        told = None
        while True:
            changed = self._host.changed
            now = self._status()
            if request is not None and request.service not in ("", SERVICE):
                now = ServingStatus.SERVICE_UNKNOWN
            if now != told:
                told = now
                await call.send_message(HealthCheckResponse(status=now))
            if self._host.is_ending:
                return
            await changed.wait()

    def _status(self) -> ServingStatus:
        return ServingStatus.SERVING if self._host.is_serving else ServingStatus.NOT_SERVING
