"""What happened in one run, as everybody in it tells it: that is what the pool's word is measured by."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from random import Random
from typing import Any

import trio
from sim_plan import CallPlan, Plan
from sim_sessions import Ledger
from sim_venom import Venom

from snakepit.launchers._in_process import InProcessWorker, current_worker
from snakepit.pool._call import PendingCall
from snakepit.testing import Fault, Passage, SeededFaults


@dataclasses.dataclass
class Run:
    """One run of a tool."""

    call: int
    worker: str
    began: float
    ended: float | None = None
    how: str = "cut short"  # or "returned", "raised"


@dataclasses.dataclass
class Outcome:
    """How a call ended for its caller.

    `kind` is an error's name or "value", "items", "left", "cancelled"; "unread" for one of a map.
    """

    call: int
    kind: str
    asked: float
    ended: float
    value: Any = None
    error: BaseException | None = None
    cancelled_at: float | None = None


class World:
    """One run, and all that was seen in it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.calls: dict[int, CallPlan] = plan.calls()
        self.log: list[tuple[Any, ...]] = []
        self.runs: defaultdict[int, list[Run]] = defaultdict(list)
        self.running: Counter[int] = Counter()  # by call
        self.outcomes: dict[int, Outcome] = {}
        self.map_endings: Counter[str] = Counter()
        self.session_endings: Counter[str] = Counter()
        self.probe_errors: Counter[str] = Counter()
        self.nested_endings: Counter[str] = Counter()  # of calls that host tools made
        self.wrong: list[str] = []
        self.accepted: dict[int, PendingCall] = {}
        self.saturated = 0  # calls that were refused for want of room
        self.asked: dict[int, float] = {}  # when those were accepted
        self.settled: Counter[int] = Counter()  # by the pool's own number of the call
        self.settled_at: dict[int, float] = {}  # likewise
        self.let_go: set[int] = set()  # calls that ended while their worker still had them
        self.yielded: Counter[int] = Counter()
        self.taken: Counter[int] = Counter()
        self.eaten: Counter[int] = Counter()  # items of an input, by call
        self.food: dict[int, Any] = {}
        self.helping: Counter[int] = Counter()  # host tools that run, by call
        self.helped: Counter[int] = Counter()  # how often a tool was answered
        self.heard: defaultdict[int, list[float]] = defaultdict(list)  # progress, by call
        self.sessions = Ledger()
        self.venom = Venom()
        self.done: set[int] = set()  # callers that have made all their steps
        self.buried: dict[str, tuple[float, str]] = {}  # workers: when, and why
        self.culprits: dict[str, str] = {}  # workers that had a reason to end
        self.closing_at: float | None = None
        self.closed_at: float | None = None
        self.faults = SeededFaults(Random(f"faults {plan.seed}"), **plan.faults)
        self.workers: dict[str, InProcessWorker] = {}
        self.worker_ids: dict[int, str] = {}
        self.starts = list(plan.starts)

    def note(self, what: str, *details: Any) -> None:
        self.log.append((round(trio.current_time(), 9), what, *details))

    def is_wrong(self, text: str) -> None:
        self.note("WRONG", text)
        self.wrong.append(text)

    def check(self, problem: str | None) -> None:
        if problem is not None:
            self.is_wrong(problem)

    def meet(self, passage: Passage) -> Fault | None:
        """The plan of faults, noted down."""
        fault = self.faults(passage)
        self.note("message", passage.worker, passage.direction, passage.kind, fault)
        if fault is not None:
            self.culprits.setdefault(self.worker_ids[passage.worker], f"{fault}")
        return fault

    def way_to_start(self) -> str:
        return self.starts.pop(0) if self.starts else "ready"

    def number_of(self, call_id: int) -> int:
        """Which call of the plan it is, by the pool's own number."""
        return next(n for n, call in self.accepted.items() if call.id == call_id)

    @contextmanager
    def run_of(self, call: int) -> Generator[Run]:
        run = Run(call, worker_id(), trio.current_time())
        self.runs[call].append(run)
        self.running[call] += 1
        if self.running[call] > 1:
            self.is_wrong(f"call {call} runs twice at a time")
        if call in self.outcomes and not self.is_excused(call):
            self.is_wrong(f"call {call} begins although it has ended: {self.outcomes[call].kind}")
        self.note("begins", call, run.worker)
        plan = self.calls.get(call)
        for problem in self.sessions.begins(run.worker, None if plan is None else plan.session):
            self.is_wrong(f"call {call} {problem}")
        try:
            yield run
        finally:
            self.running[call] -= 1
            run.ended = trio.current_time()
            self.note("ends", call, run.worker, run.how)

    def running_of(self, numbers: Iterable[int]) -> list[int]:
        """Which of these calls a tool still runs for, without an excuse."""
        return [n for n in numbers if self.running[n] and not self.is_excused(n)]

    def is_excused(self, call: int) -> bool:
        """May its tool run although it is over?

        A worker that heard nothing for the whole grace may begin a call whose caller was let go.
        """
        return call in self.let_go and self.runs[call][-1].worker in self.culprits


def worker_id() -> str:
    worker = current_worker.get()
    assert worker is not None
    return worker._id
