"""What all rounds together met, which of them failed, and what they kept of memory."""

from __future__ import annotations

from collections import Counter

from chaos_world import World

KIB_PER_CALL_MAX = 6  # of the host, from a calm beginning to a calm end
CALLS_MIN = 50  # fewer say nothing of what each one keeps
GROWTH_MIB_MAX = 48  # of this process, over all rounds but the first ones
WARM_ROUNDS = 4  # after these every loop, transport and library has been used


class Tally:
    """One run of the chaos."""

    def __init__(self) -> None:
        self.rounds = self.restarts = self.runs = 0
        self.calm_rounds = self.workers_seen = self.calls_between = self.bytes_left = 0
        self.endings: Counter[str] = Counter()
        self.havoc: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.failed: list[int] = []
        self.warm_mib: float | None = None
        self.grown_mib: float | None = None  # since then

    def add(self, world: World, found: list[str]) -> None:
        self.rounds += 1
        self.restarts += world.restarts
        self.runs += sum(map(len, world.runs.values()))
        self.endings.update(world.endings())
        self.havoc.update(world.havoc)
        plan = world.plan
        self.kinds.update([plan.backend, plan.transport, f"end: {plan.ending}"])
        if world.workers_seen:
            self.calm_rounds += 1
            self.workers_seen += world.workers_seen
            self.calls_between += world.calls_between
            self.bytes_left += world.bytes_left
        if found:
            self.failed.append(plan.seed)

    def note_memory(self, own_mib: float) -> None:
        """After a round."""
        if self.rounds == WARM_ROUNDS:
            self.warm_mib = own_mib
        elif self.warm_mib is not None:
            self.grown_mib = own_mib - self.warm_mib

    @property
    def kib_per_call(self) -> float | None:
        """None: too few calls to tell."""
        if self.calls_between < CALLS_MIN:
            return None
        return self.bytes_left / 2**10 / self.calls_between

    def leaks(self) -> list[str]:
        """What was kept of memory and should not have been."""
        found = []
        if self.kib_per_call is not None and self.kib_per_call > KIB_PER_CALL_MAX:
            found.append(f"{self.kib_per_call:.1f} KiB of memory per call")
        if self.grown_mib is not None and self.grown_mib > GROWTH_MIB_MAX:
            found.append(f"{self.grown_mib:.0f} MiB of memory")
        return found

    def text(self) -> str:
        calls = sum(self.endings.values())
        return "\n".join(
            [
                f"{self.rounds} rounds ({counts(self.kinds)})",
                f"{calls:,} calls ended: {counts(self.endings)}; tools ran {self.runs:,} times",
                f"havoc: {counts(self.havoc)}; {self.restarts:,} workers replaced",
                f"quiet: {self.calm_rounds} pools and {self.workers_seen} workers looked into",
                f"memory: {self._of_calls()}; {self._of_rounds()}",
            ]
        )

    def _of_calls(self) -> str:
        over = f"{self.calls_between:,} calls in pools that were quiet before and after"
        if self.kib_per_call is None:
            return f"{over} are too few to tell (of {CALLS_MIN})"
        return f"{self.kib_per_call:+.1f} KiB for each of {over} (at most {KIB_PER_CALL_MAX})"

    def _of_rounds(self) -> str:
        if self.grown_mib is None:
            return f"{self.rounds} rounds are too few to tell (of {WARM_ROUNDS + 1})"
        return f"{self.grown_mib:+.1f} MiB since round {WARM_ROUNDS} (at most {GROWTH_MIB_MAX})"


def counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counter.most_common())
