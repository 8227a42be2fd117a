"""A `Connect` call to a worker that somebody else has started: by its address, in TLS where told.

The token and the certificates are files, and read anew for each connection: they may be renewed
while the pool is open.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
from attrs import frozen
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import decode_grpc_message
from grpclib.protocol import H2Protocol

from snakepit._address import Address
from snakepit.errors import ProtocolError
from snakepit.grpc import (
    POOL_KEY,
    TOKEN_KEY,
    keep_alive,
    load_authorities,
    load_identity,
    read_token,
)
from snakepit.options import Connect
from snakepit.process import guard_fds
from snakepit.transports._grpc import GrpcByteChannel, PatientSocket
from snakepit.transports._grpc_home import Home, home
from snakepit.transports._grpc_names import Place, places_of
from snakepit.transports._grpc_stream import Call, GrpcStream, OwnSocketChannel

STATUSES: Final = {str(status.value): status for status in Status}
OK: Final = str(Status.OK.value)


@frozen
class Credentials:
    """What is shown to a worker, and asked of it. `server_name`: whose its certificate has to be."""

    token: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


class DialledConnection(OwnSocketChannel):
    """A connection that has yet to be made: to the first of `places` that takes it, where it is TCP."""

    def __init__(self, path: str, places: Sequence[Place], credentials: Credentials) -> None:
        super().__init__(None)
        self._unix_path, self._places, self._credentials = path, places, credentials
        if credentials.tls is not None:
            self._scheme = "https"

    async def _create_connection(self) -> H2Protocol:
        if self._unix_path:
            self._socket = PatientSocket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._guard(self._socket.fileno())
            self._socket.setblocking(False)
            await self._loop.sock_connect(self._socket, self._unix_path)
            return await super()._create_connection()
        transport, protocol = await self._reach()
        if transport.is_closing():  # at the other end it was closed at once
            raise ConnectionResetError("the connection was closed when it had been made")
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._guard(self._socket.fileno())
        keep_alive(self._socket)
        return protocol

    async def _reach(self) -> tuple[asyncio.Transport, H2Protocol]:
        tls, name = self._credentials.tls, self._credentials.server_name
        errors: list[OSError] = []
        for host, port in self._places:
            try:
                return await self._loop.create_connection(
                    self._protocol_factory, host, port, ssl=tls, server_hostname=name
                )
            except OSError as error:
                errors.append(error)
        raise errors[0] if len(errors) == 1 else OSError("; ".join(map(str, errors)))

    def _guard(self, fd: int) -> None:
        self._guarded = fd
        guard_fds(fd)


class DialledStream(GrpcStream):
    """The host's end of a call to that address. `credentials` and `places` are set before it is carried."""

    def __init__(self, home: Home, address: Address, pool: str) -> None:
        super().__init__(home, None, "")
        self._address = address
        del self._metadata[TOKEN_KEY]  # it is in a file, if there is one
        self._metadata[POOL_KEY] = pool
        self._connection: DialledConnection | None = None
        self.credentials = Credentials()
        self.places: Sequence[Place] = ()

    def hang_up(self) -> None:
        """End the connection: what has come can be read, and then its end."""
        self._home.to_grpc(self._hang_up)

    def never_carry(self, failure: Exception) -> None:
        """It has ended before it began."""
        self.failure, self._ended = failure, True
        self._on_wake()

    # -- grpclib's side ------------------------------------------------------------------------

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _open_channel(self) -> OwnSocketChannel:
        if self.credentials.token:
            self._metadata[TOKEN_KEY] = self.credentials.token
        self._connection = DialledConnection(self._address.path, self.places, self.credentials)
        return self._connection

    async def _pull(self, call: Call) -> None:
        try:
            await super()._pull(call)
        except (StreamTerminatedError, OSError, ProtocolError) as error:
            self.failure = refusal(_headers(call)) or error
            raise
        self.failure = refusal(_headers(call))


def refusal(headers: Mapping[str, str]) -> GRPCError | None:
    """The status, which grpclib tells to those who ask for messages; this asked for bytes.

    `headers`: all that has come of them, trailers too.
    """
    http, told = headers.get(":status", "200"), headers.get("grpc-status")
    if told is None and http != "200":
        return GRPCError(Status.UNAVAILABLE, f"what answers there is no worker: HTTP status {http}")
    if told in (None, OK):
        return None
    status = STATUSES.get(told, Status.UNKNOWN)
    return GRPCError(status, decode_grpc_message(headers.get("grpc-message", f"status {told}")))


def _headers(call: Call) -> dict[str, str]:
    return dict(call._stream.headers or ()) | dict(call._stream.trailers or ())


class DialledChannel(GrpcByteChannel):
    """A channel to a worker that lives on without it. `ended` is set when the link has, by whoever."""

    def __init__(self, home: Home, connect: Connect, address: Address, pool: str) -> None:
        self._dialled = DialledStream(home, address, pool)
        super().__init__(self._dialled, home)
        self._connect, self._address = connect, address
        self.ended = anyio.Event()

    @property
    def failure(self) -> str:
        """Why it has ended, where that is known; else ""."""
        failure = self._dialled.failure
        if isinstance(failure, GRPCError):
            return f"{failure.status.name}: {failure.message}"
        return "" if failure is None else str(failure) or type(failure).__name__

    def hang_up(self) -> None:
        """End the connection; the reader finds its end. If there is none yet, there never is."""
        self.ended.set()
        self._dialled.hang_up()

    async def _carry_bytes(self) -> None:  # noqa: ASYNC910 - what its files say ends it at once
        connect, stream = self._connect, self._dialled
        try:
            if connect.has_files:
                load = partial(credentials_for, connect, self._address)
                stream.credentials = await anyio.to_thread.run_sync(load)
            stream.places = await places_of(self._address)
            await super()._carry_bytes()
        except (OSError, ValueError) as error:  # of the files, or no such name
            stream.never_carry(error)
        finally:
            self.ended.set()


@contextmanager
def dial(connect: Connect, address: Address, pool: str) -> Generator[DialledChannel]:
    """A channel to the worker there, in a block. Somebody has to run it."""
    at = home()
    try:
        yield DialledChannel(at, connect, address, pool)
    finally:
        at.leave()


def credentials_for(connect: Connect, address: Address) -> Credentials:
    """Read the files. Raises OSError, ValueError: one cannot be read, or makes no sense."""
    file = connect.token_file
    token = "" if file is None else read_token(file, "Connect.token_file")
    if connect.tls_ca is None or address.path:
        return Credentials(token)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    load_authorities(context, connect.tls_ca, "Connect.tls_ca")
    if connect.tls_cert is not None:
        load_identity(
            context, connect.tls_cert, connect.tls_key, "Connect.tls_cert, Connect.tls_key"
        )
    return Credentials(token, context, connect.tls_name or address.host)
