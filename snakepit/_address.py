"""Where a worker serves: `unix:/path` or `tcp:HOST:PORT`, as workers and pools are told it."""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Final, NamedTuple

LOOPBACK_NAME = "localhost"
PORT_MAX = 65535
UNIX_PATH_BYTES_MAX: Final = 107 if sys.platform == "linux" else 103  # as the kernel has it


class Address(NamedTuple):
    """One address. `path` is "" where it is TCP; `host` is a name or a number, without brackets."""

    path: str
    host: str
    port: int

    @property
    def is_private(self) -> bool:
        """Is it out of reach of other machines?"""
        return bool(self.path) or is_loopback(self.host)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address of that text. Raises ValueError, which says what is allowed."""
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest and "\0" not in rest:
        if not fits_a_socket(rest):
            raise ValueError(
                f"{text!r}: the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes, and this one "
                f"{len(os.fsencode(rest))}; choose a shorter one, or one relative to the working directory"
            )
        return Address(rest, "", 0)
    host, _, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if kind != "tcp" or not host or not _is_port(port):
        raise ValueError(f"{text!r} is neither unix:/path nor tcp:HOST:PORT")
    return Address("", host, int(port))


def fits_a_socket(path: str) -> bool:
    """Is the path short enough for a Unix socket?"""
    return len(os.fsencode(path)) <= UNIX_PATH_BYTES_MAX


def is_loopback(host: str) -> bool:
    """Does that name or number mean this machine alone?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOOPBACK_NAME


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) <= PORT_MAX
