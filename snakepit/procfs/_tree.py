"""Ending a process with everything below it.

A tree is walked from the top, and each process is stopped before its children are read: a stopped
one can neither start others nor reap, so nothing slips away and no number is given to somebody
else meanwhile. A fork that was under way is found by walking again, until nobody new is there.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable

from snakepit.procfs._table import (
    Handle,
    Process,
    children_of,
    close_all,
    descendants_of,
    wait_dead,
)

KILL_S = 2.0  # for what was sent SIGKILL to end; only uninterruptible sleep takes long
Wanted = Callable[[Process], bool]


def everyone(_process: Process) -> bool:
    """The whole tree."""
    return True


def open_descendants(pid: int, wanted: Wanted = everyone) -> list[Handle]:
    """Handles of what lives below the process now."""
    opened = (Handle.open(child.pid, child.start) for child in descendants_of(pid) if wanted(child))
    return [handle for handle in opened if handle is not None]


def kill_descendants(pid: int, wanted: Wanted = everyone) -> list[int]:
    """SIGKILL everything below the process, which is stopped, or is this one; return the survivors.

    Those are in uninterruptible sleep, or belong to somebody else. Blocks for as long as the kernel
    takes to end what was killed.
    """
    deadline = time.monotonic() + KILL_S
    known: dict[tuple[int, int], Handle] = {}
    left: list[int] = []
    try:
        while fresh := _stop_below(pid, wanted, known):
            known.update({(handle.pid, handle.start): handle for handle in fresh})
            killed = [handle for handle in fresh if handle.send(signal.SIGKILL)]
            left += [handle.pid for handle in fresh if handle not in killed]
            left += [
                handle.pid for handle in wait_dead(killed, max(0, deadline - time.monotonic()))
            ]
        return sorted(left)
    finally:
        close_all(known.values())


def _stop_below(pid: int, wanted: Wanted, known: dict[tuple[int, int], Handle]) -> list[Handle]:
    """Stop what lives below the process and is not known yet, top down."""
    found: list[Handle] = []
    waiting = [pid]
    while waiting:
        for child in children_of(waiting.pop()):
            if child.is_dead:
                continue
            if wanted(child) and (child.pid, child.start) not in known:
                handle = Handle.open(child.pid, child.start)
                if handle is None:
                    continue
                handle.send(signal.SIGSTOP)
                found.append(handle)
            waiting.append(child.pid)
    return found


def kill_tree(root: Handle) -> list[int]:
    """SIGKILL the process and everything below it; return the survivors. Blocks as above."""
    root.send(signal.SIGSTOP)
    left = kill_descendants(root.pid)
    if not root.send(signal.SIGKILL):
        return [*left, root.pid]
    return left + [handle.pid for handle in wait_dead([root], KILL_S)]


def end_trees(roots: Iterable[Handle], grace_s: float) -> list[int]:
    """SIGTERM these and all below them, SIGKILL after the grace; return the survivors. Blocks."""
    roots = list(roots)
    below: dict[tuple[int, int], Handle] = {}
    for root in roots:
        for handle in open_descendants(root.pid):
            if below.setdefault((handle.pid, handle.start), handle) is not handle:
                handle.close()
    try:
        told = [handle for handle in (*roots, *below.values()) if handle.send(signal.SIGTERM)]
        alive = wait_dead(told, grace_s)
        left = [handle.pid for handle in (*roots, *below.values()) if handle not in told]
        for handle in alive:
            left += kill_tree(handle)
        return sorted(set(left))
    finally:
        close_all(below.values())
