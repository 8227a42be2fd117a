"""What happened in one round of chaos, as callers saw it and as the journal of the tools tells it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from chaos_draw import STARTS_CHILDREN, Plan
from chaos_pulse import Pulse

from snakepit import WorkerDiedError
from snakepit.procfs import read_process


@dataclasses.dataclass
class Asked:
    """A call, as it was asked for. `may_again`: it may run more than once. `session`: the id of its session."""

    number: int
    tool: str
    how: str
    may_again: bool = False
    session: str | None = None
    timeout: float | None = None
    cancel_after: float | None = None


@dataclasses.dataclass
class Outcome:
    """How a call ended for its caller: an error's name or "value", "items", "left", "cancelled".

    One of a map whose result nobody has read is "unread". `left_at`: its caller had enough, or was
    cancelled. `living`: what its tool had started, and did not live to see the end of, lived on.
    """

    kind: str
    asked: float
    ended: float
    left_at: float | None = None
    error: BaseException | None = None
    living: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Run:
    """One run of a tool, in the journal. `children`: pid and start of what it has started."""

    pid: int
    began: float
    ended: float | None = None
    how: str = "cut"
    children: list[tuple[int, int]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Harm:
    """What was done to a worker."""

    what: str
    when: float


@dataclasses.dataclass
class Burial:
    """What the pool says of a worker that is gone. `at_close`: the pool was closing already."""

    death: WorkerDiedError
    when: float
    at_close: bool


class World:
    """One round. `processes`: those that were at the address of each slot, of workers that are not the pool's."""

    def __init__(self, plan: Plan, journal: Path) -> None:
        self.plan, self.journal = plan, journal
        self.calls: dict[int, Asked] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.havoc: Counter[str] = Counter()
        self.harms: defaultdict[int, list[Harm]] = defaultdict(list)  # by the worker's pid
        self.burials: dict[str, Burial] = {}  # by the worker's id
        self.processes: defaultdict[int, list[int]] = defaultdict(list)
        self.unclaimed: list[tuple[list[Asked], Outcome]] = []  # of one of these calls
        self.pulse = Pulse()
        self.helping: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.is_over = False  # callers begin nothing new
        self.restarts = 0
        self.ending_at = math.inf  # from then on the pool may close
        self.closing_at = self.closed_at = now()  # what the round itself does has been done
        self.runs: defaultdict[int, list[Run]] = defaultdict(list)
        self.workers_seen = 0  # while nobody called, see `chaos_quiet`
        self.bytes_left = self.calls_between = 0  # between a calm beginning and a calm end
        self._read_bytes = 0

    def is_wrong(self, text: str) -> None:
        self.wrong.append(text)

    def endings(self) -> Counter[str]:
        return Counter(outcome.kind for outcome in self.outcomes.values())

    def ended(self, asked: Asked, outcome: Outcome) -> None:
        """The caller of this call has left it just now, in whatever way."""
        if asked.number in self.outcomes:
            self.is_wrong(f"call {asked.number} ended twice")
        if asked.how in STARTS_CHILDREN:
            self.read_journal()
            left = [run for run in self.runs[asked.number] if run.how == "cut"]
            children = [child for run in left for child in run.children]
            outcome.living = [pid for pid, start in children if lives(pid, start)]
        self.outcomes[asked.number] = outcome

    def read_journal(self) -> None:
        """What the tools have told since this was read last."""
        if not self.journal.exists():
            return
        with self.journal.open("rb") as journal:
            journal.seek(self._read_bytes)
            told = journal.read()
        self._read_bytes += len(told)
        for line in told.decode("ascii").splitlines():
            what, call, pid, when, how = line.split()
            runs = self.runs[int(call)]
            if what == "begins":
                runs.append(Run(int(pid), float(when)))
                continue
            run = next(r for r in reversed(runs) if r.pid == int(pid))
            if what == "starts":
                child, start = how.split(":")
                run.children.append((int(child), int(start)))
            else:
                run.ended, run.how = float(when), how


def lives(pid: int, start: int) -> bool:
    process = read_process(pid)
    return process is not None and process.start == start and not process.is_dead


def now() -> float:
    """The clock of the journal."""
    return time.monotonic()


def value_of(answer: Any) -> Any:
    """Arrays and memoryviews as bytes: these can be compared."""
    if isinstance(answer, memoryview):
        return bytes(answer)
    return answer.tobytes() if hasattr(answer, "tobytes") else answer
