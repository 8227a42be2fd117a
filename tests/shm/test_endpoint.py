"""Both ends of a link in one process: what travels by reference, how long it stays, and lies."""

from __future__ import annotations

import gc
import os
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from link_kit import BUDGET, KIB, MIB, THRESHOLD, leases, link, passed, received, used

from snakepit.errors import ProtocolError
from snakepit.protocol import NIL, Drop, Result
from snakepit.shm import Endpoint, FdSocket, Heap, _heap, open_for_host
from snakepit.shm import _fd_socket as kinds
from snakepit.shm._leases import SLOTS
from snakepit.shm._memory import address_of
from snakepit.shm._segments import create


def test_both_ways_what_arrives_is_what_was_sent_and_cannot_be_written() -> None:
    data = os.urandom(3 * MIB)
    with link() as ends:
        for sender, receiver in (ends, ends[::-1]):
            (view,) = passed(sender, receiver, data)
            assert view.readonly
            assert view == data
            assert sender.heap.copied_bytes == len(data)


def test_what_is_small_is_left_alone() -> None:
    with link() as (host, worker):
        small = memoryview(bytes(THRESHOLD - 1))
        assert passed(host, worker, small) == [small]
        assert host.heap.references == 0


def test_what_lies_in_shared_memory_is_not_copied() -> None:
    with link() as (host, worker):
        block = host.heap.take(MIB)
        assert block is not None
        view = block.view(MIB)
        view[:] = bytes(range(256)) * (MIB // 256)
        (there,) = passed(host, worker, view)
        (part,) = passed(host, worker, view[MIB // 2 :])
        assert host.heap.copied_bytes == 0
        assert there == view
        assert part == view[MIB // 2 :]
        view[0] = 77
        assert there[0] == 77


def test_one_buffer_twice_in_a_message_is_one_copy_and_one_lease() -> None:
    data = bytes(MIB)
    with link() as (host, worker):
        passed_twice = passed(host, worker, data, data, memoryview(data)[1:])
        assert [len(view) for view in passed_twice] == [MIB, MIB, MIB - 1]
        assert host.heap.copies == 2
        assert len(host.leases) == 1


def test_memory_is_lent_until_the_last_view_is_gone() -> None:
    with link() as (host, worker):
        first, second = passed(host, worker, bytes(MIB), bytes(2 * MIB))
        part = second[5:10]
        del first, second
        assert leases(host) == 1
        assert used(host) == 3 * MIB
        del part
        assert leases(host) == 0
        assert used(host) == 0


def test_what_comes_back_is_the_very_same_memory() -> None:
    with link() as (host, worker):
        block = host.heap.take(MIB)
        assert block is not None
        view = block.view(MIB)
        (there,) = passed(host, worker, view)
        (back,) = passed(worker, host, there[KIB : KIB + THRESHOLD])
        assert address_of(back) == address_of(view) + KIB
        assert back.readonly
        assert worker.heap.copied_bytes == 0
        del block, view, there
        assert leases(host) == 0
        assert used(host) == MIB  # `back` looks at it
        del back
        assert used(host) == 0


def test_an_echo_under_way_keeps_what_it_names() -> None:
    with link() as (host, worker):
        (there,) = passed(host, worker, bytes(range(256)) * (MIB // 256))
        under_way = worker.place(Result(1, NIL, (there,)))
        del there  # the worker is done with it before the host has heard of it
        assert leases(host) == 1
        (back,) = received(host, under_way)
        assert back == bytes(range(256)) * (MIB // 256)
        assert leases(host) == 0


def test_a_result_goes_back_to_its_worker_and_the_worker_sees_its_own_memory() -> None:
    with link() as (host, worker):
        (result,) = passed(worker, host, bytes(MIB))
        (back,) = passed(host, worker, result)
        assert host.heap.copied_bytes == 0
        del result
        assert used(worker) == MIB
        del back
        host.heap.reclaim()
        assert leases(worker) == 0
        assert used(worker) == 0


def test_a_result_goes_to_another_worker_without_a_copy() -> None:
    heap = Heap(BUDGET)
    with link(heap) as (host_a, worker_a), link(heap) as (host_b, worker_b):
        data = os.urandom(MIB)
        (result,) = passed(worker_a, host_a, data)
        (forwarded,) = passed(host_b, worker_b, result)
        del result
        assert forwarded == data
        assert heap.copied_bytes == 0
        assert leases(worker_a) == 1
        (back,) = passed(worker_b, host_b, forwarded)
        del forwarded
        host_a.close()  # its worker has died: what it made stays as long as it is looked at
        assert back == data
    heap.close()
    assert back == data


def test_views_of_what_a_dead_worker_made_stay_and_its_leases_end() -> None:
    with link() as (host, worker):
        (result,) = passed(worker, host, b"\7" * MIB)
        passed_there = passed(host, worker, bytes(MIB))
        assert used(host) == MIB
        host.close()
        assert used(host) == 0
        del passed_there
        assert result == b"\7" * MIB


def test_segments_that_idle_are_given_up_on_both_sides() -> None:
    with link() as (host, worker):
        told: list[Any] = []
        host.tell = told.append
        passed(host, worker, bytes(MIB))
        assert worker.has_borrowed
        host.heap.trim()
        host.heap.speak()
        assert host.heap.arena.total_bytes == 0
        (drop,) = told
        worker.dropped(drop.segments)
        assert not worker.has_borrowed
        (again,) = passed(host, worker, b"\1" * MIB)
        assert again == b"\1" * MIB


def test_over_the_budget_things_travel_inline() -> None:
    with link(budget=4 * MIB) as (host, worker):
        data = bytes(5 * MIB)
        assert passed(host, worker, data) == [data]
        first = passed(host, worker, bytes(3 * MIB))
        assert passed(host, worker, data[: 3 * MIB]) == [data[: 3 * MIB]]
        assert host.heap.references == 1
        del first
        passed(host, worker, data[: 3 * MIB])
        assert host.heap.references == 2


def test_views_in_cycles_are_collected_for_want_of_room() -> None:
    with link(budget=4 * MIB) as (host, worker):
        gc.disable()
        try:
            cycle: list[Any] = [host.heap.take(3 * MIB)]
            cycle.append(cycle)
            del cycle
            assert type(passed(host, worker, bytes(3 * MIB))[0]) is memoryview
            assert host.heap.references == 1
        finally:
            gc.enable()


def test_collections_that_take_long_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the process stands still meanwhile."""
    now, collections, took = 100.0, list[float](), 0.0

    def collect() -> None:
        nonlocal now
        collections.append(now)
        now += took

    monkeypatch.setattr(_heap, "gc", SimpleNamespace(collect=collect))
    monkeypatch.setattr(_heap, "time", SimpleNamespace(monotonic=lambda: now))
    with link(budget=4 * MIB) as (host, _):
        kept = host.heap.take(3 * MIB)
        for took in (0.01, 2.0):
            collections.clear()
            for _ in range(100):
                assert host.heap.take(3 * MIB) is None
                now += 0.5
            pauses = [after - before - took for before, after in pairwise(collections)]
            assert pauses
            assert all(pause > max(0.9, 20 * took - 0.5) for pause in pauses), pauses
            assert all(pause < max(1.6, 20 * took + 0.6) for pause in pauses), pauses
        del kept


def test_other_sizes_make_room_by_giving_up_what_idles() -> None:
    with link(budget=4 * MIB) as (host, worker):
        for size in (3 * MIB, 2 * MIB, MIB, 3 * MIB, MIB // 2):
            passed(host, worker, bytes(size))
        assert host.heap.references == 5
        assert host.heap.arena.total_bytes <= 4 * MIB


def test_without_a_free_slot_things_travel_inline() -> None:
    with link() as (host, worker):
        block = host.heap.take(THRESHOLD)
        assert block is not None
        view = block.view(THRESHOLD)
        kept = [passed(host, worker, view) for _ in range(SLOTS)]
        assert passed(host, worker, view)[0] is view
        kept.pop()
        assert passed(host, worker, view)[0] is not view


def test_thousands_of_messages_leave_nothing_behind() -> None:
    before = len(os.listdir("/dev/fd"))
    with link(budget=8 * MIB) as (host, worker):
        data = bytes(256 * KIB)
        kept: list[Any] = []
        for number in range(5_000):
            size = THRESHOLD + (number * 7919) % (128 * KIB)
            (there,) = passed(host, worker, data[:size])
            (back,) = passed(worker, host, there)
            if number % 3 == 0:
                kept.append(back)
            if len(kept) > 15:
                kept.pop(number % 15)
        assert host.heap.arena.total_bytes <= 8 * MIB
        assert len(os.listdir("/dev/fd")) < before + 40
        assert len(worker.shown.segments) <= 32
        del kept[:], there, back
        assert used(host) == 0
        assert leases(host) == leases(worker) == 0
    assert len(os.listdir("/dev/fd")) == before


# -- lies ------------------------------------------------------------------------------------------


def lies(number: int, size: int) -> dict[str, Any]:
    """References that are none, to a segment of that number and size."""
    return {
        "no list of five": [number, 0, 1],
        "a text": [number, 0, 1, 0, "1"],
        "a bool": [number, False, 1, 0, 1],
        "a segment that was never shown": [number + 99, 0, 1, 0, 1],
        "segment 0": [0, 0, 1, 0, 1],
        "memory of ours that was never shown": [-number - 99, 0, 1, 0, 1],
        "a byte too many": [number, 1, size, 0, 1],
        "beyond the end": [number, size, 1, 0, 1],
        "before the start": [number, -1, 1, 0, 1],
        "a size below 0": [number, 4096, -1, 0, 1],
        "nothing": [number, 0, 0, 0, 1],
        "an enormous offset": [number, 2**63 - 1, 1, 0, 1],
        "a slot that is none": [number, 0, 1, SLOTS, 1],
        "a slot below 0": [number, 0, 1, -1, 1],
        "no generation": [number, 0, 1, 0, 0],
        "an enormous generation": [number, 0, 1, 0, 2**62],
    }


@pytest.mark.parametrize("lie", lies(1, 1))
def test_a_reference_that_lies_is_refused(lie: str) -> None:
    with link() as (host, worker):
        (view,) = passed(worker, host, bytes(MIB))
        (number,) = host.shown.segments
        reference = lies(number, host.shown.segments[number].size)[lie]
        with pytest.raises(ProtocolError, match=r"refers to|names a lease"):
            host.resolve(reference, {})
        assert view == bytes(MIB)


def test_memory_that_was_given_back_cannot_be_named() -> None:
    with link() as (host, worker):
        (view,) = passed(host, worker, bytes(MIB))
        (number,) = host._shown
        reference = [-number, 0, MIB, 0, 0]
        assert len(host.resolve(reference, {})) == MIB
        del view
        assert leases(host) == 0
        with pytest.raises(ProtocolError, match="given back"):
            host.resolve(reference, {})


def test_a_release_that_lies_harms_nobody_else() -> None:
    """Numbers that were never lent mean nothing; a lease that is taken back early is the liar's."""
    with link() as (host, worker):
        (view,) = passed(host, worker, bytes(MIB))
        for slot in range(SLOTS):
            worker._borrowed[slot] = 2**64 - 1
        assert leases(host) == 1
        del view
        assert leases(host) == 0


def shown_by(worker: Endpoint, number: int, size: int, fd: int) -> None:
    worker._fds.send(kinds.SHOW, number, size, fd)
    os.close(fd)


@pytest.mark.parametrize("size", [0, 4097, 2**62])
def test_a_segment_of_another_size_than_was_said_is_refused(size: int) -> None:
    with link() as (host, worker):
        shown_by(worker, 1, size, create(4096)[0])
        with pytest.raises(ProtocolError, match="was shown"):
            host.resolve([1, 0, 1, 0, 1], {})


def test_a_number_may_be_shown_once() -> None:
    with link() as (host, worker):
        for _ in range(2):
            shown_by(worker, 1, 4096, create(4096)[0])
        with pytest.raises(ProtocolError, match="number that is taken"):
            host.resolve([1, 0, 1, 0, 1], {})


def test_records_that_make_no_sense_are_refused() -> None:
    with link() as (host, worker):
        worker._fds.send(9)
        with pytest.raises(ProtocolError, match="unknown kind 9"):
            host.resolve([1, 0, 1, 0, 1], {})


def test_who_sends_does_not_pay_for_a_worker_that_begins_with_a_lie() -> None:
    import socket

    ours, theirs = (FdSocket(end.detach()) for end in socket.socketpair())
    heap = Heap(BUDGET)
    host = open_for_host(heap, ours, threshold=THRESHOLD, peer_budget=BUDGET)
    theirs.send(9)
    assert not host.is_up
    host.close()
    theirs.close()
    heap.close()


def test_a_segment_that_was_never_shown_cannot_be_given_up() -> None:
    with link() as (host, _), pytest.raises(ProtocolError, match="never shown"):
        host.dropped(Drop((7,)).segments)
