"""One worker process: started, watched, signalled with all that it started, reaped. One task owns it.

The process leads a session and group of its own. Until it is reaped its pid, and so its group id,
cannot be given to anybody else; so the group is signalled only before the reaping, and the
exit is first *seen* without reaping (`waitid(WNOWAIT)`), what is left is killed, and then the
leader is reaped. `with process:` holds to the very end: however the block is left, everything
that it started has been killed and the leader reaped. A forked child of the host owns no
process: whatever it does with one here reaches nobody.

What has left the group is found below the process while that lives (a worker is the parent of
its orphans), and by its mark afterwards.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from resource import RUSAGE_SELF, getrusage
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from snakepit.process._fork_guard import close_fds, fork_generation, guard_fds
from snakepit.process._guardian import guardian, has_ended
from snakepit.process._in_thread import in_thread
from snakepit.process._oom import oom_kills
from snakepit.process._stoppable import ExitStatus, Stoppable
from snakepit.process._strays import end_strays, warn_of
from snakepit.procfs import (
    DUMP_ALL,
    DUMP_MAIN,
    THREADS_SHOWN_MAX,
    VARIABLE,
    Mark,
    Process,
    kill_descendants,
    members_of_group,
    read_status,
    send_to,
    wanted_below,
)

ORDERED_END_S = 0.1  # for the guardian to kill a worker that we may not
KEEP_MARK = {"SPT_NOENV": "1"}  # else setproctitle would write its title over the environment
KB_PER_MB = 2**20 if sys.platform == "darwin" else 2**10  # there it is bytes

_log = logging.getLogger("snakepit.process")
_running: set[WorkerProcess] = set()


class WorkerProcess(Stoppable):
    """A running child. Construct only through `start`, use as a context manager."""

    def __init__(
        self, popen: subprocess.Popen[bytes], stderr_fd: int, mark: Mark | None = None
    ) -> None:
        self._popen = popen
        self.mark: Mark | None = mark
        self._told: list[Process] = []  # what lived below it when it was signalled last
        self._left_none = False  # it has been seen to
        # A new program counts what the one that forked it had as its own.
        self._inherited_kb = getrusage(RUSAGE_SELF).ru_maxrss
        self._peak_kb: int | None = None
        self._oom_kills = oom_kills()
        self.pid: int = popen.pid
        self.stderr_fd: int = stderr_fd
        self.status: ExitStatus | None = None  # set when reaped
        self._generation = fork_generation()
        self._pidfd = _open_pidfd(popen.pid)
        self._reaping = threading.RLock()  # until it is released, the pid is nobody else's

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        env: Mapping[str, str],
        cwd: str | None,
        pass_fds: Sequence[int] = (),
        mark: Mark | None = None,
    ) -> WorkerProcess:
        """Start the process on the calling thread; the caller owns it at once, with no checkpoint.

        Forking from the thread that runs the event loop matters: a parent-death signal is tied
        to the *thread* that forked. With `mark` in its environment, what it leaves behind can be
        found. Raises OSError if the program cannot be executed.
        """
        read_fd, write_fd = os.pipe()
        try:
            popen = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=write_fd,
                env=dict(env) if mark is None else {**KEEP_MARK, **env, VARIABLE: str(mark)},
                cwd=cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        os.set_blocking(read_fd, False)
        guard_fds(read_fd)
        return cls(popen, read_fd, mark)

    def __enter__(self) -> Self:
        _running.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill_and_reap()
        _running.discard(self)
        close_fds(self.stderr_fd)
        if self._pidfd is not None:
            close_fds(self._pidfd)

    @property
    def is_ours(self) -> bool:
        """False in a forked child of the host, where nothing here has any effect."""
        return self._generation == fork_generation()

    async def wait_exit(self) -> None:  # noqa: ASYNC910 - each wait in it is one
        """Wait until the process has ended; it stays a zombie until `kill_and_reap`.

        At most until `kill_and_reap`, which may have to give it up.
        """
        if self.status is not None or not self.is_ours:
            await anyio.lowlevel.checkpoint()
        elif self._pidfd is not None:
            with suppress(anyio.ClosedResourceError):  # by `kill_and_reap`, which has given it up
                await anyio.wait_readable(self._pidfd)
        else:
            await in_thread(self._wait_unreaped, abandon=True)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal its group and everything below it. Nothing happens if it is gone."""
        with self._reaping:
            if self.status is not None or not self.is_ours:
                return
            if number == signal.SIGKILL:
                self._kill()
                return
            self._note_peak()
            below = [] if self._exit_seen() else wanted_below(self.pid, self._is_elsewhere)
            self._signal_group(number)
            for process in below:
                send_to(process, number)
            self._told = below

    async def end_strays(self) -> None:
        """Kill what it has left behind. Call when it has ended and is not reaped yet."""
        if self.mark is None or self.status is not None or not self.is_ours:
            await anyio.lowlevel.checkpoint()
            return
        instance = self.mark.instance
        await in_thread(lambda: end_strays(instance))
        self._left_none = True

    def request_dump(self) -> None:
        """Ask for the stacks of its threads; if these are too many, for that of its main thread alone."""
        if not (self.has_many_threads() and self.request_stacks(DUMP_MAIN)):
            self.request_stacks(DUMP_ALL)

    def request_stacks(self, number: int | None) -> bool:
        """Ask the worker to write stacks to stderr; it needs no GIL for that. False: it was not asked.

        Not a wrapper that has started it, nor one that has hardly begun: they would die of the question.
        """
        if number is None or not self.catches(number):
            return False
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, number)
        return True

    def catches(self, number: int) -> bool:
        """Would the signal be understood? To a program that does not catch it, it means: end, or dump core."""
        if self.status is not None or not self.is_ours:
            return False
        caught = read_status(self.pid, "SigCgt", base=16)
        return caught is None or bool(caught >> (number - 1) & 1)

    def has_many_threads(self) -> bool:
        """More than a dump of all of them shows?"""
        return (read_status(self.pid, "Threads") or 0) > THREADS_SHOWN_MAX

    def has_ended(self) -> bool:
        """It does not run any more, whether or not it has been reaped."""
        return self.status is not None or self._exit_seen()

    def kill_and_reap(self) -> ExitStatus:
        """SIGKILL what is left of it and of all that it started, and reap the leader.

        Blocks for as long as the kernel takes to end a process that it has sent SIGKILL: some
        milliseconds, more only where the leader is in uninterruptible sleep. A leader that we may
        not signal (`sudo` runs as root) is not waited for: it is left alone, with a warning.
        Idempotent: the status of the first time is returned again.
        """
        if self.status is None:
            self._popen.returncode = 0  # reaped by us: Popen must neither wait nor warn
            if not self.is_ours:
                self.status = self._give_up()
            elif self._kill() or self._ends_within(ORDERED_END_S):
                self._wait_unreaped()
                if self.mark is not None and not self._left_none:
                    end_strays(self.mark.instance)
                with self._reaping:
                    self.status = self._reap()
            else:
                _log.warning("process %d is left alone: no permission to kill it", self.pid)
                guardian.abandon(self.pid)
                self.status = self._give_up()
        return self.status

    def _kill(self) -> bool:
        """SIGKILL all of it; False if its leader lives and may not be signalled."""
        if not self._exit_seen():
            self._note_peak()
            try:
                os.kill(self.pid, signal.SIGSTOP)
            except PermissionError:
                if not self._exit_seen():
                    self._signal_group(signal.SIGKILL)
                    return self._exit_seen()
            except ProcessLookupError:
                pass  # it ended just now
            warn_of(kill_descendants(self.pid))
        self._signal_group(signal.SIGKILL)
        for process in self._told:
            send_to(process, signal.SIGKILL)
        return True

    def _note_peak(self) -> None:
        """While it lives: what is dead tells of no memory."""
        self._peak_kb = read_status(self.pid, "VmHWM") or self._peak_kb

    def _is_elsewhere(self, process: Process) -> bool:
        return process.group != self.pid

    def _signal_group(self, number: signal.Signals) -> None:
        """Signal the group; its id is that of no other as long as the leader is not reaped."""
        try:
            if not self._reaped_by_others():
                os.killpg(self.pid, number)
                return
        except PermissionError:
            guardian.send(self.pid, number)
        except ProcessLookupError:
            pass
        for process in members_of_group(self.pid):
            send_to(process, number)

    def _reap(self) -> ExitStatus:
        oom_now = oom_kills()
        oom_delta = None
        if oom_now is not None and self._oom_kills is not None:
            oom_delta = oom_now - self._oom_kills
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            return ExitStatus(oom_kills=oom_delta)
        if usage.ru_maxrss > self._inherited_kb:
            self._peak_kb = usage.ru_maxrss
        peak_mb = None if self._peak_kb is None else self._peak_kb / KB_PER_MB
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return ExitStatus(signal=-code, peak_mb=peak_mb, oom_kills=oom_delta)
        return ExitStatus(exit_code=code, peak_mb=peak_mb, oom_kills=oom_delta)

    def _give_up(self) -> ExitStatus:
        if self._pidfd is not None:
            with suppress(RuntimeError):  # outside of an event loop, where nobody waits
                anyio.notify_closing(self._pidfd)  # wakes `wait_exit`
        return ExitStatus()

    def _exit_seen(self) -> bool:
        return has_ended(self.pid)

    def _ends_within(self, timeout_s: float) -> bool:
        """What others were asked to kill."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(timeout_s * 1000)
        return self._exit_seen()

    def _reaped_by_others(self) -> bool:
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return True
        return False

    def _wait_unreaped(self) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)


def kill_running() -> int:
    """SIGKILL all workers of this process, and all below them, and say how many these are. From any thread.

    For when the loop of their owners may be stuck; where it turns, it sees them end and reaps them.
    """
    killed = 0
    for process in list(_running):
        with process._reaping:
            if process.status is None and process.is_ours:
                process.send_signal(signal.SIGKILL)
                killed += 1
    return killed


def _open_pidfd(pid: int) -> int | None:
    """A descriptor that turns readable when the process ends; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None  # the caller falls back to waiting in a thread
    guard_fds(pidfd)
    return pidfd
