"""Ending a process with everything below it.

A tree is walked from the top, and each process is stopped before its children are read: a stopped
one can neither start others nor reap, so nothing slips away and no number is given to somebody
else meanwhile. A fork that was under way is found by walking again, until nobody new is there.
"""

from __future__ import annotations

import time
from _collections_abc import Callable, Iterable

from snakepit.procfs._signals import signal
from snakepit.procfs._table import (
    Handle,
    Process,
    descendants_of,
    is_there,
    send_to,
    wait_dead,
    youngest_first,
)

KILL_S = 2.0  # for what was sent SIGKILL to end; only uninterruptible sleep takes long
Wanted = Callable[[Process], bool]


def everyone(_process: Process) -> bool:
    """The whole tree."""
    return True


def wanted_below(pid: int, wanted: Wanted = everyone) -> list[Process]:
    """What lives below the process now, of those that are wanted."""
    return [process for process in descendants_of(pid) if wanted(process)]


def kill_descendants(
    pid: int, wanted: Wanted = everyone, seen: set[int] | None = None
) -> list[int]:
    """SIGKILL everything below the process, which is stopped, or is this one; return the survivors.

    Those are in uninterruptible sleep, or belong to somebody else. Blocks for as long as the kernel
    takes to end what was killed. All pids are noted in `seen`, those of the survivors as well.
    """
    deadline = time.monotonic() + KILL_S
    known: set[tuple[int, int]] = set()
    left: list[int] = []
    while True:
        fresh, moved = _stop_below(pid, wanted, known)
        if seen is not None:
            seen.update(process.pid for process in fresh)
        killed = [process for process in fresh if send_to(process, signal.SIGKILL)]
        left += [process.pid for process in fresh if process not in killed]
        left += [process.pid for process in wait_dead(killed, deadline - time.monotonic())]
        if not fresh and not (moved and time.monotonic() < deadline):
            return sorted(left)


def _stop_below(
    pid: int, wanted: Wanted, known: set[tuple[int, int]]
) -> tuple[list[Process], bool]:
    """Stop what lives below the process and is not known yet, top down; it is known then.

    The youngest first: one that forks and ends all the time is caught before it has gone on. Second
    is whether anything ended meanwhile, which may have started something.
    """
    found: list[Process] = []
    moved = False
    waiting = [pid]
    while waiting:
        for child in youngest_first(waiting.pop()):
            if child is None:
                moved = True
                continue
            key = child.pid, child.start
            if child.is_dead:
                moved = moved or key not in known
                known.add(key)
                continue
            if wanted(child) and key not in known:
                known.add(key)
                send_to(child, signal.SIGSTOP)
                found.append(child)
            waiting.append(child.pid)
    return found, moved


def kill_tree(root: Process | Handle, seen: set[int] | None = None) -> list[int]:
    """SIGKILL the process and everything below it; return the survivors. Blocks and notes as above."""
    send_to(root, signal.SIGSTOP)
    if not is_there(root):
        return []
    left = kill_descendants(root.pid, seen=seen)
    if not send_to(root, signal.SIGKILL):
        return [*left, root.pid]
    return left + [process.pid for process in wait_dead([root], KILL_S)]


def end_trees(
    roots: Iterable[Process | Handle],
    grace_s: float,
    *,
    hurry: Callable[[], bool] | None = None,
    seen: set[int] | None = None,
) -> list[int]:
    """SIGTERM these and all below them, SIGKILL after the grace; return the survivors. Blocks.

    With no grace nobody is asked: SIGSTOP in SIGTERM's place. A `hurry` ends the grace. Pids are noted
    as above.
    """
    first = signal.SIGTERM if grace_s else signal.SIGSTOP
    each = {(root.pid, root.start): root for root in roots}
    for root in list(each.values()):
        for process in descendants_of(root.pid):
            each.setdefault((process.pid, process.start), process)
    if seen is not None:
        seen.update(process.pid for process in each.values())
    told = [process for process in each.values() if send_to(process, first)]
    left = [process.pid for process in each.values() if process not in told]
    for alive in wait_dead(told, grace_s, hurry):
        left += kill_tree(alive, seen)
    return sorted(set(left))
