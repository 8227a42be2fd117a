"""Descriptors arrive with their record, private to their process; what is wrong with them is said."""

from __future__ import annotations

import array
import os
import resource
import socket
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from snakepit.errors import ProtocolError
from snakepit.shm import _fd_socket as kinds
from snakepit.shm._fd_socket import RECORD, FdSocket


@contextmanager
def pair() -> Generator[tuple[FdSocket, socket.socket]]:
    """Our end, and the raw other one."""
    ours, theirs = socket.socketpair()
    end = FdSocket(ours.detach())
    try:
        yield end, theirs
    finally:
        end.close()
        theirs.close()


@contextmanager
def open_fds(count: int) -> Generator[list[int]]:
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def send_raw(to: socket.socket, data: bytes, fds: list[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    to.sendmsg([data], [rights] if fds else [])


def count_fds() -> int:
    return len(os.listdir("/dev/fd"))


def test_records_come_in_order_each_with_its_own_descriptor() -> None:
    with pair() as (end, theirs), open_fds(1) as (fd,):
        other = FdSocket(theirs.detach())
        assert other.send(kinds.HELLO)
        for number in range(5):
            assert other.send(kinds.SHOW, number, 4096, fd)
        assert end.receive() == (kinds.HELLO, 0, 0, -1)
        for number in range(5):
            record = end.receive()
            assert record is not None
            assert record[:3] == (kinds.SHOW, number, 4096)
            assert not os.get_inheritable(record[3])
            assert os.path.samestat(os.fstat(record[3]), os.fstat(fd))
            os.close(record[3])
        assert end.receive() is None
        other.close()
        assert end.receive() is None
        assert not end.send(kinds.HELLO)


@pytest.mark.parametrize(
    ("kind", "count"), [(kinds.SHOW, 0), (kinds.HELLO, 1), (kinds.SHOW, 2), (kinds.SHOW, 4)]
)
def test_another_number_of_descriptors_than_the_record_has_is_a_breach(
    kind: int, count: int
) -> None:
    with pair() as (end, theirs), open_fds(count) as fds:
        send_raw(theirs, RECORD.pack(kind, 1, 4096), fds)
        before = count_fds()
        with pytest.raises(ProtocolError, match=f"{count} descriptors came"):
            end.receive()
        assert count_fds() == before


def test_more_descriptors_than_there_is_room_for_are_a_breach_and_none_stays() -> None:
    with pair() as (end, theirs), open_fds(20) as fds:
        send_raw(theirs, RECORD.pack(kinds.SHOW, 1, 4096), fds)
        before = count_fds()
        with pytest.raises(ProtocolError, match="lost on its way"):
            end.receive()
        assert count_fds() == before


def test_a_process_that_may_open_no_more_is_told_so() -> None:
    with pair() as (end, theirs), open_fds(1) as fds:
        send_raw(theirs, RECORD.pack(kinds.SHOW, 1, 4096), fds)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/dev/fd")))
        with open_fds(highest):  # no number below the limit is free
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            try:
                with pytest.raises(ProtocolError, match="RLIMIT_NOFILE"):
                    end.receive()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_half_a_record_is_a_breach() -> None:
    with pair() as (end, theirs):
        theirs.send(RECORD.pack(kinds.HELLO, 0, 0)[:-1])
        with pytest.raises(ProtocolError, match="23 bytes"):
            end.receive()


def test_a_socket_that_is_full_takes_no_more_and_nothing_waits() -> None:
    with pair() as (end, theirs), open_fds(1) as (fd,):
        sent = 0
        while end.send(kinds.SHOW, sent, 4096, fd):
            sent += 1
            assert sent < 10_000
        other = FdSocket(theirs.detach())
        for number in range(sent):
            record = other.receive()
            assert record is not None
            assert record[1] == number
            os.close(record[3])
        assert other.receive() is None
        other.close()
