"""The tools of the simulation, and the world in which they leave their traces.

A tool tells the world when it begins and when it ends; that is what the truth of everything that
the pool says is measured by. Workers in memory run in this process, so one world is enough.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from random import Random
from typing import Any

import trio
from sim_plan import Plan

from snakepit import Adapter, tool
from snakepit.launchers._in_process import current_worker
from snakepit.pool._call import PendingCall
from snakepit.testing import Fault, Passage, SeededFaults, crash

BRIEF_GRACE_S = 0.05
LIMIT_S = 0.7


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
    """How a call ended for its caller. `kind` is "value", "items", "left", "cancelled" or an error's name."""

    call: int
    kind: str
    asked: float
    ended: float
    value: Any = None
    error: BaseException | None = None
    cancelled_at: float | None = None


class World:
    """What happened in one run, as everybody in it tells it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.log: list[tuple[Any, ...]] = []
        self.runs: defaultdict[int, list[Run]] = defaultdict(list)
        self.running: Counter[int] = Counter()  # by call
        self.outcomes: dict[int, Outcome] = {}
        self.probe_errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.accepted: dict[int, PendingCall] = {}
        self.settled: Counter[int] = Counter()  # by the pool's own number of the call
        self.let_go: set[int] = set()  # calls that ended while their worker still had them
        self.yielded: Counter[int] = Counter()
        self.taken: Counter[int] = Counter()
        self.buried: dict[str, tuple[float, str]] = {}  # workers: when, and why
        self.culprits: dict[str, str] = {}  # workers that had a reason to end
        self.closing_at: float | None = None
        self.closed_at: float | None = None
        self.faults = SeededFaults(Random(f"faults {plan.seed}"), **plan.faults)
        self.worker_ids: dict[int, str] = {}
        self.starts = list(plan.starts)

    def note(self, what: str, *details: Any) -> None:
        self.log.append((round(trio.current_time(), 9), what, *details))

    def is_wrong(self, text: str) -> None:
        self.note("WRONG", text)
        self.wrong.append(text)

    def meet(self, passage: Passage) -> Fault | None:
        """The plan of faults, noted down."""
        fault = self.faults(passage)
        self.note("message", passage.worker, passage.direction, passage.kind, fault)
        if fault is not None:
            self.culprits.setdefault(self.worker_ids[passage.worker], f"{fault}")
        return fault

    def way_to_start(self) -> str:
        return self.starts.pop(0) if self.starts else "ready"

    @contextmanager
    def run_of(self, call: int) -> Any:
        run = Run(call, worker_id(), trio.current_time())
        self.runs[call].append(run)
        self.running[call] += 1
        if self.running[call] > 1:
            self.is_wrong(f"call {call} runs twice at a time")
        # A worker that heard nothing for the whole grace may begin a call whose caller was let go.
        deaf = call in self.let_go and run.worker in self.culprits
        if call in self.outcomes and not deaf:
            self.is_wrong(f"call {call} begins although it has ended: {self.outcomes[call].kind}")
        self.note("begins", call, run.worker)
        try:
            yield run
        finally:
            self.running[call] -= 1
            run.ended = trio.current_time()
            self.note("ends", call, run.worker, run.how)


world: World


def set_world(new: World) -> None:
    global world
    world = new


def worker_id() -> str:
    worker = current_worker.get()
    assert worker is not None
    return worker._id


def answer(call: int) -> str:
    return f"answer to {call}"


def item(call: int, number: int) -> str:
    return f"item {number} of {call}"


class SimulatedError(ValueError):
    pass


class SimTools(Adapter):
    """Async tools that do as they are told, `how`, after some seconds."""

    async def initialize(self) -> None:
        how = world.way_to_start()
        world.note("initialize", worker_id(), how)
        if how != "ready":
            world.culprits.setdefault(worker_id(), f"its start: {how}")
        match how:
            case "slow":
                await trio.sleep(0.5)
            case "raise":
                raise LookupError("no model")
            case "crash":
                crash(4)
            case "hang":
                await trio.sleep_forever()

    async def cleanup(self) -> None:
        world.note("cleanup", worker_id())

    @tool
    async def work(self, order: dict) -> Any:
        return await behave(**order)

    @tool(idempotent=True)
    async def again(self, order: dict) -> Any:
        return await behave(**order)

    @tool(on_cancel="kill")
    async def fragile(self, order: dict) -> Any:
        return await behave(**order)

    @tool(cancel_grace=BRIEF_GRACE_S)
    async def brief(self, order: dict) -> Any:
        return await behave(**order)

    @tool(timeout=LIMIT_S)
    async def limited(self, order: dict) -> Any:
        return await behave(**order)

    @tool
    async def items(self, order: dict) -> AsyncGenerator[str, None]:
        call, how = order["call"], order["how"]
        with world.run_of(call) as run:
            window = world.plan.calls()[call].window
            for number in range(order["items"]):
                await pause(order["seconds"], how, order["extra"])
                world.yielded[call] += 1
                # One that waits for credit is in the worker's hands.
                unread = world.yielded[call] - world.taken[call]
                if unread > window + 1:
                    world.is_wrong(f"stream {call}: {unread} items unread, window {window}")
                yield item(call, number)
            await pause(order["seconds"], how, order["extra"])
            finish(run, how)


async def behave(call: int, seconds: float, how: str, extra: float) -> Any:
    with world.run_of(call) as run:
        try:
            await pause(seconds, how, extra)
        except trio.Cancelled:
            if how == "convert":
                raise RuntimeError("in place of the cancellation") from None
            if how != "swallow":
                raise
        finish(run, how)
        return object() if how == "unencodable" else answer(call)


async def pause(seconds: float, how: str, extra: float) -> None:
    if not seconds:
        return
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        if how in ("slow_stop", "stubborn"):
            worker = worker_id()
            grace = world.plan.stop.cancel_grace
            if how == "stubborn" or extra >= grace:
                world.culprits.setdefault(worker, "a stubborn tool")
            with trio.CancelScope(shield=True):
                await trio.sleep(extra + grace if how == "stubborn" else extra)
        raise


def finish(run: Run, how: str) -> None:
    if how == "raise":
        run.how = "raised"
        raise SimulatedError(f"by {run.call}")
    if how == "crash":
        world.culprits.setdefault(run.worker, "a crash")
        crash(3)
    run.how = "returned"
