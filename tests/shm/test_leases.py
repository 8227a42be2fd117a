"""What is lent comes back exactly when the last view has gone, and never too early."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit.shm._leases import ECHO_BITS, ECHO_MASK, SLOTS, Echoes, Lease, Leases, Receipt


def new_ledger(slots: int = SLOTS) -> memoryview:
    return memoryview(bytearray(8 * slots)).cast("Q")


class LeaseMachine(RuleBasedStateMachine):
    """Any order of lending, receiving, giving back, withdrawing and looking, with few slots."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = new_ledger(4)
        self.leases = Leases(self.ledger, Echoes())
        self.under_way: list[Lease] = []
        self.received: list[tuple[Lease, Receipt]] = []
        self.given_back: list[Lease] = []

    @rule()
    def lend(self) -> None:
        lease = self.leases.grant(["memory"])
        if lease is None:
            assert len(self.under_way) + len(self.received) == 4
            self.given_back.clear()
            return
        self.under_way.append(lease)

    @precondition(lambda self: self.under_way)
    @rule()
    def receive(self) -> None:
        lease = self.under_way.pop(0)
        receipt = Receipt(self.ledger, lease.slot, lease.generation, Echoes())
        self.received.append((lease, receipt))

    @precondition(lambda self: self.under_way)
    @rule()
    def withdraw(self) -> None:
        lease = self.under_way.pop()
        self.leases.cancel(lease)
        self.leases.cancel(lease)
        assert lease.kept == []

    @precondition(lambda self: self.received)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        lease, _ = self.received.pop(data.draw(st.integers(0, len(self.received) - 1)))
        self.given_back.append(lease)

    @rule()
    def look(self) -> None:
        self.leases.collect()
        assert all(lease.kept == [] for lease in self.given_back)
        self.given_back.clear()
        assert len(self.leases) == len(self.under_way) + len(self.received)

    @invariant()
    def what_is_lent_is_kept(self) -> None:
        for lease in [*self.under_way, *(lease for lease, _ in self.received)]:
            assert lease.kept == ["memory"]


LeaseMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLeases = LeaseMachine.TestCase


def lend(echoes: Echoes) -> tuple[Leases, Lease, memoryview]:
    ledger = new_ledger()
    leases = Leases(ledger, echoes)
    lease = leases.grant([object()])
    assert lease is not None
    return leases, lease, ledger


@pytest.mark.parametrize("sent", [0, ECHO_MASK, ECHO_MASK + 7])
def test_what_came_back_behind_an_echo_is_taken_only_once_the_echo_has_come(sent: int) -> None:
    host, worker = Echoes(), Echoes()
    host.received = worker.sent = sent
    leases, lease, ledger = lend(host)
    receipt = Receipt(ledger, lease.slot, lease.generation, worker)
    worker.sent += 1  # it returns what it was lent, and lets go of it
    del receipt
    leases.collect()
    assert lease.kept
    host.received += 1
    leases.collect()
    assert not lease.kept


def test_a_generation_of_another_time_means_nothing() -> None:
    leases, lease, ledger = lend(Echoes())
    for generation in (0, lease.generation - 1, lease.generation + 1):
        ledger[lease.slot] = generation << ECHO_BITS
        leases.collect()
        assert lease.kept


def test_all_slots_may_be_lent_and_no_more() -> None:
    leases = Leases(new_ledger(), Echoes())
    lent = [leases.grant([]) for _ in range(SLOTS)]
    assert None not in lent
    assert leases.grant([]) is None
    leases.cancel_all()
    assert len(leases) == 0
    assert leases.grant([]) is not None


def test_a_receipt_may_die_in_any_thread() -> None:
    leases, lease, ledger = lend(Echoes())
    receipts = [Receipt(ledger, lease.slot, lease.generation, Echoes())]
    thread = threading.Thread(target=receipts.clear)
    thread.start()
    thread.join()
    leases.collect()
    assert len(leases) == 0


def test_a_receipt_in_a_cycle_is_given_back_by_the_garbage_collector() -> None:
    import gc

    leases, lease, ledger = lend(Echoes())
    cycle: list[Any] = [Receipt(ledger, lease.slot, lease.generation, Echoes())]
    cycle.append(cycle)
    del cycle
    gc.collect()
    leases.collect()
    assert len(leases) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # from 3.12 on
def test_a_forked_child_gives_nothing_back() -> None:
    """It inherits receipts, and lets go of them when it ends; the parent still looks at the memory."""
    from snakepit.shm._memory import view_of
    from snakepit.shm._segments import create

    fd, mapping = create(4096, others_write=True)
    os.close(fd)
    ledger = view_of(mapping.address, 4096, mapping, writable=True).cast("Q")
    receipts = [Receipt(ledger, 3, 1, Echoes())]
    pid = os.fork()
    if pid == 0:
        receipts.clear()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ledger[3] == 0
    receipts.clear()
    assert ledger[3] != 0
