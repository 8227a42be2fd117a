"""A host that may open no more descriptors cannot see what is shown: its workers are not ended for that."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from link_kit import MIB, leases, link, passed, received, used
from test_gifts import mapped

from snakepit.errors import ProtocolError, SerializationError
from snakepit.protocol import NIL, Drop, Missing, Result, decode_value, encode_value
from snakepit.shm import Endpoint

SIZE = 5 * MIB


@contextmanager
def no_descriptors() -> Iterator[None]:
    """For this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/dev/fd")))
    with ExitStack() as stack:
        for _ in range(highest):  # no number below the limit is free
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def sent(worker: Endpoint, data: bytes) -> Any:
    return worker.place(Result(1, NIL, (data,)))


def test_what_a_host_cannot_see_is_missing_and_is_seen_once_it_can() -> None:
    with link() as (host, worker):
        first, second = sent(worker, b"\1" * MIB), sent(worker, b"\2" * SIZE)
        with no_descriptors():
            for message, size in ((first, MIB), (second, SIZE)):
                (missing,) = received(host, message)
                assert type(missing) is Missing
                assert len(missing) == size
                assert "RLIMIT_NOFILE" in missing.why
        assert leases(worker) == 0  # it has been given back, though nobody saw it
        assert used(worker) == 0
        assert passed(worker, host, b"\3" * MIB) == [b"\3" * MIB]
        assert passed(worker, host, b"\4" * SIZE) == [b"\4" * SIZE]


def test_whoever_reads_it_is_told_why() -> None:
    body, buffers = encode_value(memoryview(bytes(MIB)))
    with pytest.raises(SerializationError, match="nobody knows"):
        decode_value(body, (Missing(MIB, "nobody knows"),))
    assert decode_value(body, buffers) == bytes(MIB)


def test_what_is_given_up_before_it_was_seen_is_not_taken_in() -> None:
    with link() as (host, worker):
        message = sent(worker, bytes(MIB))
        told: list[Drop] = []
        worker.tell = told.append
        with no_descriptors():
            assert type(received(host, message)[0]) is Missing
            del message
            worker.heap.reclaim()
            worker.heap.trim()
            worker.heap.speak()
            host.dropped(told[0].segments)
        assert passed(worker, host, b"\1" * MIB) == [b"\1" * MIB]
        assert len(host.shown.segments) == 1
        with pytest.raises(ProtocolError, match="never shown"):
            host.dropped(told[0].segments)


@pytest.mark.parametrize("said", [True, False], ids=["whose message came", "whose message did not"])
def test_a_gift_that_was_not_seen_is_not_kept(said: bool) -> None:
    with link(budget=MIB) as (host, worker):
        message = sent(worker, bytes(SIZE))
        (number, *_) = message.buffers[0]
        with no_descriptors():
            if said:
                assert type(received(host, message)[0]) is Missing
            else:
                host.dropped((number,))
        assert passed(worker, host, bytes(MIB)) == [bytes(MIB)]
        host.shown.read_records()
        assert not host.shown.given
        assert mapped(SIZE) == 0


def test_a_worker_without_descriptors_is_of_no_use() -> None:
    """Another one may have some: so it ends as if it had broken the protocol."""
    with link() as (host, worker):
        bound = host.place(Result(1, NIL, (bytes(MIB),)))
        with no_descriptors(), pytest.raises(ProtocolError, match="RLIMIT_NOFILE"):
            received(worker, bound)
