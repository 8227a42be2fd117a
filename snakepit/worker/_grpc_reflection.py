"""Server reflection, v1 and v1alpha, which are the same on the wire.

The descriptors are those that the compiler has written beside the generated code. Of them only the
names are read, so no runtime of protobuf's own is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

from grpclib.const import Cardinality, Handler, Status
from grpclib.server import Stream

from snakepit.grpc import fields_of, receive
from snakepit.grpc._generated.grpc.reflection.v1 import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)
from snakepit.worker._grpc_host import OwnHost

# Fields of google/protobuf/descriptor.proto.
FILE: Final = 1  # of a set
NAME, PACKAGE, DEPENDENCY, MESSAGE, ENUM, SERVICE = 1, 2, 3, 4, 5, 6  # of a file
INNER_NAME, METHOD = 1, 2  # of a message, an enum, a service; of a service
INNER_MESSAGE, INNER_ENUM = 3, 4  # of a message

Call = Stream[ServerReflectionRequest, ServerReflectionResponse]


class File:
    """One file descriptor: its bytes, and the names in it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        fields = list(fields_of(data))
        self.name = next(value.decode() for number, value in fields if number == NAME)
        self.needs = [value.decode() for number, value in fields if number == DEPENDENCY]
        package = next((value.decode() for number, value in fields if number == PACKAGE), "")
        self.services: list[str] = []
        self.symbols: set[str] = set()
        for number, value in fields:
            if number in (MESSAGE, ENUM, SERVICE):
                symbol = f"{package}.{_name(value)}"
                self.symbols.add(symbol)
                if number == MESSAGE:
                    self.symbols.update(_inside(value, symbol))
                if number == SERVICE:
                    self.services.append(symbol)
                    inner = (data for kind, data in fields_of(value) if kind == METHOD)
                    self.symbols |= {f"{symbol}.{_name(method)}" for method in inner}


def _name(descriptor: bytes) -> str:
    return next(value.decode() for number, value in fields_of(descriptor) if number == INNER_NAME)


def _inside(message: bytes, name: str) -> Iterator[str]:
    """The messages and enums in this one, at any depth."""
    for number, value in fields_of(message):
        if number in (INNER_MESSAGE, INNER_ENUM):
            symbol = f"{name}.{_name(value)}"
            yield symbol
            if number == INNER_MESSAGE:
                yield from _inside(value, symbol)


class ReflectionService:
    """Answers for all services of protos/."""

    def __init__(self, host: OwnHost) -> None:
        self._host = host
        data = files("snakepit.grpc").joinpath("_generated/protos.binpb").read_bytes()
        self._files = {file.name: file for _, value in fields_of(data) for file in [File(value)]}

    def __mapping__(self) -> dict[str, Handler]:
        kind = Cardinality.STREAM_STREAM
        handler = Handler(self._info, kind, ServerReflectionRequest, ServerReflectionResponse)
        name = "ServerReflection/ServerReflectionInfo"
        return {f"/grpc.reflection.{version}.{name}": handler for version in ("v1", "v1alpha")}

    async def _info(self, call: Call) -> None:
        while (request := await self._next(call)) is not None:
            await call.send_message(self._answer(request))

    async def _next(self, call: Call) -> ServerReflectionRequest | None:
        """What is asked next; None if nothing more is, or the worker begins to end."""
        request = receive(call)
        asked = asyncio.ensure_future(request)
        ending = asyncio.ensure_future(self._host.until_ending())
        try:
            await asyncio.wait((asked, ending), return_when=asyncio.FIRST_COMPLETED)
            return asked.result() if asked.done() else None
        finally:
            asked.cancel()
            ending.cancel()
            await asyncio.gather(asked, ending, return_exceptions=True)

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        answer = ServerReflectionResponse(valid_host=request.host, original_request=request)
        if request.list_services is not None:
            names = sorted(name for file in self._files.values() for name in file.services)
            services = [ServiceResponse(name=name) for name in names]
            answer.list_services_response = ListServiceResponse(service=services)
            return answer
        found: File | None = None
        if request.file_by_filename is not None:
            found = self._files.get(request.file_by_filename)
        elif (symbol := request.file_containing_symbol) is not None:
            found = next((file for file in self._files.values() if symbol in file.symbols), None)
        else:
            error = ErrorResponse(
                error_code=Status.UNIMPLEMENTED.value, error_message="there are no extensions here"
            )
            answer.error_response = error
            return answer
        if found is None:
            error = ErrorResponse(error_code=Status.NOT_FOUND.value, error_message="not known here")
            answer.error_response = error
        else:
            data = [file.data for file in self._with_needs(found)]
            answer.file_descriptor_response = FileDescriptorResponse(file_descriptor_proto=data)
        return answer

    def _with_needs(self, file: File) -> Iterator[File]:
        yield file
        for name in file.needs:
            yield from self._with_needs(self._files[name])
