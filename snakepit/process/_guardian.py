"""The host's end of the guardian: one process for all pools of this one, while any is open.

A pool runs `guard` for as long as it has workers; the first one starts the guardian, the last one ends
it, and each sees to it that a lost one is replaced. What is under guard is known here, and told to
each new guardian. Pools may live in several threads, so the state has a lock; it is never held
for longer than a process takes to start.

A host that has become another user may signal neither its workers nor its guardian. The guardian still
may, as long as it is of the user that started them: what the host cannot do it is asked to do.

The guardian is run by the interpreter of this process. That of a program in which Python is embedded may
be none; then by those that pools name for their workers.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

import anyio

import snakepit
from snakepit.process._fork_guard import close_fds, fork_generation, guard_fds
from snakepit.process._marking import renew_run, run_id
from snakepit.procfs import (
    ENDED_ALL,
    VARIABLE,
    done_with,
    is_usable,
    read_process,
    sending,
    watching,
)

END_S = 0.1  # for it to end that was sent SIGKILL; then somebody else waits for it
RESTART_PAUSE_S = 0.2  # so that one that always dies does not cost a CPU
RESTART_PAUSE_MAX_S = 30.0  # where it does not run by any interpreter
FRUITLESS_MAX = 10
YOUNG_S = 1.0  # one that has ended before, nobody knows how, was none
# As a package of its own: with -S there is no snakepit to be found, and its face would cost more
# than all the rest.
_PROGRAM = (
    "import sys; package = type(sys)('snakepit'); package.__path__ = [{root!r}]; "
    "sys.modules['snakepit'] = package; "
    "from snakepit.procfs._guardian import main; main(sys.argv[1:])"
)

_log = logging.getLogger("snakepit.process")


class Guardian:
    """The one guardian of this process, and what it guards."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._lines: dict[int, bytes] = {}  # of each worker under guard, by pid
        self._abandoned: set[int] = set()  # of these, those that this process could not end
        self._pythons: list[str] = []  # that pools name for their workers
        self._unfit: set[str] = set()  # by which it does not run
        self._fruitless = 0  # rounds of all of them
        self._popen: subprocess.Popen[bytes] | None = None
        self._python, self._begun = "", 0.0
        self._judged: subprocess.Popen[bytes] | None = None
        self._verdict = ""
        self._pidfd = -1
        self._pipe = -1

    @property
    def pid(self) -> int | None:
        """Of the guardian that runs now; None where there is none."""
        popen = self._popen
        return None if popen is None else popen.pid

    # -- for launchers ----------------------------------------------------------------------

    def add(self, pid: int, grace_s: float) -> None:
        """A worker of ours has started: it ends with us."""
        process = read_process(pid)
        if process is not None and not process.is_dead:
            with self._lock:
                line = self._lines[pid] = watching(pid, process.start, grace_s)
                self._tell(line)

    def send(self, pid: int, number: int) -> None:
        """Signal this worker, and all below it, for one who is not permitted to."""
        with self._lock:
            if pid in self._lines:
                self._tell(sending(pid, number))

    def abandon(self, pid: int) -> None:
        """Nobody here could end it: it is left to the guardian."""
        self._abandoned.add(pid)

    def remove(self, pid: int) -> None:
        """It has been reaped, or abandoned: then it stays under guard."""
        with self._lock:
            if pid in self._abandoned:
                return
            if self._lines.pop(pid, None) is not None:
                self._tell(done_with(pid))

    # -- for pools --------------------------------------------------------------------------

    async def guard(self, python: str | None = None) -> None:
        """Keep a guardian, until cancelled; without another user it ends then.

        `python`: an interpreter to run it where that of this process is none.
        """
        if not is_possible() or not (sys.executable or python):
            await anyio.sleep_forever()
        generation, said = fork_generation(), set[str]()
        with self._lock:
            self._users += 1
            self._pythons += [python] if python else []
        try:
            while True:
                try:
                    text = await self._watch()
                except OSError as error:
                    text = f"cannot be started: {error}"
                if text not in said:  # once, and not five times a second
                    _log.warning("the guardian of the workers %s", text)
                    said.add(text)
                await anyio.sleep(min(RESTART_PAUSE_S * 2**self._fruitless, RESTART_PAUSE_MAX_S))
        finally:
            if generation == fork_generation():
                with self._lock:
                    self._users -= 1
                    if python:
                        self._pythons.remove(python)
                    if self._users == 0:
                        self._end()
                        self._unfit.clear()
                        self._fruitless = 0

    async def _watch(self) -> str:
        """Return when the guardian that runs now, or is started now, has ended, and say how."""
        with self._lock:
            if self._popen is None or self._has_ended():
                self._judge(self._popen)
                self._end()
                self._start()
            popen = self._popen
            pidfd = os.dup(self._pidfd)  # of our own: another pool of this loop waits as well
        guard_fds(pidfd)
        try:
            await anyio.wait_readable(pidfd)
        finally:
            close_fds(pidfd)
        with self._lock:
            return self._judge(popen)

    def _judge(self, popen: subprocess.Popen[bytes] | None) -> str:
        """Say how this one has ended, and note whether its interpreter was one."""
        if popen is None or popen is self._judged or popen is not self._popen:
            return self._verdict
        code = exit_code(popen.pid)
        if code is None:
            is_unfit = time.monotonic() - self._begun < YOUNG_S
        else:
            is_unfit = code >= 0 and code != ENDED_ALL
        self._judged, self._verdict = popen, "was lost; another one begins"
        if is_unfit:
            how = "ended at once" if code is None else f"exited with code {code}"
            self._verdict = f"does not run by {self._python}, which {how}"
            self._unfit.add(self._python)
        else:
            self._fruitless = 0
        return self._verdict

    def _choose_python(self) -> str:
        pythons = [python for python in (sys.executable, *self._pythons) if python]
        for python in pythons:
            if python not in self._unfit:
                return python
        self._unfit.clear()
        self._fruitless = min(self._fruitless + 1, FRUITLESS_MAX)
        return pythons[0]

    def _has_ended(self) -> bool:
        assert self._popen is not None
        return has_ended(self._popen.pid)

    def _start(self) -> None:
        host = read_process(os.getpid())
        assert host is not None, "is_possible looked"
        self._python, self._begun = self._choose_python(), time.monotonic()
        read_fd, write_fd = os.pipe()
        guard_fds(write_fd)  # at once: what is forked meanwhile must not keep it
        try:
            program = _PROGRAM.format(root=str(Path(snakepit.__file__).parent))
            self._popen = subprocess.Popen(
                [
                    self._python,
                    "-I",
                    "-S",
                    "-c",
                    program,
                    str(host.pid),
                    str(host.start),
                    run_id(),
                ],
                # Where this host is a worker itself, its mark is not for the guardian: whoever ends what
                # bears it must not end what has yet to end the workers of this one.
                env={key: value for key, value in os.environ.items() if key != VARIABLE},
                stdin=read_fd,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except BaseException as error:
            close_fds(write_fd)
            if isinstance(error, OSError) and error.filename is not None:  # it cannot be executed
                self._unfit.add(self._python)
            raise
        finally:
            os.close(read_fd)
        os.set_blocking(write_fd, False)
        self._pipe, self._pidfd = write_fd, os.pidfd_open(self._popen.pid)
        guard_fds(self._pidfd)
        self._tell(b"".join(self._lines.values()))

    def _tell(self, lines: bytes) -> None:
        if self._popen is None or not lines:
            return
        try:
            written = os.write(self._pipe, lines)
        except OSError:
            written = 0
        if written < len(lines):  # it is dead, or does not read: the next one is told all
            with suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _end(self) -> None:
        """End it and reap it: there is nothing that it would have to clean up.

        Where we may not, the end of its pipe tells it to end what is left, and itself.
        """
        if self._popen is None:
            return
        popen, is_left = self._popen, False
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except PermissionError:
            is_left = not self._has_ended()
        except OSError:
            pass  # it has ended
        if is_left:
            renew_run()  # it ends all that this one has started, and may take its time
            if self._abandoned:
                _log.warning("left to the guardian: %s", ", ".join(map(str, self._abandoned)))
        for pid in self._abandoned:
            self._lines.pop(pid, None)
        self._abandoned.clear()
        close_fds(self._pipe)
        if is_left or not self._ends_within(END_S):
            with suppress(RuntimeError):  # no thread: then with this process
                Thread(target=popen.wait, name="snakepit: guardian's end", daemon=True).start()
        else:
            popen.wait()
        self._popen = None
        close_fds(self._pidfd)

    def _ends_within(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(timeout_s * 1000)
        return self._has_ended()

    def forget(self) -> None:
        """In a forked child: this guardian is not ours, and watches nothing of ours."""
        if self._popen is not None:
            self._popen.returncode = 0  # Popen must neither wait nor warn
        self.__init__()  # type: ignore[misc]


def exit_code(child: int) -> int | None:
    """Of a child of ours that has ended, less than 0 where a signal ended it; None where nobody knows."""
    try:
        found = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def has_ended(child: int) -> bool:
    """Has this child of ours ended? It stays a zombie, if nobody else reaps it."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def is_possible() -> bool:
    """Linux, /proc, and a program whose modules are files: those of a frozen one are not."""
    return sys.platform == "linux" and is_usable() and not getattr(sys, "frozen", False)


guardian: Guardian = Guardian()
os.register_at_fork(after_in_child=guardian.forget)
