"""What may go wrong between a host and a worker in memory, on purpose.

A plan is asked about every message, in both directions, when its turn has come, and answers with
one of the faults here or with None. What the faults do is done at the worker's end of the link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from attrs import field, frozen

from snakepit.errors import ConfigError
from snakepit.protocol import ToHost, ToWorker

Direction: TypeAlias = Literal["to_worker", "to_host"]


@frozen
class Passage:
    """A message on its way.

    `worker`: the how-manieth of its transport's workers, from 1 on; the one that replaces a dead one
    has the next number. `number`: the how-manieth message of this worker, from 1 on, both
    directions counted together. `message`: what travels; look, and change nothing.
    """

    worker: int
    number: int
    direction: Direction
    message: ToWorker | ToHost

    @property
    def kind(self) -> str:
        """The name of the message, as "Hello", "Start", "Ready", "Call", "Result"."""
        return type(self.message).__name__


@frozen
class Delay:
    """The message, and what follows it in its direction, comes `seconds` later."""

    seconds: float


@frozen
class Die:
    """The worker ends as by SIGKILL, or with an exit code.

    `when`: "before" the message has gone anywhere, "after" it has been written or been acted upon, or
    "within": half of its bytes have been written (half a message to a worker is none).
    """

    when: Literal["before", "within", "after"] = field(default="before")
    exit_code: int | None = None


@frozen
class Silence:
    """From this message on the worker neither reads nor writes; only SIGKILL ends it.

    What its tools do they go on doing; nobody hears of it.
    """


@frozen
class Garbage:
    """These bytes travel in the message's place, or behind it where `instead` is False."""

    data: bytes
    instead: bool = True


Fault: TypeAlias = Delay | Die | Silence | Garbage


class FaultPlan(Protocol):
    """Whatever can be called like this."""

    def __call__(self, passage: Passage, /) -> Fault | None:
        """What happens to this message; None: it passes."""


class Faults:
    """A plan by the names of messages: `Faults({"Call": [None, Die()], "Result": Delay(3)})`.

    The first message of a name gets the first fault of its list, the second the second, and so on,
    over all workers together; when the list is used up, messages pass. A fault alone is a list of one.
    `left` tells what has not happened yet.
    """

    def __init__(self, script: Mapping[str, Fault | Sequence[Fault | None]]) -> None:
        known = {kind.__name__ for union in (ToWorker, ToHost) for kind in _members(union)}
        self.left: dict[str, list[Fault | None]] = {}
        for name, faults in script.items():
            if name not in known:
                raise ConfigError("Faults", name, f"the name of a message: {sorted(known)}")
            self.left[name] = [faults] if isinstance(faults, Fault) else list(faults)

    def __call__(self, passage: Passage, /) -> Fault | None:
        """The next fault for a message of this name."""
        left = self.left.get(passage.kind)
        return left.pop(0) if left else None


def _members(union: object) -> Iterator[type]:
    yield from getattr(union, "__args__", ())
