"""The scenarios: who takes part in what, and for how long. Each makes one table or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Final

import snakepit
from benchmarks._array_scenarios import shared_memory
from benchmarks._contenders import (
    DEFAULT,
    NOT_PIPELINED,
    ON_ASYNCIO,
    RUN_SYNC,
    SNAKEPITS,
    TRIO_ALONE,
)
from benchmarks._floor import Floor
from benchmarks._grpc_scenarios import over_grpc
from benchmarks._peers import PEERS
from benchmarks._plan import CALLERS, FLOOR, Plan, make_table
from benchmarks._results import Table
from benchmarks._rounds import FailedError, Turn, play
from benchmarks._subjects import Company, LeftOutError, Subject, gather

MEMORY: Final = "snakepit memory"
_SNAKEPITS: Final = tuple(contender.name for contender in SNAKEPITS)
_PEERS: Final = tuple(contender.name for contender in PEERS)


def round_trip(plan: Plan) -> Iterator[Table]:
    """One caller, one worker, a call that does nothing."""
    names = plan.wanted(TRIO_ALONE.name, *_SNAKEPITS, ON_ASYNCIO.name, RUN_SYNC.name, *_PEERS)
    with closing(Floor()) as floor, gather(names, 1) as company:
        turns: dict[str, Turn] = {FLOOR: partial(floor.round_trip, plan.seconds(0.05))}
        turns |= plan.turns(company, "round_trip", seconds=0.05)
        rows = plan.play(turns, company)
    title = "No-op round trip, 1 caller, 1 worker: the median call"
    yield make_table("roundtrip", title, rows, company, base=FLOOR)


def throughput(plan: Plan) -> Iterator[Table]:
    """Many callers, two workers, calls that do nothing."""
    names = (*_SNAKEPITS, NOT_PIPELINED.name, ON_ASYNCIO.name, RUN_SYNC.name, *_PEERS)
    with gather(plan.wanted(*names), 2) as company:
        turns = plan.turns(company, "load", seconds=0.08, callers=CALLERS)
        rows = plan.play(turns, company)
    title = f"No-op throughput, {CALLERS} callers, 2 workers: time per call"
    yield make_table("throughput", title, rows, company, base=DEFAULT)


def values(plan: Plan) -> Iterator[Table]:
    """Values there and back: one caller, one worker."""
    titles = {
        "floats": "A list of 100,000 floats there and back",
        "dict": "A dict of 1,000 keys, mixed values, there and back",
    }
    with gather(plan.wanted(*_SNAKEPITS, *_PEERS), 1) as company:
        for value, title in titles.items():
            turns = plan.turns(company, "values", seconds=0.1, value=value)
            yield make_table(value, title, plan.play(turns, company), company, base=DEFAULT)


def startup(plan: Plan) -> Iterator[Table]:
    """From opening a pool of two to the first result, each time in a fresh process."""
    company, turns = Company(), dict[str, Turn]()
    for name in plan.wanted(*_SNAKEPITS, *_PEERS):
        try:
            _opened_s(name)
        except LeftOutError as reason:
            company.left_out[name] = str(reason)
        except FailedError as error:
            company.failed[name] = str(error)
        else:
            turns[name] = partial(_opened_s, name)
    rows = plan.play(turns, company, turns_each=1)
    title = "From opening a pool of 2 to its first result"
    yield make_table("startup", title, rows, company, base=DEFAULT)


def long_call(plan: Plan) -> Iterator[Table]:
    """Short calls beside a long one: nobody waits for it while a worker is free."""
    longest, median = list[float](), list[float]()
    with gather(plan.wanted(DEFAULT), 2) as company:
        for subject in company.subjects.values():
            for _ in range(min(plan.rounds, 2)):
                found = subject.measure("one_long_call", seconds=plan.seconds(5))
                longest.append(found["longest"])
                median.append(found["median"])
    rows = {"the longest short call": longest, "the median short call": median} if longest else {}
    title = f"Short calls of {CALLERS} callers while a call of 5 s keeps one of 2 workers busy"
    yield make_table("longcall", title, rows, company)


def stream(plan: Plan) -> Iterator[Table]:
    """Chunks of one stream, beside the calls of many callers in the same pool."""
    turns = dict[str, Turn]()
    with gather(plan.wanted(DEFAULT), 2) as company:
        for name, subject in company.subjects.items():
            measure = subject.measure
            turns[f"{name}, a call"] = partial(
                measure, "load", callers=CALLERS, seconds=plan.seconds(1)
            )
            turns[f"{name}, a chunk"] = partial(measure, "stream", count=plan.count(100_000))
        rows = plan.play(turns, company, turns_each=1)
    title = f"Time per chunk of a stream of 100,000, and per no-op call of {CALLERS} callers"
    yield make_table("stream", title, rows, company, base=f"{DEFAULT}, a call")


def host_call(plan: Plan) -> Iterator[Table]:
    """A tool that calls the host once, beside one that does nothing: one caller, one worker."""
    turns = dict[str, Turn]()
    with gather(plan.wanted(DEFAULT, MEMORY), 1) as company:
        for name, subject in company.subjects.items():
            measure = partial(subject.measure, seconds=plan.seconds(0.05))
            turns[f"{name}, a no-op"] = partial(measure, "round_trip")
            turns[f"{name}, a host call"] = partial(measure, "host_call")
        rows = plan.play(turns, company)
    title = "Round trip of a tool that makes one no-op host call, 1 caller, 1 worker"
    yield make_table("hostcall", title, rows, company, base=f"{DEFAULT}, a no-op")


def waiting(plan: Plan) -> Iterator[Table]:
    """Does a call cost more while 10,000 wait?"""
    base, many, turns = "10 callers", "10,000 callers", dict[str, Turn]()
    with gather(plan.wanted(DEFAULT), 2) as company:
        for subject in company.subjects.values():
            measure = partial(subject.measure, "load", seconds=plan.seconds(0.3))
            turns[base] = partial(measure, callers=10)
            turns[many] = partial(measure, callers=plan.count(10_000))
        rows = plan.play(turns, company)
    yield make_table("waiting", "Time per call, by waiting callers", rows, company, base=base)


def sessions(plan: Plan) -> Iterator[Table]:
    """Does a call cost more while 10,000 sessions are open?"""
    base, many, turns = "10 sessions", "10,000 sessions", dict[str, Turn]()
    there = hasattr(snakepit.Pool, "session")
    with gather(plan.wanted(DEFAULT) if there else (), 2) as company:
        if not there:
            company.left_out[many] = "this version has no sessions yet"
        for subject in company.subjects.values():
            measure = partial(subject.measure, "sessions", seconds=plan.seconds(0.3))
            turns[base] = partial(measure, count=10)
            turns[many] = partial(measure, count=plan.count(10_000))
        rows = plan.play(turns, company, turns_each=3)
    yield make_table("sessions", "Time per call, by open sessions", rows, company, base=base)


def workers(plan: Plan) -> Iterator[Table]:
    """Does a call cost more while there are 1,000 workers? They are in memory.

    As many callers as the smaller pool has workers: with more of them it alone would send ahead.
    """
    base, turns, names = "10 workers", dict[str, Turn](), plan.wanted(MEMORY)
    with gather(names, 10) as few, gather(names, plan.count(1_000)) as company:
        for subject in few.subjects.values():
            measure = partial(subject.measure, "load", callers=10)
            turns[base] = partial(measure, seconds=plan.seconds(0.3))
        for subject in company.subjects.values():
            measure = partial(subject.measure, "load", callers=10)
            turns["1,000 workers"] = partial(measure, seconds=plan.seconds(0.3))
        rows = plan.play(turns, company)
    title = "Time per call, by workers (transport memory)"
    yield make_table("workers", title, rows, company, base=base)


def memory(plan: Plan) -> Iterator[Table]:
    """What an idle worker weighs, and what calls leave behind."""
    with gather(plan.wanted(*_SNAKEPITS, *_PEERS), 1) as company:
        turns: dict[str, Turn] = {
            name: partial(subject.measure, "idle_memory")
            for name, subject in company.subjects.items()
        }
        rows = play(turns, rounds=1, turns_each=1, failed=company.failed)
    title = "Memory (USS) of one idle worker, with all helper processes of its pool"
    yield make_table("idle", title, rows, company, unit="MiB", base=DEFAULT)
    rows = {}
    with gather(plan.wanted(DEFAULT), 2) as company:
        for subject in company.subjects.values():
            rows["an idle worker"] = [subject.measure("worker_memory")]
            first, last = plan.count(100_000), plan.count(1_000_000)
            for side, grown in subject.measure("memory_growth", first=first, last=last).items():
                rows[f"growth of the {side} from 100,000 calls to 1,000,000"] = [grown]
    yield make_table("memory", "Memory (USS) of snakepit", rows, company, unit="MiB")


SCENARIOS: Final[dict[str, Callable[[Plan], Iterator[Table]]]] = {
    "roundtrip": round_trip,
    "throughput": throughput,
    "values": values,
    "shm": shared_memory,
    "grpc": over_grpc,
    "startup": startup,
    "longcall": long_call,
    "stream": stream,
    "hostcall": host_call,
    "waiting": waiting,
    "sessions": sessions,
    "workers": workers,
    "memory": memory,
}


def run(scenarios: Iterable[str], plan: Plan) -> Iterator[tuple[str, Table | FailedError]]:
    """The tables as they come; in place of one, what broke its scenario off."""
    for name in scenarios:
        try:
            for table in SCENARIOS[name](plan):
                yield name, table
        except FailedError as error:
            yield name, error


def _opened_s(name: str) -> float:
    with closing(Subject(name, 2)) as subject:
        subject.ready()
        return subject.opened_s
