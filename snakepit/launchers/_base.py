"""The launcher seam: a running worker, its link, and the means to end it.

A slot's task launches its worker, owns it, and walks the stop ladder; whether the worker is a
child process or a task of this one is the launcher's affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from snakepit.process import Stoppable

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from snakepit.transports import Channel


class CannotLaunchError(Exception):
    """There is no worker: what should run it could not be started."""


class Launched(Stoppable):
    """A running worker, in the hands of the task that launched it.

    `pid`: its process, None if it has none of its own. `channel`: the host's end of its link.
    """

    pid: int | None
    channel: Channel

    @property
    def died(self) -> str:
        """Its end by itself, in words."""
        return "died"

    @property
    def start_failure(self) -> str:
        """What kept it from being ready, "" if that was its end."""
        return ""

    @property
    @abstractmethod
    def output_tail(self) -> str:
        """The last lines that it printed, oldest first; complete once it has been reaped."""

    @abstractmethod
    async def run(self) -> None:
        """Carry messages and collect output, until cancelled."""

    @abstractmethod
    async def dump(self) -> str:
        """The stacks of its threads. Raises RuntimeError if it cannot show them, LookupError if it has ended."""

    @abstractmethod
    async def wait_exit(self) -> None:
        """Wait until it has ended; what is left of it is there until `kill_and_reap`."""


class Launcher(ABC):
    """A source of workers, all alike."""

    def begin(self, tasks: TaskGroup) -> None:  # noqa: B027 - where nothing does
        """Start what runs beside the workers; it is cancelled when the last one has ended."""

    @abstractmethod
    def launch(self, worker_id: str, slot: int) -> AbstractContextManager[Launched]:
        """Start a worker, with no checkpoint; however the block is left, the worker has ended.

        `slot`: its place in the pool, from 1 on.

        Raises CannotLaunchError.
        """
