"""One worker as the scheduler sees it: a pure state machine, no I/O, no clock of its own.

    starting → ready ⇄ leased → draining → stopping → gone

A seat only ever goes right once it has left `ready ⇄ leased`. Its calls are kept in the order in
which they were sent: the worker runs them in that order, so on its death only the first one may
have run.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from math import ceil
from typing import Any, Final, Generic, Protocol, TypeVar

PREFETCH_MAX: Final = 8
PREFETCH_S: Final = 0.004  # so long all that is there takes, before one more is sent
PREFETCH_AVERAGE_MAX_S: Final = 0.001
OVERDUE_S: Final = 0.002
LATENCY_NOTED_MAX_S: Final = 0.05
_AVERAGE_WEIGHT: Final = 0.2
_UNKNOWN: Final = float("inf")
DURATION_NOTED_MAX_S: Final = 3 * PREFETCH_AVERAGE_MAX_S  # one long call is not yet a habit


class HasId(Protocol):
    """A call, as far as this file is concerned.

    Ids grow in the order in which calls come. `pin`: the one worker that may run it. `hint`: the
    worker that should run it if it idles.
    """

    id: int
    prefetchable: bool
    pin: Seat[Any] | None
    hint: Seat[Any] | None


C = TypeVar("C", bound=HasId)


class Phase(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    LEASED = "leased"
    DRAINING = "draining"
    STOPPING = "stopping"
    GONE = "gone"


_STARTING, _READY, _LEASED = Phase.STARTING, Phase.READY, Phase.LEASED  # looked up in each call


class Seat(Generic[C]):
    """The state of one worker; every change goes through one of these methods.

    `calls`: sent and not settled, in the order of sending; the first is the one that runs, the
    others are prefetched. `recalled`: those of them that were asked back. `average_s`: the moving
    average of recent calls' durations, `latency_s` of what the link added to them, as far as workers
    tell how long a call has taken there. `line`: calls that wait for this worker and no other.
    """

    def __init__(self, *, tainted_until: float = 0.0, name: str = "") -> None:
        self.name: str = name
        self.phase: Phase = _STARTING
        self.calls: dict[int, C] = {}
        self.recalled: set[int] = set()
        self.head_since: float = 0.0
        self.average_s: float = _UNKNOWN
        self.latency_s: float = 0.0
        self.finished_count: int = 0
        self.tainted_until: float = tainted_until
        self.line: OrderedDict[int, C] = OrderedDict()
        self._was_sent_ahead = False  # the first of the calls
        self._alone: int = 0  # calls here that no other may be sent behind
        self.pinned_count: int = 0  # calls here that no other worker may run
        # The scheduler's own notes: where it has filed this seat, and how many calls it counted.
        self.shelf: OrderedDict[Seat[C], None] | None = None
        self.counted: int = 0

    @property
    def prefetched_count(self) -> int:
        """Calls that were sent and have to wait for the first one."""
        return max(0, len(self.calls) - 1)

    def ready(self) -> None:
        """The worker is initialised."""
        assert self.phase is _STARTING, self.phase
        self.phase = _READY

    def room(self) -> int:
        """How many further calls may be sent ahead. Only behind calls that are known to be short."""
        average_s = self.average_s
        if (
            self.phase is not _LEASED
            or average_s >= PREFETCH_AVERAGE_MAX_S
            or self.recalled
            or self._alone
        ):
            return 0
        most = 1 + PREFETCH_MAX
        if average_s * PREFETCH_MAX >= PREFETCH_S:
            most = ceil(PREFETCH_S / average_s)
        return max(0, most - len(self.calls))

    def is_overdue(self, now: float) -> bool:
        """Has the running call turned out long? Calls behind it had better go elsewhere."""
        return now - self.head_since >= OVERDUE_S + self.latency_s

    def lease(self, call: C, now: float) -> None:
        """The call is sent to this worker."""
        phase, calls = self.phase, self.calls
        assert phase is _LEASED or phase is _READY, phase
        assert call.id not in calls
        if not calls:
            self.head_since = now
            self._was_sent_ahead = False
            self.phase = _LEASED
        calls[call.id] = call
        if not call.prefetchable:
            self._alone += 1
        if call.pin is not None:
            self.pinned_count += 1

    def settle(
        self, call_id: int, now: float, *, ran: bool = True, took_us: int | None = None
    ) -> C | None:
        """The call is over, or was given back unrun; None if it was not here.

        `took_us`: how long it ran, as its worker says.
        """
        calls = self.calls
        call = calls.get(call_id)
        if call is None:
            return None
        if next(iter(calls)) == call_id:
            if ran:
                self._note(now - self.head_since, took_us)
            self.head_since = now
            self._was_sent_ahead = True  # whoever comes next
        del calls[call_id]
        if not call.prefetchable:
            self._alone -= 1
        if call.pin is not None:
            self.pinned_count -= 1
        if self.recalled:
            self.recalled.discard(call_id)
        self.finished_count += ran
        if not calls and self.phase is _LEASED:
            self.phase = _READY
        return call

    def prefetched_for_others(self) -> tuple[int, ...]:
        """The prefetched calls that another worker may run as well."""
        ids = tuple(list(self.calls)[1:])
        return tuple(i for i in ids if self.calls[i].pin is None) if self.pinned_count else ids

    def recall(self, *, for_others: bool = False) -> tuple[int, ...]:
        """The prefetched calls that are to be asked back now: all, or those for other workers."""
        ids = self.prefetched_for_others() if for_others else tuple(list(self.calls)[1:])
        asked = tuple(i for i in ids if i not in self.recalled)
        self.recalled.update(asked)
        return asked

    def answered(self) -> None:
        """The worker has answered a recall: what did not come back will run here."""
        self.recalled.clear()

    def drain(self) -> None:
        """No further calls; those here may end."""
        if self.phase in (Phase.STARTING, Phase.READY, Phase.LEASED):
            self.phase = Phase.DRAINING

    def stop(self) -> None:
        """The process is being stopped: condemned for good."""
        if self.phase is not Phase.GONE:
            self.phase = Phase.STOPPING

    def gone(self) -> list[C]:
        """The process is reaped; returns the calls that nobody will answer, in their order."""
        self.phase = Phase.GONE
        left = list(self.calls.values())
        self.calls.clear()
        self.recalled.clear()
        self._alone = self.pinned_count = 0
        return left

    def _note(self, duration_s: float, took_us: int | None) -> None:
        if took_us is not None:
            took_s = took_us / 1e6
            if not 0.0 <= took_s <= duration_s:  # it says what cannot be
                took_s = 0.0 if took_s < 0.0 else duration_s
            if not self._was_sent_ahead:  # else the way there went by while others ran
                latency_s = min(duration_s - took_s, LATENCY_NOTED_MAX_S)
                known_s = self.latency_s or latency_s
                self.latency_s = known_s + _AVERAGE_WEIGHT * (latency_s - known_s)
            duration_s = took_s
        duration_s = min(duration_s, DURATION_NOTED_MAX_S)
        average_s = self.average_s
        if average_s == _UNKNOWN:
            self.average_s = duration_s
        else:
            self.average_s = average_s + _AVERAGE_WEIGHT * (duration_s - average_s)
