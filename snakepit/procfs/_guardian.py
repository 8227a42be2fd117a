"""The guardian: a tiny program that ends the workers of a host that is gone, however it went.

It reads lines about workers from its stdin and waits for the end of the host's process, and for that
of the pipe. The handle of the process tells where a forked child of the host holds the pipe open. The
pipe tells where the process goes on as another program: executing one closes it. Then it does
what the host cannot any more: SIGTERM, the grace, SIGKILL, to each worker with all below it, and at
last to whatever else carries the host's marks. The host ends it with SIGKILL when it needs it no more;
one that may not any more, having become another user, closes the pipe.
"""

from __future__ import annotations

import os
import select
import sys

from snakepit.procfs._marks import end_marked
from snakepit.procfs._signals import signal
from snakepit.procfs._table import Handle, descendants_of, is_hidden, send_to
from snakepit.procfs._tree import end_trees, kill_tree

STDIN = 0
ENDED_ALL = 79  # its exit code: any other one is that of a program that is no guardian


def watching(pid: int, start: int, grace_s: float) -> bytes:
    """The line that puts a worker under guard."""
    return f"+ {pid} {start} {grace_s!r}\n".encode()


def done_with(pid: int) -> bytes:
    """The line that takes it off again."""
    return f"- {pid}\n".encode()


def sending(pid: int, number: int) -> bytes:
    """The line that has a signal sent to a worker and all below it, in the place of a host that may not."""
    return f"! {pid} {number}\n".encode()


class Guardian:
    """The workers under guard, as the lines tell."""

    def __init__(self) -> None:
        self.workers: dict[int, Handle] = {}
        self.grace_s = 0.0  # the longest that was asked for
        self._begun = b""

    def feed(self, data: bytes) -> None:
        """Act on the lines that these bytes complete."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            sign, pid, *rest = line.split()
            if sign == b"!":
                self.send(int(pid), int(rest[0]))
                continue
            known = self.workers.pop(int(pid), None)
            if known is not None:
                known.close()
            if sign == b"+":
                handle = Handle.open(int(pid), int(rest[0]))
                if handle is not None:
                    self.workers[handle.pid] = handle
                self.grace_s = max(self.grace_s, float(rest[1]))

    def send(self, pid: int, number: int) -> None:
        """Signal this worker and all below it."""
        worker = self.workers.get(pid)
        if worker is None:
            return
        if number == signal.SIGKILL:
            kill_tree(worker)
            return
        worker.send(number)
        for process in descendants_of(pid):
            send_to(process, number)

    def serve(self, host: Handle | None, *, is_hidden: bool = False) -> None:
        """Read lines until the host has ended, and those that are left; or until the pipe has.

        Of a host that /proc hides the pipe alone tells.
        """
        poll = select.poll()
        poll.register(STDIN, select.POLLIN)
        if host is not None:
            poll.register(host.fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(None if host is not None or is_hidden else 0)}
            if STDIN not in ready:
                return
            data = os.read(STDIN, 2**16)
            if not data:
                return
            self.feed(data)

    def end(self, run: str) -> None:
        """End everything."""
        end_trees(self.workers.values(), self.grace_s)
        end_marked(lambda mark: mark.run == run, 0.0)


def main(argv: list[str]) -> None:
    """`argv`: pid and start of the host, and the run id in its workers' marks."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guardian = Guardian()
    pid, start = map(int, argv[:2])
    guardian.serve(Handle.open(pid, start), is_hidden=is_hidden(pid))
    guardian.end(argv[2])
    sys.exit(ENDED_ALL)


if __name__ == "__main__":
    main(sys.argv[1:])
