"""Where the name of a worker's host leads, looked up on the host's loop.

grpclib's thread beside trio would look names up in threads for which the interpreter waits when it
ends: for as long as a name server does not answer. Those of trio it does not wait for.
"""

from __future__ import annotations

import ipaddress
import socket

import anyio
import anyio.lowlevel

from snakepit._address import Address

Place = tuple[str, int]  # a number of IP's, a port


async def places_of(address: Address) -> list[Place]:
    """In the order in which they are to be tried; none of a Unix socket. Raises OSError."""
    if address.path or _is_number(address.host):
        await anyio.lowlevel.checkpoint()
        return [] if address.path else [(address.host, address.port)]
    found = await anyio.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((where[0], where[1]) for *_, where in found))


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
