"""Who writes next on a worker's wire: a message that waits goes before the next part of a large one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest
from msgspec import Raw

from snakepit.protocol import (
    PART_BYTES_MAX,
    Result,
    Settled,
    ToHost,
    Unpacker,
    decode_to_host,
)
from snakepit.worker._wire import Wire

READ_BYTES = 2**14
HEADS_BYTES_MAX = 100  # of a part and of the small message


def send(wire: Wire, message: ToHost) -> None:
    with suppress(BrokenPipeError):  # the host goes away when it has seen enough
        wire.send(message)


def send_taken(wire: Wire, message: ToHost) -> None:
    assert wire.send_taken(lambda: message, wait=True)


@pytest.mark.parametrize("send_small", [send, send_taken])
def test_a_message_waits_for_the_part_that_was_begun_and_for_no_other(send_small: Any) -> None:
    """Whoever lets go of a lock mostly gets it again, long before the thread that waits has woken."""
    host, worker = socket.socketpair()
    with host, worker:
        wire = Wire(os.dup(worker.fileno()), os.dup(worker.fileno()))
        value = Result(1, Raw(b"\xc0"), (bytes(8 * PART_BYTES_MAX),))
        large = Thread(target=send, args=(wire, value))
        small = Thread(target=send_small, args=(wire, Settled(2)))
        large.start()
        until(lambda: wire._lock.locked() and not wire._door.locked())  # it writes its first part
        small.start()
        until(wire._door.locked)  # it waits
        assert bytes_before(host, Settled(2)) <= PART_BYTES_MAX + READ_BYTES + HEADS_BYTES_MAX
        host.close()
        for thread in (large, small):
            thread.join(20)
        wire.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def bytes_before(host: socket.socket, message: ToHost) -> int:
    """How much comes up to this message."""
    unpacker: Unpacker[ToHost] = Unpacker(decode_to_host)
    count = 0
    while chunk := host.recv(READ_BYTES):
        count += len(chunk)
        if message in unpacker.feed(chunk):
            return count
    raise AssertionError("it never comes")
