"""What can be stopped, and how something ended."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod

from attrs import field, frozen


@frozen
class ExitStatus:
    """How a process ended: an exit code, or the number of a signal; neither if nobody knows.

    Nobody knows when somebody else reaped the process (SIGCHLD ignored, a foreign `wait`).
    `peak_mb`: the most memory that it had at once, in MiB, where that is known. `oom_kills`: how
    many processes of its cgroup the kernel ended for want of memory while it lived; None if nobody knows.
    """

    exit_code: int | None = None
    signal: int | None = None
    peak_mb: float | None = field(default=None, eq=False)
    oom_kills: int | None = field(default=None, eq=False)

    @property
    def certificate(self) -> str:
        """All of it, in words."""
        text = str(self)
        if self.peak_mb is not None:
            text += f"; it had up to {self.peak_mb:.0f} MiB of memory"
        if self.oom_kills:
            text += (
                f"; for want of memory the kernel ended {self.oom_kills} of the processes "
                "of its cgroup meanwhile"
            )
        return text

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            return f"ended by {name}"
        return "ended" if self.exit_code is None else f"exited with code {self.exit_code}"


class Stoppable(ABC):
    """A worker, as far as the stop ladder is concerned."""

    @property
    @abstractmethod
    def is_ours(self) -> bool:
        """False in a forked child of the host, where nothing here has any effect."""

    @abstractmethod
    def send_signal(self, number: signal.Signals) -> None:
        """Signal all of it. Nothing happens if it is gone."""

    @abstractmethod
    def request_dump(self) -> None:
        """Ask for the stacks of its threads, where it prints."""

    async def end_strays(self) -> None:  # noqa: ASYNC910, B027 - where there are none
        """End what it has left behind, once it has ended and before it is reaped."""

    @abstractmethod
    def kill_and_reap(self) -> ExitStatus:
        """End what is left of it, at once. Idempotent."""
