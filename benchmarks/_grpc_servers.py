"""The servers that gRPC contenders call: `python -m benchmarks._grpc_servers KIND PATH [HOST]`.

Each answers on the Unix socket PATH with what a tool that returns nothing would, and prints a line
when it can. `grpclib`: as it comes, with betterproto2's messages. `grpcio`: grpc.aio, with
protobuf's. `callback`: grpc.aio, and each request asks the host, at the Unix socket HOST, for its
session, as bridges do that keep sessions there.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from benchmarks._grpc_stubs import stubs

NOTHING: Final = b"\xc0"  # as msgpack has None


async def grpclib_server(path: str) -> None:
    """The least that answers `Execute`."""
    from grpclib.const import Cardinality, Handler
    from grpclib.server import Server

    from snakepit.grpc._generated.snakepit.v1 import ExecuteReply, ExecuteRequest, Value

    async def execute(call: Any) -> None:
        await call.recv_message()
        await call.send_message(ExecuteReply(value=Value(msgpack=NOTHING)))

    class Service:
        def __mapping__(self) -> dict[str, Handler]:
            kind = Cardinality.UNARY_UNARY
            return {
                "/snakepit.v1.Worker/Execute": Handler(execute, kind, ExecuteRequest, ExecuteReply)
            }

    server = Server([Service()])
    await server.start(path=path)
    _ready()
    await server.wait_closed()


async def grpcio_server(path: str) -> None:
    """The same with grpcio."""
    import grpc

    messages, services = stubs("worker")

    class Service(services.WorkerServicer):  # type: ignore[misc, name-defined]
        async def Execute(self, request: Any, context: Any) -> Any:  # noqa: N802 - as in the proto
            del request, context
            return messages.ExecuteReply(value=messages.Value(msgpack=NOTHING))

    server = grpc.aio.server()
    services.add_WorkerServicer_to_server(Service(), server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    _ready()
    await server.wait_for_termination()


async def callback_server(path: str, host: str) -> None:
    """A worker that asks for the session of each request."""
    import grpc

    messages, services = stubs("callback")
    nothing = importlib.import_module("google.protobuf.any_pb2").Any()
    async with grpc.aio.insecure_channel(f"unix:{host}") as channel:
        sessions = services.SessionsStub(channel)

        class Service(services.ToolWorkerServicer):  # type: ignore[misc, name-defined]
            async def ExecuteTool(self, request: Any, context: Any) -> Any:  # noqa: N802 - as above
                del context
                ask = messages.SessionRequest(session_id=request.session_id)
                await sessions.InitializeSession(ask)
                dict(request.parameters)
                return messages.ExecuteToolReply(success=True, result=nothing)

        server = grpc.aio.server()
        services.add_ToolWorkerServicer_to_server(Service(), server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        _ready()
        await server.wait_for_termination()


def _ready() -> None:
    print("ready", flush=True)


SERVERS: Final[dict[str, Callable[..., Awaitable[None]]]] = {
    "grpclib": grpclib_server,
    "grpcio": grpcio_server,
    "callback": callback_server,
}


async def main() -> None:
    """Serve until killed."""
    await SERVERS[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    asyncio.run(main())
