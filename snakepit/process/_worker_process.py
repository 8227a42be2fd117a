"""One worker process: started, watched, signalled as a group, reaped. Owned by one task.

The process leads a session and group of its own. Until it is reaped its pid, and so its group id,
cannot be given to anybody else; so the group is signalled only before the reaping, and the
exit is first *seen* without reaping (`waitid(WNOWAIT)`), what is left of the group is killed,
and then the leader is reaped. `with process:` holds to the very end: however the block is left,
the group has been killed and the leader reaped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
from attrs import frozen

from snakepit.process import _fork_guard

DUMP_SIGNAL = signal.SIGQUIT


@frozen
class ExitStatus:
    """How a process ended: an exit code, or the number of a signal; neither if nobody knows.

    Nobody knows when somebody else reaped the process (SIGCHLD ignored, a foreign `wait`).
    """

    exit_code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            return f"ended by {name}"
        return "ended" if self.exit_code is None else f"exited with code {self.exit_code}"


class WorkerProcess:
    """A running child. Construct only through `start`, use as a context manager."""

    def __init__(self, popen: subprocess.Popen[bytes], stderr_fd: int) -> None:
        self._popen = popen
        self.pid: int = popen.pid
        self.stderr_fd: int = stderr_fd
        self.status: ExitStatus | None = None  # set when reaped
        self._pidfd = _open_pidfd(popen.pid)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        env: Mapping[str, str],
        cwd: str | None,
    ) -> WorkerProcess:
        """Start the process on the calling thread; the caller owns it at once, with no checkpoint.

        Forking from the thread that runs the event loop matters: a parent-death signal is tied
        to the *thread* that forked. Raises OSError if the program cannot be executed.
        """
        read_fd, write_fd = os.pipe()
        try:
            popen = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=write_fd,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        os.set_blocking(read_fd, False)
        _fork_guard.guard(read_fd)
        return cls(popen, read_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill_and_reap()
        _fork_guard.close(self.stderr_fd)
        if self._pidfd is not None:
            _fork_guard.close(self._pidfd)

    async def wait_exit(self) -> None:
        """Wait until the process has ended; it stays a zombie until `kill_and_reap`."""
        if self._pidfd is not None:
            await anyio.wait_readable(self._pidfd)
        else:
            await anyio.to_thread.run_sync(
                self._wait_unreaped, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the whole group. Nothing happens if it is gone."""
        if self.status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def request_dump(self) -> None:
        """Ask the worker to write the stacks of its threads to stderr; it needs no GIL for that."""
        if self.status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, DUMP_SIGNAL)

    def kill_and_reap(self) -> ExitStatus:
        """SIGKILL what is left of the group and reap the leader; blocks only for the kernel.

        Idempotent: the status of the first time is returned again.
        """
        if self.status is None:
            ended = self._exit_seen()
            self.send_signal(signal.SIGKILL)
            if not ended:
                # A leader in uninterruptible sleep delays this; nothing else can.
                with suppress(ChildProcessError):
                    os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.status = self._reap()
            self._popen.returncode = 0  # reaped by us: Popen must neither wait nor warn
        return self.status

    def _reap(self) -> ExitStatus:
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED)
        except ChildProcessError:
            return ExitStatus()
        if found is None:
            return ExitStatus()
        if found.si_code == os.CLD_EXITED:
            return ExitStatus(exit_code=found.si_status)
        return ExitStatus(signal=found.si_status)

    def _exit_seen(self) -> bool:
        try:
            flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
            return os.waitid(os.P_PID, self.pid, flags) is not None
        except ChildProcessError:
            return True

    def _wait_unreaped(self) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)


def _open_pidfd(pid: int) -> int | None:
    """A descriptor that turns readable when the process ends; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None  # the caller falls back to waiting in a thread
    _fork_guard.guard(pidfd)
    return pidfd
