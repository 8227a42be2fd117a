"""Processes as the kernel shows them: who is whose child, and since when each one runs.

A pid alone names nobody for long. A pid with its start time does, until the machine restarts; and
a `Handle` (a pidfd, checked against the start time after it was opened) can be signalled without
ever hitting another process that was given the same number.
"""

from __future__ import annotations

import os
import select
import sys
import time
from _collections_abc import Callable, Iterable, Iterator

from snakepit.procfs._signals import signal

TICKS_PER_S: int = os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 100
LOOK_S = 0.02  # between two looks whether there is a hurry
LOOKS_MAX = 10  # at what has begun while the others were looked at


class Process:
    """One row of the table. `start`: clock ticks since the machine started."""

    __slots__ = ("group", "is_dead", "parent", "pid", "session", "start")

    def __init__(self, pid: int, stat: bytes) -> None:
        fields = stat[stat.rindex(b")") + 2 :].split()
        self.pid: int = pid
        self.parent: int = int(fields[1])
        self.group: int = int(fields[2])
        self.session: int = int(fields[3])
        self.start: int = int(fields[19])
        # A leader that has ended is a zombie also while other threads of its process run.
        self.is_dead: bool = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1


class Handle:
    """A process that can be signalled and waited for, and is never mistaken for another one."""

    __slots__ = ("fd", "pid", "start")

    def __init__(self, pid: int, start: int, fd: int) -> None:
        self.pid: int = pid
        self.start: int = start
        self.fd: int = fd

    @classmethod
    def open(cls, pid: int, start: int) -> Handle | None:
        """None if there is no such process any more, or it cannot be opened."""
        if sys.platform != "linux":
            return None
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return None
        found = read_process(pid)
        if found is not None and found.start == start:
            return cls(pid, start, fd)
        os.close(fd)
        return None

    def send(self, number: int) -> bool:
        """Signal it, if it is there; False if that is not permitted."""
        if sys.platform == "linux":
            try:
                signal.pidfd_send_signal(self.fd, number)
            except PermissionError:
                return False
            except OSError:
                pass  # it has ended
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended, at most so long; False if it has not. Blocks."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def is_usable() -> bool:
    """Does /proc show this process? Not where there is none, or that of another namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def read_process(pid: int) -> Process | None:
    """The row of this process; None if it is gone."""
    try:
        return Process(pid, read_file(f"/proc/{pid}/stat"))
    except (OSError, ValueError):
        return None


def is_hidden(pid: int) -> bool:
    """Is there a process with this number although `read_process` finds none?

    /proc can be mounted so that it shows users no processes but their own (`hidepid`).
    """
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return read_process(pid) is None  # else it has begun just now


def cpu_ticks(pid: int) -> int | None:
    """How many clock ticks of CPU the process has used up to now; None if that is not known."""
    try:
        stat = read_file(f"/proc/{pid}/stat")
        fields = stat[stat.rindex(b")") + 2 :].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, ValueError):
        return None


def read_status(pid: int, key: str, *, base: int = 10) -> int | None:
    """The number behind this key in the status of the process; None if there is none."""
    try:
        for line in read_file(f"/proc/{pid}/status").splitlines():
            name, _, value = line.decode("utf-8", "replace").partition(":")
            if name == key:
                return int(value.split()[0], base)
    except (OSError, ValueError):
        pass
    return None


def all_processes() -> Iterator[Process]:
    """Every process that this one can see, those that begin meanwhile too."""
    seen: set[str] = set()
    for _ in range(LOOKS_MAX):
        try:
            names = [name for name in os.listdir("/proc") if name not in seen]
        except OSError:
            return
        for name in names:
            if name.isdecimal() and (process := read_process(int(name))) is not None:
                yield process
        seen.update(names)
        if not names:
            return


def children_of(pid: int) -> list[Process]:
    """Its children, the dead ones included. Exact only while it is stopped."""
    return [child for child in youngest_first(pid) if child is not None]


def youngest_first(pid: int) -> Iterator[Process | None]:
    """As `children_of`, each looked at when it is asked for; None for one that is gone by then."""
    pids: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                pids += map(int, read_file(f"/proc/{pid}/task/{thread}/children").split())
            except OSError:
                if not os.path.exists("/proc/thread-self/children"):  # a kernel without them
                    yield from (process for process in all_processes() if process.parent == pid)
                    return
    except OSError:
        return
    for number in reversed(pids):
        process = read_process(number)
        yield process if process is not None and process.parent == pid else None


def descendants_of(pid: int) -> list[Process]:
    """Everything that lives below it, parents first."""
    found: list[Process] = []
    waiting = [pid]
    while waiting:
        children = children_of(waiting.pop())
        found += [child for child in children if not child.is_dead]
        waiting += [child.pid for child in children if not child.is_dead]
    return found


def members_of_group(group: int) -> list[Process]:
    """The living processes of the group that a session of the same number was begun with."""
    return [
        process
        for process in all_processes()
        if process.group == process.session == group != process.pid and not process.is_dead
    ]


def send_to(process: Process | Handle, number: int) -> bool:
    """Signal it, if it runs still and is no other by now; False if that is not permitted.

    However many there are to be signalled, this takes two descriptors at a time and keeps none.
    """
    handle = Handle.open(process.pid, process.start)
    if handle is None:
        return True
    try:
        return handle.send(number)
    finally:
        handle.close()


def is_there(process: Process | Handle) -> bool:
    """Is there such a process, alive or a zombie?"""
    found = read_process(process.pid)
    return found is not None and found.start == process.start


def wait_dead(
    processes: Iterable[Process | Handle],
    timeout_s: float,
    hurry: Callable[[], bool] | None = None,
) -> list[Process | Handle]:
    """Wait until these have ended, at most so long; returns those that have not. Blocks.

    No longer than until there is a `hurry`.
    """
    deadline = time.monotonic() + timeout_s
    return [process for process in processes if not _wait(process, deadline, hurry)]


def _wait(process: Process | Handle, deadline: float, hurry: Callable[[], bool] | None) -> bool:
    handle = Handle.open(process.pid, process.start)
    if handle is None:
        return True
    try:
        while True:
            left_s = deadline - time.monotonic()
            if hurry is None or left_s <= 0 or hurry():
                return handle.wait(left_s if hurry is None else 0.0)
            if handle.wait(min(left_s, LOOK_S)):
                return True
    finally:
        handle.close()


def read_file(path: str) -> bytes:
    """What a small file of the kernel's says. Never blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        chunks = []
        while chunk := os.read(fd, 2**16):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)
