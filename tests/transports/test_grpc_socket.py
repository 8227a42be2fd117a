"""The socket of a worker's link when nobody reads at its other end any more."""

from __future__ import annotations

import socket

from snakepit.transports._grpc import PatientSocket


def test_a_write_to_nobody_does_not_fail_whichever_way_it_is_made() -> None:
    """asyncio would give up what has come; from Python 3.12 on it writes with sendmsg."""
    ours, theirs = socket.socketpair()
    with PatientSocket(fileno=ours.detach()) as patient, theirs:
        theirs.send(b"last words")
        theirs.close()
        assert patient.send(b"abc") == 3
        assert patient.sendmsg([b"abc", memoryview(b"defg")]) == 7
        assert patient.recv(100) == b"last words"
        assert patient.recv(100) == b""
