"""The books of a link in the long run: what is counted, what is given up late, and who may look."""

from __future__ import annotations

from typing import Any

import pytest
from link_kit import BUDGET, MIB, leases, link, passed, used

from snakepit.protocol import NIL, Call, Drop, Loose, Result
from snakepit.shm import Heap


def test_after_millions_of_echoes_of_the_host_s_a_worker_still_gets_its_memory_back() -> None:
    """The host does not count what it returns: so its worker must not count what comes."""
    with link() as (host, worker):
        worker.echoes.received = 2**23 - 1  # as if so many had been counted
        for _ in range(3):
            (result,) = passed(worker, host, bytes(MIB))
            (back,) = passed(host, worker, result)
            del result, back
            host.heap.reclaim()
        assert leases(worker) == 0
        assert used(worker) == 0


def test_what_a_dead_worker_made_and_another_saw_is_given_up_when_nobody_looks_at_it() -> None:
    heap = Heap(BUDGET)
    with link(heap) as (host_a, worker_a), link(heap) as (host_b, worker_b):
        (result,) = passed(worker_a, host_a, bytes(MIB))
        (forwarded,) = passed(host_b, worker_b, result)
        told: list[Any] = []
        host_b.tell = told.append
        (number,) = host_b._shown
        host_a.close()
        del result
        heap.trim()
        heap.speak()
        assert not told  # the other worker still looks at it
        del forwarded
        heap.trim()
        heap.speak()
        assert told == [Drop((number,))]
        assert not host_b._shown
    heap.close()


def test_who_looks_at_the_books_of_leases_or_withdraws_one_has_the_lock() -> None:
    """Threads collect meanwhile."""
    with link() as (host, _):
        lock: Any = host.heap.lock
        held: list[bool] = []

        class Looked(dict[int, Any]):
            def values(self) -> Any:
                held.append(lock._is_owned())
                return super().values()

            def get(self, slot: int, default: Any = None) -> Any:
                held.append(lock._is_owned())
                return super().get(slot, default)

        host.leases._lent = Looked()
        block = host.heap.take(MIB)
        assert block is not None
        message = Call(1, "t", NIL, (block.view(MIB),))
        _, loans = host.bind(message, {})
        assert host.lent_bytes == MIB
        assert host.heap.oldest_lease_s is not None
        host.take_back(loans)
        assert host.lent_bytes == 0
        assert len(held) >= 4
        assert all(held)


@pytest.mark.parametrize("side", ["the host", "the worker"])
def test_what_cannot_be_written_leaves_nothing_lent_and_no_echo_counted(side: str) -> None:
    """Else a worker would get back what it lends one echo late, from then on."""

    def fail(target: memoryview) -> None:
        raise MemoryError

    with link(budget=2 * MIB) as (host, worker):
        sender, receiver = (host, worker) if side == "the host" else (worker, host)
        kept = sender.heap.take(MIB)
        assert kept is not None
        (theirs,) = passed(receiver, sender, bytes(MIB))
        rest = Loose(3 * MIB, fail)  # for which there is no room, and not enough for a gift
        with pytest.raises(MemoryError):
            sender.place(Result(1, NIL, (theirs, kept.view(MIB), rest)))
        assert leases(sender) == 0
        assert sender.echoes.sent == 0
        del theirs
        assert leases(receiver) == 0
        assert used(receiver) == 0
