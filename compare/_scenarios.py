"""The eight mishaps: what each host does, and what its facts say in the table."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from compare import _work
from compare._attempt import END_S_MAX, Attempt, Watched, begun
from compare._contender import Contender, Run

Facts: TypeAlias = dict[str, Any]

LOOK_AFTER_S: Final = 3.0  # when it is looked at what a cancel has stopped
WATCHED_S: Final = 1.0  # and for how long before that
STOPPED_S_MAX: Final = 5.0  # what we promise, cancel_grace + term_grace, and 2 s for a busy machine
NAP_S: Final = 25.0
TOLD_S_MAX: Final = 5.0  # until the caller of a killed call hears of it
BUSY: Final = ("one", "other")  # the calls that are running then
COUNTED_AFTER_S: Final = (1.0, 5.0, 27.0)  # the last one when the calls are over
ENDED_S_MAX: Final = 90.0  # how long it is waited for the end of the last of them


class Scenario(ABC):
    """One mishap. `wanted`: what our own rows have to say, as a regular expression."""

    name: str
    title: str
    wanted: str
    workers = 2

    @abstractmethod
    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        """Let it happen, in a host that does nothing else, and tell what was seen."""

    @abstractmethod
    def cell(self, facts: Facts) -> str:
        """The facts, in a few words."""

    def remarks(self, facts: Facts) -> str:
        """What there is to say beside it."""
        return ""


async def warm_up(run: Run, workers: int, folder: Path) -> None:
    """Have all workers started: some pools notice the death of one only when it is not their newest."""
    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(run, _work.nap, os.fspath(folder), "warm", 0.2)


class Neighbour:
    """A call beside the one that something happens to."""

    def __init__(self, nursery: trio.Nursery, run: Run, folder: Path) -> None:
        self._folder = folder
        self._call = Attempt(nursery, run, _work.hold, os.fspath(folder), "neighbour")

    async def begun(self) -> None:
        await begun(self._folder, "neighbour")

    async def fate(self) -> str:
        """Release it: does its caller get the value?"""
        (self._folder / "release").touch()
        return "survives" if await self._call.outcome() == "a value" else "killed"


async def serves(nursery: trio.Nursery, run: Run) -> str:
    """Is the pool of any use afterwards?"""
    call = Attempt(nursery, run, _work.add, 20, 22)
    return "usable" if await call.has_ended() and call.value == 42 else "unusable"


async def cancelled(call: Attempt) -> float | None:
    """Cancel it; the seconds until its caller has left it, None if that is too long."""
    return await left_after(call, call.cancel())


async def left_after(call: Attempt, at: float) -> float | None:
    """As `cancelled`, of one that was cancelled then."""
    patience_s = max(0.0, at + END_S_MAX - time.monotonic())
    return round(call.ended_at - at, 2) if await call.has_ended(patience_s) else None


def left(facts: Facts) -> str:
    """The remark on when the caller had left the call."""
    if facts["left_s"] is None:
        return f"the cancelled caller waits for more than {END_S_MAX:g} s"
    return f"the caller leaves after {facts['left_s']:.2f} s"


def late(facts: Facts) -> str:
    """What a cell has to add where the caller left later than we promise of ours."""
    if facts["left_s"] is None:
        return f"; its caller waits for more than {END_S_MAX:g} s"
    if facts["left_s"] > STOPPED_S_MAX:
        return f"; its caller leaves after {facts['left_s']:.1f} s"
    return ""


class Kill(Scenario):
    """SIGKILL to one worker, while a call runs in it and another one beside it."""

    name, title, wanted = "kill", "a worker is killed: neighbour / pool", r"survives / usable"

    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        neighbour = Neighbour(nursery, run, folder)
        await neighbour.begun()
        victim = Attempt(nursery, run, _work.nap, os.fspath(folder), "victim", _work.FOREVER_S)
        os.kill(await begun(folder, "victim"), signal.SIGKILL)
        return {
            "told": await victim.outcome(TOLD_S_MAX),
            "truthful": contender.death in kinds_of(victim.error),
            "neighbour": await neighbour.fate(),
            "pool": await serves(nursery, run),
        }

    def cell(self, facts: Facts) -> str:
        told = "" if facts["truthful"] else f"; its caller gets {facts['told']}"
        waits = "; its caller waits for ever" if facts["told"] == "nothing" else told
        return f"{facts['neighbour']} / {facts['pool']}{waits}"

    def remarks(self, facts: Facts) -> str:
        return f"the caller of the killed one gets {facts['told']}"


def kinds_of(error: BaseException | None) -> list[str]:
    """The names of its type, and of those that this is one of."""
    return [kind.__name__ for kind in type(error).__mro__] if error is not None else []


class Cancel(Scenario):
    """A call that computes for ever is cancelled, and its worker looked at three seconds later."""

    name, title, wanted = "cancel", "cancel frees the CPU", r"yes"

    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        neighbour = Neighbour(nursery, run, folder)
        await neighbour.begun()
        victim = Attempt(nursery, run, _work.burn, os.fspath(folder), "victim")
        worker = Watched(await begun(folder, "victim"))
        deadline = trio.current_time() + LOOK_AFTER_S
        left_s = await cancelled(victim)
        await trio.sleep_until(deadline - WATCHED_S)
        return {
            "left_s": left_s,
            "computing": await worker.is_computing(WATCHED_S),
            "neighbour": await neighbour.fate(),
            "pool": await serves(nursery, run),
        }

    def cell(self, facts: Facts) -> str:
        return ("no" if facts["computing"] else stopped(facts)) + late(facts)

    def remarks(self, facts: Facts) -> str:
        return left(facts)


def stopped(facts: Facts) -> str:
    """It was: at what price?"""
    if facts["neighbour"] == "killed":
        return "with the whole pool"
    return "yes" if facts["pool"] == "usable" else "yes, pool unusable"


class Grandchild(Scenario):
    """A cancelled call has started a program. Where nothing stops a call, its worker gets SIGTERM."""

    name, title, wanted = "grandchild", "program that a cancelled call started", r"killed"

    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        victim = Attempt(nursery, run, _work.start_child, os.fspath(folder), "victim")
        worker = await begun(folder, "victim")
        child = Watched(await begun(folder, "child"))
        deadline = trio.current_time() + LOOK_AFTER_S
        left_s = await cancelled(victim)
        if contender.stops == "nothing":
            os.kill(worker, signal.SIGTERM)
        while child.lives() and trio.current_time() < deadline:
            await trio.sleep(0.05)
        return {"left_s": left_s, "lives": child.lives()}

    def cell(self, facts: Facts) -> str:
        killed = "killed with the whole pool" if facts["stops"] == "the pool" else "killed"
        return ("leaked" if facts["lives"] else killed) + late(facts)

    def remarks(self, facts: Facts) -> str:
        return left(facts)


class BadException(Scenario):
    """A call raises an exception that pickle cannot rebuild."""

    name, title, wanted = (
        "exception",
        "exception that pickle cannot rebuild / pool",
        r"original / usable",
    )
    workers = 1

    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        call = Attempt(nursery, run, _work.fail)
        told = await call.outcome()
        if isinstance(call.error, _work.BadError) and str(call.error) == "a fault in the model":
            told = "original"
        return {"told": told, "pool": await serves(nursery, run)}

    def cell(self, facts: Facts) -> str:
        told = "the caller waits for ever" if facts["told"] == "nothing" else facts["told"]
        return f"{told} / {facts['pool']}"


class RawBytes(Scenario):
    """A call writes to descriptor 1, beneath Python, as libraries in C do."""

    name, title, wanted = "raw", "raw bytes on fd 1", r"immune"
    workers = 1

    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        call = Attempt(nursery, run, _work.write_raw)
        told = await call.outcome()
        return {"told": told, "pool": await serves(nursery, run)}

    def cell(self, facts: Facts) -> str:
        if facts["told"] != "a value":
            return str(facts["told"])
        return "immune" if facts["pool"] == "usable" else "pool unusable"


class Keep(Scenario):
    """A worker has loaded something; a call in it sleeps and is cancelled. Is it still loaded?"""

    name, title, wanted = "keep", "cancel keeps what is loaded", r"yes"
    workers = 1

    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        await run(_work.load, "a model")
        victim = Attempt(nursery, run, _work.nap, os.fspath(folder), "victim", _work.FOREVER_S)
        await begun(folder, "victim")
        left_s = await cancelled(victim)
        call = Attempt(nursery, run, _work.loaded)
        if await call.outcome() != "a value":
            return {"left_s": left_s, "loaded": "the call goes on"}
        return {"left_s": left_s, "loaded": "yes" if call.value == "a model" else "no"}

    def cell(self, facts: Facts) -> str:
        return f"{facts['loaded']}{late(facts)}"

    def remarks(self, facts: Facts) -> str:
        return left(facts)


class HeldGil(Scenario):
    """A cancelled call is in C code that holds the GIL and looks at no signal."""

    name, title, wanted = "gil", "cancel ends C code holding the GIL", r"yes"

    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        neighbour = Neighbour(nursery, run, folder)
        await neighbour.begun()
        victim = Attempt(nursery, run, _work.hold_gil, os.fspath(folder), "victim")
        worker = Watched(await begun(folder, "victim"))
        at = victim.cancel()
        while worker.lives() and time.monotonic() < at + STOPPED_S_MAX:
            await trio.sleep(0.02)
        ended_s = None if worker.lives() else round(time.monotonic() - at, 2)
        return {
            "left_s": await left_after(victim, at),
            "ended_s": ended_s,
            "neighbour": await neighbour.fate(),
            "pool": await serves(nursery, run),
        }

    def cell(self, facts: Facts) -> str:
        return ("no" if facts["ended_s"] is None else stopped(facts)) + late(facts)

    def remarks(self, facts: Facts) -> str:
        if facts["ended_s"] is None:
            return f"it runs after {STOPPED_S_MAX:g} s; {left(facts)}"
        return f"it ends after {facts['ended_s']:.2f} s; {left(facts)}"


class Orphans(Scenario):
    """SIGKILL to the host, with two workers busy for 25 s. The looker-on does it, and counts."""

    name, title, wanted = "orphans", "host killed: orphans after 1 / 5 / 27 s", r"0 / 0 / 0"

    async def befall(
        self, nursery: trio.Nursery, contender: Contender, run: Run, folder: Path
    ) -> Facts:
        for name in BUSY:
            Attempt(nursery, run, _work.nap, os.fspath(folder), name, NAP_S)
        for name in BUSY:
            await begun(folder, name)
        (folder / "ready").touch()
        await trio.sleep_forever()
        raise AssertionError("it was killed")

    def cell(self, facts: Facts) -> str:
        workers, helpers = facts["workers"], facts["others"]
        # Those that end with the last worker are no matter of their own.
        alone = any(others and not busy for busy, others in zip(workers, helpers, strict=True))
        return counted(workers) + (f"; helpers {counted(helpers)}" if alone else "")

    def remarks(self, facts: Facts) -> str:
        last = f"a worker lives after {ENDED_S_MAX:g} s"
        if facts["ended_s"] is not None:
            last = f"the last worker ends after {facts['ended_s']:.1f} s"
        helpers = f"; helpers left: {counted(facts['others'])}" if any(facts["others"]) else ""
        return last + helpers


def counted(numbers: Iterable[int]) -> str:
    """How many there were, one time after the other."""
    return " / ".join(map(str, numbers))


SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Kill(),
        Cancel(),
        Grandchild(),
        BadException(),
        Orphans(),
        RawBytes(),
        Keep(),
        HeldGil(),
    )
}
