"""The mark that each worker and all that it starts carry in their environment.

It says which host the worker belongs to, in terms that no other host can share: a random run id,
the boot of the machine, the pid namespace, and the pid of the host with its start time. So the
table of processes is the registry: nothing is written to a disk, and nothing can be out of date.
"""

from __future__ import annotations

import os
from _collections_abc import Callable, Iterator

from snakepit.procfs._signals import signal
from snakepit.procfs._table import (
    Process,
    all_processes,
    is_hidden,
    is_there,
    is_usable,
    read_file,
    read_process,
    send_to,
)
from snakepit.procfs._tree import end_trees

VARIABLE: str = "SNAKEPIT_WORKER"
VERSION = "1"
PID_MAX = 2**31 - 1  # as the kernel's type has it; zero and less are none
ROUNDS_MAX = 5  # of looking for what was started while the others were ended


class Mark:
    """What the environment of a worker says. `instance` is this one worker, `run` its host's."""

    __slots__ = ("boot", "host_pid", "host_start", "instance", "pid_namespace", "run")

    def __init__(
        self,
        instance: str,
        run: str,
        boot: str,
        pid_namespace: int,
        host_pid: int,
        host_start: int,
    ) -> None:
        self.instance: str = instance
        self.run: str = run
        self.boot: str = boot
        self.pid_namespace: int = pid_namespace
        self.host_pid: int = host_pid
        self.host_start: int = host_start

    @classmethod
    def of_this_host(cls, run: str) -> Mark | None:
        """A new mark, for a worker of this process; None where /proc does not show it."""
        host = read_process(os.getpid()) if is_usable() else None
        if host is None:
            return None
        boot, pid_namespace = where_we_are()
        return cls(random_id(), run, boot, pid_namespace, host.pid, host.start)

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """The mark that `str` made this text of; None if it is none."""
        try:
            version, instance, run, boot, *numbers = text.split(":")
            pid_namespace, host_pid, host_start = map(int, numbers)
        except ValueError:
            return None
        if version != VERSION or not 0 < host_pid <= PID_MAX:
            return None
        return cls(instance, run, boot, pid_namespace, host_pid, host_start)

    def __str__(self) -> str:
        names = f"{VERSION}:{self.instance}:{self.run}:{self.boot}"
        return f"{names}:{self.pid_namespace}:{self.host_pid}:{self.host_start}"

    def is_from_here(self) -> bool:
        """Do its numbers mean anything to us? Only in the namespace and boot they are from."""
        return is_usable() and (self.boot, self.pid_namespace) == where_we_are()

    def host_is_alive(self) -> bool:
        """Does its host run? Ask only where it is from here.

        One that /proc does not show us, as with `hidepid`, may well be there: it counts as alive.
        """
        host = read_process(self.host_pid)
        if host is None:
            return is_hidden(self.host_pid)
        return host.start == self.host_start and not host.is_dead


def random_id() -> str:
    """A name that nobody else has."""
    return os.urandom(8).hex()


def where_we_are() -> tuple[str, int]:
    """The boot of this machine, and the pid namespace of this process.

    In another time namespace the kernel tells other start times: that counts as another boot.
    """
    boot = read_file("/proc/sys/kernel/random/boot_id").decode().strip()
    try:
        clock = os.stat("/proc/self/ns/time").st_ino
    except OSError:  # a kernel without them
        clock = 0
    return f"{boot}.{clock}", os.stat("/proc/self/ns/pid").st_ino


def own_mark() -> Mark | None:
    """The mark of this process, if its numbers mean anything here."""
    mark = Mark.parse(os.environ.get(VARIABLE, ""))
    return mark if mark is not None and mark.is_from_here() else None


def find_marked(
    wanted: Callable[[Mark], bool], *, user: int | None = None
) -> Iterator[tuple[Process, Mark]]:
    """The living processes whose mark is wanted, of this user alone where one is named.

    Those of other users can be read by root, whose workers may have become somebody else. Reads the
    environment of every process: some ten microseconds for each. Raises OSError where nothing can be
    read, as without a descriptor.
    """
    if not is_usable():
        return
    here = where_we_are()
    key = b"\0" + VARIABLE.encode() + b"="
    for process in all_processes():
        if process.is_dead or process.pid == os.getpid():
            continue
        try:
            folder = f"/proc/{process.pid}"
            environment = b"\0" + read_file(f"{folder}/environ")
            at = environment.find(key)
            if at < 0 or (user is not None and os.stat(folder).st_uid != user):
                continue
        except OSError:
            continue
        text = environment[at + len(key) :].partition(b"\0")[0].decode("ascii", "replace")
        mark = Mark.parse(text)
        if mark is None or (mark.boot, mark.pid_namespace) != here or not wanted(mark):
            continue
        if is_there(process):  # what was read is its own
            yield process, mark


def end_marked(
    wanted: Callable[[Mark], bool],
    grace_s: float,
    *,
    user: int | None = None,
    hurry: Callable[[], bool] | None = None,
) -> tuple[list[int], list[int]]:
    """End the processes with such marks and all below them: SIGTERM, the grace, SIGKILL.

    Looks again until there are none. Returns the pids of all that have ended, and of those that
    have not. A `hurry` ends the grace. Blocks. Raises OSError as `find_marked` does.
    """
    seen: set[int] = set()
    left: list[int] = []
    for _ in range(ROUNDS_MAX):
        found = []
        for process, _ in find_marked(wanted, user=user):
            if not grace_s:
                send_to(process, signal.SIGSTOP)  # before it can start another one
            if not _keep(process, left):
                found.append(process)
        if not found:
            break
        left += end_trees(found, grace_s, hurry=hurry, seen=seen)
    return sorted(seen.difference(left)), sorted(set(left))


def kill_marked(instances: frozenset[str]) -> list[int]:
    """SIGKILL what is left of these workers, if anything carries their mark; return the survivors. Blocks.

    Raises OSError as `find_marked` does.
    """
    return end_marked(lambda mark: mark.instance in instances, 0.0)[1]


def _keep(process: Process, left: list[int]) -> bool:
    """It would not die: once is enough."""
    if process.pid not in left:
        return False
    send_to(process, signal.SIGKILL)
    return True
