"""Where a worker that serves any gRPC client listens, and who may call it: its command line.

Files are plain PEM. Other machines get in by TLS and a secret alone: a client certificate or the token.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import socket
import ssl
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from snakepit._address import Address, is_loopback, parse_address
from snakepit.grpc import TOKEN_KEY, keep_alive, load_authorities, load_identity, read_token

BACKLOG: Final = 100
MIB: Final = 2**20
REQUEST_MB_MAX: Final = 256


class Listening:
    """What the command line asks for, checked: sockets that listen, the token, TLS for TCP."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.adapter: str = arguments.adapter
        self.request_bytes_max: int = arguments.max_request_mb * MIB
        self.token: str | None = None
        self.tls = _tls(arguments)
        self.listeners: list[socket.socket] = []
        self._files: dict[str, tuple[int, int]] = {}  # by path: device and inode of our socket
        if arguments.token_file is not None:
            self.token = read_token(arguments.token_file, "--token-file")
        self._may_be_seen = self.tls is not None and bool(self.token or arguments.tls_client_ca)
        try:
            for text in arguments.listen:
                self.listeners.append(self._listen_at(text))
        except BaseException:  # of the second one, say
            self.close()
            raise

    def tls_of(self, listener: socket.socket) -> ssl.SSLContext | None:
        """TLS is for TCP: a Unix socket is this user's alone."""
        return None if listener.family == socket.AF_UNIX else self.tls

    def close(self) -> None:
        """Listen no more, and leave nothing behind."""
        for listener in self.listeners:
            listener.close()
        self.remove()

    def remove(self) -> None:
        """Remove the files of Unix sockets, but for those whose place another one has taken."""
        for path, file in self._files.items():
            with suppress(OSError):
                if _file_at(path) == file:
                    os.unlink(path)

    def _listen_at(self, text: str) -> socket.socket:
        try:
            return self._listen(parse_address(text))
        except OSError as error:
            raise OSError(f"--listen {text}: {error}") from error

    def _listen(self, address: Address) -> socket.socket:
        if address.path:
            with _alone_at(address.path):
                made = self._bind(address.path)
                made.listen(BACKLOG)
        else:
            made = self._open_port(address)
            made.listen(BACKLOG)
        made.setblocking(False)
        return made

    def _bind(self, path: str) -> socket.socket:
        _forget_dead_socket(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # this user's alone, from the first moment
        try:
            made.bind(path)
            self._files[os.path.abspath(path)] = _file_at(path)  # wherever a tool goes
        except OSError:
            made.close()
            raise
        finally:
            os.umask(mask)
        return made

    def _open_port(self, address: Address) -> socket.socket:
        kind, way = socket.AddressFamily, socket.SOCK_STREAM
        found = socket.getaddrinfo(address.host, address.port, type=way, flags=socket.AI_PASSIVE)
        # With its protocol told asyncio knows that it is TCP, and lets no small write wait for others.
        family, protocol, where = kind(found[0][0]), found[0][2], found[0][4]
        if not self._may_be_seen and not is_loopback(str(where[0])):
            raise ValueError(
                f"--listen: other machines can reach {address}, so it takes --tls-cert and --tls-key, "
                "and one of --tls-client-ca and --token-file; or listen on tcp:127.0.0.1:PORT"
            )
        made = socket.socket(family, way, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keep_alive(made)  # those that it accepts have it from here
            made.bind(where)
        except OSError:
            made.close()
            raise
        return made


def listen_as_told(argv: list[str]) -> Listening:
    """Listen where the arguments say. Exits with 2 where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m snakepit.worker", description="A worker for pools and any gRPC client."
    )
    parser.add_argument("--adapter", required=True, metavar="pkg.module:Class")
    parser.add_argument(
        "--listen",
        required=True,
        action="append",
        metavar="ADDRESS",
        help="unix:/path, or tcp:HOST:PORT (loopback, unless there is TLS and a secret); may be given again",
    )
    parser.add_argument(
        "--token-file", metavar="PATH", help=f"calls must carry its content as {TOKEN_KEY}"
    )
    parser.add_argument("--tls-cert", metavar="PEM", help="our certificate chain, for TCP")
    parser.add_argument("--tls-key", metavar="PEM", help="its private key")
    parser.add_argument(
        "--tls-client-ca", metavar="PEM", help="clients must have a certificate that these signed"
    )
    parser.add_argument(
        "--max-request-mb",
        type=int,
        default=REQUEST_MB_MAX,
        metavar="MIB",
        help="a larger request is RESOURCE_EXHAUSTED (%(default)s)",
    )
    arguments = parser.parse_args(argv)
    if not arguments.adapter:
        parser.error("--adapter: it is empty")
    if arguments.max_request_mb < 1:
        parser.error("--max-request-mb: it must be 1 or more")
    try:
        return Listening(arguments)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def address_of(listener: socket.socket) -> Address:
    """As `--listen` takes it; with the port that was given for port 0."""
    name = listener.getsockname()
    return Address(name, "", 0) if isinstance(name, str) else Address("", name[0], name[1])


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    cert, key, client_ca = arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca
    if cert is None:
        if key is not None or client_ca is not None:
            raise ValueError("--tls-key and --tls-client-ca need --tls-cert")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    load_identity(context, cert, key, "--tls-cert, --tls-key")
    if client_ca is not None:
        load_authorities(context, client_ca, "--tls-client-ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def _alone_at(path: str) -> Generator[None]:
    """No other worker looks for a dead socket, or puts its own there, until this one listens.

    The file that is locked stays: removed, it could be locked by one and made anew by another.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(f"{path}.lock", flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _file_at(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _forget_dead_socket(path: str) -> None:
    """Remove what a worker that was killed has left: a socket on which nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # for an ordinary file, too
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        except OSError:
            pass  # nothing is there, or bind will say what it is
