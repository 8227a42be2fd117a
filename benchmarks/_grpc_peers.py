"""Callers of gRPC, on asyncio: grpclib and grpcio, and the servers that they call."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks._contender import Calls, Contender
from benchmarks._grpc_stubs import stubs

NO_PARAMS: Final = b"\x80"  # as msgpack has {}
Nothing = Callable[[], Awaitable[Any]]
Server = Callable[[Path], list[str]]  # its arguments, that it may answer on this path


def plain(kind: str) -> Server:
    """One of `_grpc_servers`."""
    return lambda path: ["benchmarks._grpc_servers", kind, str(path)]


def worker(path: Path) -> list[str]:
    """A worker of ours that serves any client."""
    adapter = ["--adapter", "benchmarks._adapter:Work", "--listen", f"unix:{path}"]
    return ["snakepit.worker", *adapter]


@contextmanager
def served(*arguments: str, path: Path) -> Iterator[None]:
    """A server in a process of its own, which answers on this path."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            if not path.exists():
                process.kill()
                raise RuntimeError(f"{arguments}: {first}{process.stdout.read()}")
            yield
        finally:
            process.kill()


class GrpcContender(Contender):
    """One caller's process and one server's: `workers` is not heard. Only `nothing` is of use."""

    backend = "asyncio"

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self._server = server

    def load(self) -> None:
        for module in ("grpclib", "betterproto2"):
            importlib.import_module(module)

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        del workers
        with tempfile.TemporaryDirectory() as folder:
            async with self.called(Path(folder)) as nothing:
                yield Calls(nothing, _not_offered, _not_offered)

    @abstractmethod
    def called(self, folder: Path) -> AbstractAsyncContextManager[Nothing]:
        """A call that does nothing, for as long as the block."""


class Grpclib(GrpcContender):
    """A unary call of grpclib, as it comes."""

    @asynccontextmanager
    async def called(self, folder: Path) -> AsyncGenerator[Nothing]:
        from grpclib.client import Channel, UnaryUnaryMethod

        from snakepit.grpc._generated.snakepit.v1 import ExecuteReply, ExecuteRequest, Value

        path = folder / "socket"
        with served(*self._server(path), path=path):
            async with Channel(path=str(path)) as channel:
                execute = UnaryUnaryMethod(
                    channel, "/snakepit.v1.Worker/Execute", ExecuteRequest, ExecuteReply
                )

                async def nothing() -> Any:
                    return await execute(
                        ExecuteRequest(tool="nothing", params=Value(msgpack=NO_PARAMS))
                    )

                yield nothing


class GrpcAio(GrpcContender):
    """A unary call of grpcio's asyncio client."""

    def load(self) -> None:
        super().load()  # for its server
        self._grpc = importlib.import_module("grpc.aio")
        self._messages, self._services = stubs("worker")

    @asynccontextmanager
    async def called(self, folder: Path) -> AsyncGenerator[Nothing]:
        path = folder / "socket"
        messages = self._messages
        with served(*self._server(path), path=path):
            async with self._grpc.insecure_channel(f"unix:{path}") as channel:
                execute = self._services.WorkerStub(channel).Execute

                async def nothing() -> Any:
                    params = messages.Value(msgpack=NO_PARAMS)
                    return await execute(messages.ExecuteRequest(tool="nothing", params=params))

                yield nothing


class CallBack(GrpcContender):
    """grpcio on both sides, and a call from the worker back to its host for each request."""

    def load(self) -> None:
        self._grpc = importlib.import_module("grpc.aio")
        self._messages, self._services = stubs("callback")

    @asynccontextmanager
    async def called(self, folder: Path) -> AsyncGenerator[Nothing]:
        messages, services = self._messages, self._services
        some_text = importlib.import_module("google.protobuf.wrappers_pb2").StringValue(value="{}")

        class Sessions(services.SessionsServicer):  # type: ignore[misc, name-defined]
            async def InitializeSession(self, request: Any, context: Any) -> Any:  # noqa: N802
                del request, context
                return messages.SessionReply(success=True)

        path, host = folder / "socket", folder / "host"
        server = self._grpc.server()
        services.add_SessionsServicer_to_server(Sessions(), server)
        server.add_insecure_port(f"unix:{host}")
        await server.start()
        try:
            with served(*self._server(path), str(host), path=path):
                async with self._grpc.insecure_channel(f"unix:{path}") as channel:
                    execute = services.ToolWorkerStub(channel).ExecuteTool

                    async def nothing() -> Any:
                        request = messages.ExecuteToolRequest(session_id="s", tool_name="nothing")
                        request.parameters["value"].Pack(some_text)
                        return await execute(request)

                    yield nothing
        finally:
            await server.stop(None)


async def _not_offered(*_: object) -> None:
    raise NotImplementedError("only calls that do nothing are compared here")


GRPCLIB: Final = Grpclib("grpclib", plain("grpclib"))
AIO: Final = GrpcAio("grpc.aio", plain("grpcio"))
AIO_TO_GRPCLIB: Final = GrpcAio("grpc.aio to grpclib", plain("grpclib"))
AIO_TO_SNAKEPIT: Final = GrpcAio("grpc.aio to a snakepit worker", worker)
CALL_BACK: Final = CallBack("grpc.aio with a call back", plain("callback"))

GRPC_PEERS: Final[tuple[Contender, ...]] = (
    GRPCLIB,
    AIO,
    AIO_TO_GRPCLIB,
    AIO_TO_SNAKEPIT,
    CALL_BACK,
)
