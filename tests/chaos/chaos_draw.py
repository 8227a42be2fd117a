"""A round of chaos is drawn from a seed: the loop, the transport, the pool, who calls, and what goes wrong.

The seed decides what is asked for and when. What meets what is up to the machine, so a seed shows a
failure again often, not always.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Any

from _chance import weighted

from snakepit import CrashBarrier, Queue, Startup, Stop, ZeroCopy

# What a tool does, with its weight. See chaos_tools.
BEHAVIOURS = {
    "return": 60,
    "raise": 8,
    "compute": 8,
    "child": 4,
    "leave a child": 2,
    "hold the GIL": 1,
    "swallow": 3,
    "exit": 3,
    "kill": 2,
    "segv": 1,
}
STARTS_CHILDREN = {"child", "leave a child"}
# Of calls that end by their timeout or by being cancelled, for they would take far longer.
ENDLESS = {"return": 6, "compute": 2, "child": 2, "leave a child": 2, "swallow": 2}
ENDLESS_SHARE = 0.15
ENDLESS_S = 30.0
# A new one that has processes is one more name here. "connect": workers that are not the pool's.
TRANSPORTS = ("stdio", "shm", "grpc", "connect")
CALLS = {"call": 50, "large": 12, "stream": 14, "eat": 6, "confer": 8, "session": 10, "map": 6}
HAVOC = {"kill": 50, "stop": 25, "term": 10, "guardian": 8}
ENDINGS = {"calm": 70, "cancel": 12, "raise": 10, "leave": 8}
ROUND_S = (3.0, 6.0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One round."""

    seed: int
    backend: str
    transport: str
    has_async: bool
    options: dict[str, Any]
    callers: int
    havoc_every_s: float
    seconds: float
    ending: str

    @property
    def stop(self) -> Stop:
        stop: Stop = self.options["stop"]
        return stop

    def __str__(self) -> str:
        size = self.options["size"]
        return (
            f"{self.transport} on {self.backend}, {size} workers{' with a loop' * self.has_async}, "
            f"{self.callers} callers, havoc every {self.havoc_every_s:g} s, "
            f"{self.seconds:.1f} s, ending: {self.ending}"
        )


def draw_plan(seed: int, seconds: float | None = None) -> Plan:
    """The plan of this seed, shortened to these seconds."""
    random = Random(f"chaos {seed}")
    size = random.choice((1, 2, 2, 3))
    options = {
        "size": size,
        "min_ready": random.choice((0, 1, size)),
        "startup": Startup(timeout=60, init_timeout=60),
        "queue": Queue(
            max_size=random.choice((None, None, None, None, 4)),
            timeout=random.choice((None, None, 2.0)),
        ),
        "stop": Stop(
            cancel_grace=random.choice((0.1, 0.3, 1.0)),
            term_grace=random.choice((0.1, 0.5)),
            drain_timeout=random.choice((0.5, 2.0)),
        ),
        "crash_barrier": CrashBarrier(max_restarts=100_000, max_retries=random.choice((0, 1, 3))),
        "zero_copy": ZeroCopy(threshold=random.choice((2**16, 2**20)), budget_mb=32),
    }
    drawn = random.uniform(*ROUND_S)
    return Plan(
        seed,
        random.choice(("trio", "asyncio")),
        random.choice(TRANSPORTS),
        random.random() < 0.4,
        options,
        random.choice((4, 8, 16)),
        random.choice((0.2, 0.4, 0.8, 1.5)),
        drawn if seconds is None else min(drawn, seconds),
        weighted(random, ENDINGS),
    )


def moment(random: Random) -> float:
    """So many seconds: mostly few."""
    return random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.001, 0.01, 0.03, 0.1, 0.3))
