"""What happened in one round of chaos, as callers saw it and as the journal of the tools tells it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from chaos_draw import Plan


@dataclasses.dataclass
class Asked:
    """A call, as it was asked for. `may_again`: it may run more than once."""

    number: int
    tool: str
    how: str
    may_again: bool = False
    session: bool = False
    timeout: float | None = None


@dataclasses.dataclass
class Outcome:
    """How a call ended for its caller: an error's name or "value", "items", "left", "cancelled"."""

    kind: str
    asked: float
    ended: float
    cancelled: bool
    error: BaseException | None = None


@dataclasses.dataclass
class Run:
    """One run of a tool, in the journal."""

    pid: int
    began: float
    ended: float | None = None
    how: str = "cut"


class World:
    """One round."""

    def __init__(self, plan: Plan, journal: Path) -> None:
        self.plan, self.journal = plan, journal
        self.calls: dict[int, Asked] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.havoc: Counter[str] = Counter()
        self.harmed: set[int] = set()  # workers that something was done to
        self.helping: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.is_over = False  # callers begin nothing new
        self.restarts = 0
        self.ending_at = math.inf  # from then on the pool may close
        self.closing_at = self.closed_at = now()  # what the round itself does has been done
        self.runs: dict[int, list[Run]] = {}

    def is_wrong(self, text: str) -> None:
        self.wrong.append(text)

    def endings(self) -> Counter[str]:
        return Counter(outcome.kind for outcome in self.outcomes.values())

    def read_journal(self) -> None:
        """What the tools told, by call."""
        runs: defaultdict[int, list[Run]] = defaultdict(list)
        if not self.journal.exists():
            return
        for line in self.journal.read_text(encoding="ascii").splitlines():
            what, call, pid, when, how = line.split()
            if what == "begins":
                runs[int(call)].append(Run(int(pid), float(when)))
            else:
                run = next(r for r in reversed(runs[int(call)]) if r.pid == int(pid))
                run.ended, run.how = float(when), how
        self.runs = dict(runs)


def now() -> float:
    """The clock of the journal."""
    return time.monotonic()


def value_of(answer: Any) -> Any:
    """Arrays and memoryviews as bytes: these can be compared."""
    if isinstance(answer, memoryview):
        return bytes(answer)
    return answer.tobytes() if hasattr(answer, "tobytes") else answer
