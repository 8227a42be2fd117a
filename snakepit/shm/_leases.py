"""Leases: what one side lends the other with a message, until the last view of it is gone.

Each message that refers to shared memory takes one slot of a ledger, a table of numbers that
lies in shared memory itself. The lender notes a number that was never used before, the
*generation*, and what the message refers to. When the receiver's last view of it dies, it stores
that generation in the slot: one store, so a finalizer may do it, nobody has to be woken, and a
receiver that idles, hangs or computes gives back as promptly as any. A store that comes late finds
the slot lent under another generation, and means nothing.

A worker that returns what it was lent does not lend it in turn: nothing would tell it, while it
idles, that the host has got it. Instead it counts such *echoes* as it sends them, and gives the
lease itself back with the count; and the host acts on that only once it has received as many.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

SLOTS: Final = 1024  # messages that one side may have lent the other; further ones travel inline
LEDGER_BYTES: Final = SLOTS * 8
ECHO_BITS: Final = 24
ECHO_MASK: Final = 2**ECHO_BITS - 1
GENERATION_MAX: Final = 2**39


class Echoes:
    """How many messages with memory of the other side's were sent, and were received."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent: int = 0
        self.received: int = 0


class Lease:
    """One message's loan. `kept`: what must not go while it lasts; `nbytes` of it are lent."""

    __slots__ = ("generation", "kept", "nbytes", "since", "slot")

    def __init__(
        self, slot: int, generation: int, kept: list[Any], since: float, nbytes: int
    ) -> None:
        self.slot: int = slot
        self.generation: int = generation
        self.kept: list[Any] = kept
        self.since: float = since
        self.nbytes: int = nbytes


class Leases:
    """What this side has lent one peer. `ledger`: the slots, as the peer writes them.

    Threads use it with the heap's lock.
    """

    def __init__(self, ledger: memoryview, echoes: Echoes) -> None:
        self._ledger, self._echoes = ledger, echoes
        self._lent: dict[int, Lease] = {}
        self._free = list(range(len(ledger) - 1, -1, -1))
        self._generation = 0

    def __len__(self) -> int:
        return len(self._lent)

    @property
    def oldest_since(self) -> float | None:
        """When the oldest of them was granted, by `time.monotonic`."""
        return min((lease.since for lease in self._lent.values()), default=None)

    @property
    def nbytes(self) -> int:
        """How much is lent; twice what is lent twice."""
        return sum(lease.nbytes for lease in self._lent.values())

    def grant(self, kept: list[Any], nbytes: int = 0) -> Lease | None:
        """Lend these; None if all slots are lent."""
        if not self._free:
            self.collect()
            if not self._free:
                return None
        self._generation += 1
        lease = Lease(self._free.pop(), self._generation, kept, time.monotonic(), nbytes)
        self._lent[lease.slot] = lease
        return lease

    def collect(self) -> None:
        """Take back what the peer is done with."""
        if not self._lent:
            return
        for lease in [lease for lease in self._lent.values() if self._is_back(lease)]:
            self.cancel(lease)

    def _is_back(self, lease: Lease) -> bool:
        stored = self._ledger[lease.slot]
        behind = (self._echoes.received - stored) & ECHO_MASK
        return stored >> ECHO_BITS == lease.generation and behind <= ECHO_MASK // 2

    def cancel(self, lease: Lease) -> None:
        """Take it back: the peer has never seen it, or has given it back, or is dead. Idempotent."""
        if self._lent.get(lease.slot) is lease:
            del self._lent[lease.slot]
            self._free.append(lease.slot)
            lease.kept = []

    def cancel_all(self) -> None:
        """The peer is gone."""
        for lease in list(self._lent.values()):
            self.cancel(lease)


class Receipt:
    """The receiver's side of a lease: gives it back when nothing refers to it any more."""

    __slots__ = ("__weakref__", "_echoes", "_generation", "_ledger", "_pid", "_slot")

    def __init__(self, ledger: memoryview, slot: int, generation: int, echoes: Echoes) -> None:
        self._ledger, self._slot, self._generation = ledger, slot, generation
        self._echoes = echoes
        self._pid = os.getpid()

    def __del__(self, getpid: Any = os.getpid) -> None:
        if getpid() == self._pid:
            sent = self._echoes.sent & ECHO_MASK
            self._ledger[self._slot] = self._generation << ECHO_BITS | sent
