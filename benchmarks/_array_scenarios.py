"""The scenario `shm`: arrays and tables to workers and back, in shared memory and otherwise."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Final

import psutil
from attrs import evolve

from benchmarks._array_peers import ARRAY_PEERS
from benchmarks._contenders import DEFAULT, SHARED
from benchmarks._plan import CALLERS, Plan, make_table
from benchmarks._results import Table
from benchmarks._rounds import Turn
from benchmarks._subjects import Company, Subject, gather

KIB: Final = 2**10
MIB: Final = 2**20
ARRAY_MIB: Final = (1, 64, 256)
TABLE_MIB: Final = 64
STALL_BYTES: Final = 2**30
# For the plot. Large ones take some a second and more: one turn in each of a few rounds.
SIZES: Final = {
    "1 KiB": KIB,
    "32 KiB": 32 * KIB,
    "1 MiB": MIB,
    "32 MiB": 32 * MIB,
    "1 GiB": 2**30,
}
ARRAY_TABLE: Final = "array {}"
FEW_ROUNDS: Final = 3
COPIES: Final = 12  # of an array, at most, on its way through pickle and pipes
PICKLING: Final = ("ProcessPoolExecutor spawn", "multiprocessing.Pool")
PEERS: Final = (*PICKLING, *(contender.name for contender in ARRAY_PEERS))
SHARING: Final = (SHARED, "shared_memory by hand", "Ray")
NAMED: Final = ("shared_memory by hand", "Ray")  # their memory is in /dev/shm
NAMED_COPIES: Final = 3
IN_PLACE: Final = "in shared memory already"
CALL: Final = "a call, {}"
LOAD: Final = f"a call of {CALLERS}, {{}}"


def shared_memory(plan: Plan) -> Iterator[Table]:
    """Arrays of several sizes and ways, a table, calls without any of it, the loop's patience."""
    yield _calls(plan.longer(5))
    if find_spec("numpy") is None:
        yield make_table("shm", "Arrays", {}, Company({}, {"arrays": "not installed (NumPy)"}))
        return
    yield _arrays(plan)
    yield _stalls(plan)
    yield from _by_size(plan)


def _calls(plan: Plan) -> Table:
    """Calls that do nothing: what shared memory costs those who do not use it.

    With new processes for each round: two that do the same differ by more than is asked for here,
    for as long as they live.
    """
    rows: dict[str, list[float]] = {}
    names, company = plan.wanted(DEFAULT, SHARED), Company()
    for _ in range(plan.rounds):
        turns = dict[str, Turn]()
        names.reverse()
        with gather(names, 2) as here:
            company = here
            for name in sorted(here.subjects):
                measure = partial(here.subjects[name].measure, seconds=plan.seconds(0.1))
                turns[CALL.format(name)] = partial(measure, "round_trip")
                turns[LOAD.format(name)] = partial(measure, "load", callers=CALLERS)
            for row, figures in evolve(plan, rounds=1).play(turns, here, turns_each=3).items():
                rows.setdefault(row, []).extend(figures)
        if here.failed or here.left_out:
            break
    rows = {row: rows[row] for row in sorted(rows, reverse=True)}
    title = f"Calls that do nothing, with and without shared memory: 1 caller, {CALLERS} callers"
    return make_table("shmcalls", title, rows, company, base=CALL.format(DEFAULT))


def _arrays(plan: Plan) -> Table:
    """An array that a segment holds, in each direction; one on the heap; one copy beside them."""
    rows = dict[str, list[float]]()
    with gather(plan.wanted(SHARED), 1) as company:
        for mib in ARRAY_MIB:
            turns = dict[str, Turn]()
            for subject in company.subjects.values():
                size = plan.count(mib * KIB) * KIB
                measure = partial(subject.measure, size=size, seconds=plan.seconds(0.2))
                turns = {
                    f"segment there and back, {mib} MiB": partial(measure, "array", born="shared"),
                    f"segment to a worker, {mib} MiB": partial(measure, "to_worker"),
                    f"segment from a worker, {mib} MiB": partial(measure, "from_worker"),
                    f"heap there and back, {mib} MiB": partial(measure, "array", born="heap"),
                    f"one copy, {mib} MiB": partial(measure, "memcpy"),
                }
                if mib == TABLE_MIB and find_spec("pyarrow") is not None:
                    turns[f"table of 1,000 columns, {mib} MiB"] = partial(measure, "table")
                    turns[f"one copy of each column, {mib} MiB"] = partial(measure, "columns")
            rows |= plan.play(turns, company, turns_each=2)
    title = "Arrays in shared memory and on the heap, 1 caller, 1 worker"
    return make_table("shm", title, rows, company, base=f"one copy, {max(ARRAY_MIB)} MiB")


def _stalls(plan: Plan) -> Table:
    """How long the event loop is held up while a gigabyte is sent, into new memory and again."""
    size = min(STALL_BYTES, psutil.virtual_memory().available // COPIES)
    size = plan.count(size // MIB) * MIB
    rows: dict[str, list[float]] = {}
    company = Company()

    def take() -> tuple[Company, list[dict[str, float]]]:
        # With new processes each time: what was sent before would be sent into memory that is there.
        with gather(plan.wanted(SHARED), 1) as here:
            return here, [one.measure("stall", size=size) for one in here.subjects.values()]

    for _ in range(plan.rounds):
        company, all_found = plan.patience.take(take)
        for found in all_found:
            rows.setdefault("while it is sent", []).append(found["sending"])
            rows.setdefault("of that, able to run and without a CPU", []).append(found["queued"])
            rows.setdefault("while a thread alone copies as much", []).append(found["copying"])
            rows.setdefault("as long, nothing sent", []).append(found["quiet"])
            rows.setdefault("time to send it", []).append(found["took"])
    title = f"The longest that the event loop lets a task wait while {size // MIB} MiB are sent"
    return make_table("stall", title, rows, company)


def _by_size(plan: Plan) -> Iterator[Table]:
    """The same array there and back by everybody: a table for each size."""
    available = psutil.virtual_memory().available
    with gather(plan.wanted(SHARED, DEFAULT, *PEERS), 1) as company:
        for text, size in SIZES.items():
            here = Company(company.subjects, dict(company.left_out), dict(company.failed))
            large = size > MIB
            turns = dict[str, Turn]()
            if size * COPIES > available:
                here.left_out[text] = "there is not enough memory for it"
            else:
                size = plan.count(size) if large else size  # noqa: PLW2901 - of this run
                for name, subject in company.subjects.items():
                    if name in NAMED and size * NAMED_COPIES > _dev_shm_bytes():
                        here.left_out[f"{name}, {text}"] = "there is not enough room in /dev/shm"
                    else:
                        turns |= _turns(subject, size, plan.seconds(0.02))
            few = evolve(plan, rounds=min(plan.rounds, FEW_ROUNDS)) if large else plan
            rows = few.play(turns, here, turns_each=1 if large else 2)
            title = f"An array of {text} there and back, by everybody; 1 caller, 1 worker"
            yield make_table(ARRAY_TABLE.format(text), title, rows, here, base=SHARED)


def _dev_shm_bytes() -> int:
    """What is free there: who writes more is killed. Any amount, where the system has no such place."""
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108 - looked at, not used
    except OSError:
        return sys.maxsize


def _turns(subject: Subject, size: int, seconds: float) -> dict[str, Turn]:
    # Through pipes the second time is as the first, and may take many seconds.
    warm = size <= 32 * MIB or subject.name not in (DEFAULT, *PICKLING)
    measure = partial(subject.measure, "array", size=size, seconds=seconds)
    turns: dict[str, Turn] = {subject.name: partial(measure, born="heap", warm=warm)}
    if subject.name in SHARING:
        turns[f"{subject.name}, {IN_PLACE}"] = partial(measure, born="shared")
    return turns
