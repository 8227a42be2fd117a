"""Memory that is given away for good, where the budget has no room for a loan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_kit import MIB, leases, link, passed, received, used

from snakepit.errors import ProtocolError
from snakepit.protocol import NIL, Call, Drop, encode_value
from snakepit.shm import Heap, make_gift
from snakepit.shm import _fd_socket as kinds
from snakepit.shm._gifts import GIFT_BYTES_MIN
from snakepit.shm._shown import GIFTS_FROM

SIZE = 5 * MIB


def mapped(size: int) -> int:
    """How many segments of that size this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "memfd:snakepit" in line]
    return sum(int(end, 16) - int(start, 16) == size for start, end in ranges)


def test_what_finds_no_room_is_given_and_goes_with_the_last_look() -> None:
    data = os.urandom(SIZE)
    with link(budget=MIB) as ends:
        for sender, receiver in (ends, ends[::-1]):
            (view,) = passed(sender, receiver, data)
            assert view == data
            assert view.readonly
            assert sender.heap.donations == 1
            assert (leases(sender), used(sender), used(receiver)) == (0, 0, 0)
            assert mapped(SIZE) == 1  # the sender keeps none
            part = view[10:20]
            del view
            assert part == data[10:20]
            del part
            assert mapped(SIZE) == 0


def test_the_same_array_twice_is_one_gift() -> None:
    data = bytes(SIZE)
    with link(budget=MIB) as (host, worker):
        assert passed(host, worker, data, data) == [data, data]
        assert host.heap.donations == 1


def test_what_is_not_contiguous_is_given_as_well() -> None:
    array = np.arange(SIZE // 4)[::2]
    heap = Heap(MIB)
    _, buffers = encode_value(array, places=heap)
    with link(heap) as (host, worker):
        (view,) = passed(host, worker, *buffers)
        assert (np.frombuffer(view, "i8") == array).all()
        assert host.heap.donations == 1
    heap.close()


def test_little_is_not_worth_it() -> None:
    assert make_gift(bytes(GIFT_BYTES_MIN - 1)) is None


def test_a_gift_whose_message_is_not_sent_is_dropped() -> None:
    with link(budget=MIB) as (host, worker):
        told: list[Drop] = []
        host.tell = told.append
        gift = make_gift(bytes(SIZE))
        assert gift is not None
        (key,) = host.strangers(call := Call(1, "t", NIL, (bytes(SIZE),)))
        bound, loans = host.bind(call, {key: gift})
        assert received(worker, bound) == [bytes(SIZE)]
        host.take_back(loans)
        host.speak()
        assert told == [Drop((GIFTS_FROM,))]
        worker.dropped(told[0].segments)  # it may come late
        assert mapped(SIZE) == 0


@pytest.mark.parametrize(
    ("number", "offset", "size"),
    [(GIFTS_FROM + 1, 0, SIZE), (GIFTS_FROM, 1, SIZE - 1), (GIFTS_FROM, 0, SIZE + 1)],
)
def test_a_reference_to_what_was_never_given_is_refused(
    number: int, offset: int, size: int
) -> None:
    with link() as (host, worker):
        give(host, GIFTS_FROM, SIZE)
        with pytest.raises(ProtocolError, match="never given"):
            worker.resolve([number, offset, size, 0, 0], {})


def test_a_gift_is_given_once() -> None:
    with link() as (host, worker):
        give(host, GIFTS_FROM, SIZE)
        reference = [GIFTS_FROM, 0, SIZE, 0, 0]
        worker.resolve(reference, {})
        worker.received_all_of([reference])
        with pytest.raises(ProtocolError, match="never given"):
            worker.resolve(reference, {})


@pytest.mark.parametrize("number", [0, 7, 2**63])
def test_a_gift_under_an_impossible_number_is_refused(number: int) -> None:
    with link() as (host, worker):
        give(host, number, SIZE)
        with pytest.raises(ProtocolError, match="number that is taken"):
            worker.dropped(())
            worker.resolve([GIFTS_FROM, 0, SIZE, 0, 0], {})


def test_a_gift_that_could_still_be_changed_is_refused() -> None:
    with link() as (host, worker):
        fd = os.memfd_create("unsealed")
        os.ftruncate(fd, SIZE)
        assert host._fds.send(kinds.GIVE, GIFTS_FROM, SIZE, fd)
        os.close(fd)
        with pytest.raises(ProtocolError, match="seals"):
            worker.resolve([GIFTS_FROM, 0, SIZE, 0, 0], {})


def give(sender: Any, number: int, size: int) -> None:
    gift = make_gift(bytes(size))
    assert gift is not None
    assert sender._fds.send(kinds.GIVE, number, size, gift.fd)
