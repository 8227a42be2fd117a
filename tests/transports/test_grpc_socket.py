"""The socket of a worker's link when nobody reads at its other end any more."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from snakepit.transports._grpc import GrpcTransport, PatientSocket


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


def test_a_link_is_made_also_where_the_folder_for_such_files_has_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`TMPDIR` of a build farm, say: a socket's path is bounded."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with GrpcTransport().open_link() as link:
        assert link.pass_fds
    assert os.listdir(long) == []
