"""`SeededFaults`: what goes wrong is drawn by lot, the same lot for the same seed."""

from __future__ import annotations

import math
from collections.abc import Collection
from random import Random
from typing import Final, Literal

from snakepit.errors import ConfigError
from snakepit.transports._faults import Delay, Die, Fault, Garbage, Passage, Silence

GARBAGE_BYTES_MAX: Final = 32
EXIT_CODE_MAX: Final = 255
_WHEN: Final[tuple[Literal["before", "within", "after"], ...]] = ("before", "within", "after")


class SeededFaults:
    """A fault plan for `MemoryTransport`: each message meets each kind of fault at a given rate.

    Args:
        random: decides. What `run_seeded` hands out makes it the seed's decision.
        death: rate, 0 to 1, of messages before, within or after which the worker dies.
        delay: rate of those that come up to `delay_max_s` late, with all behind them.
        silence: rate of those from which on the worker neither reads nor writes.
        garbage: rate of those that are replaced or followed by bytes that mean nothing.
        spare: names of messages to which nothing ever happens.

    `happened` lists what it did. With `enabled = False` messages pass.
    """

    def __init__(
        self,
        random: Random,
        *,
        death: float = 0.0,
        delay: float = 0.0,
        silence: float = 0.0,
        garbage: float = 0.0,
        delay_max_s: float = 1.0,
        spare: Collection[str] = (),
    ) -> None:
        rates = {"death": death, "delay": delay, "silence": silence, "garbage": garbage}
        for name, rate in rates.items():
            if not 0 <= rate <= 1:
                raise ConfigError(f"SeededFaults.{name}", rate, "a rate from 0 to 1")
        if sum(rates.values()) > 1:
            raise ConfigError("SeededFaults", rates, "rates that are 1 at most together")
        if not 0 <= delay_max_s < math.inf:
            raise ConfigError("SeededFaults.delay_max_s", delay_max_s, "a finite number of seconds")
        self.enabled: bool = True
        self.happened: list[tuple[Passage, Fault]] = []
        self._random, self._rates = random, rates
        self._delay_max_s, self._spare = delay_max_s, frozenset(spare)

    def __call__(self, passage: Passage, /) -> Fault | None:
        """The fault for this message, if any."""
        if not self.enabled or passage.kind in self._spare:
            return None
        lot = self._random.random()
        for name, rate in self._rates.items():
            if lot < rate:
                fault = self._draw(name)
                self.happened.append((passage, fault))
                return fault
            lot -= rate
        return None

    def _draw(self, name: str) -> Fault:
        random = self._random
        if name == "death":
            return Die(
                random.choice(_WHEN), random.choice((None, random.randint(0, EXIT_CODE_MAX)))
            )
        if name == "delay":
            return Delay(random.uniform(0, self._delay_max_s))
        if name == "silence":
            return Silence()
        data = random.randbytes(random.randint(1, GARBAGE_BYTES_MAX))
        return Garbage(data, instead=random.random() < 0.5)
