"""The stop ladder of a process: ask, SIGTERM, SIGKILL, reap; each step bounded.

Runs in the task that owns the process and nowhere else, and is seen to its end whatever
cancels that task.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import anyio

from snakepit.process._hold import hold_until, seen_through
from snakepit.process._stoppable import ExitStatus, Stoppable

KILLED_EXIT_S = 5.0
DUMP_S = 0.1  # for a dump of the stacks to be written; at most half of the grace, and part of it


async def climb(
    process: Stoppable,
    exited: anyio.Event,
    *,
    ask: Callable[[], object] | None,
    ask_grace_s: float,
    term_grace_s: float,
    dump: bool = False,
) -> ExitStatus:
    """End the worker and all that it started, and reap it.

    `exited` is set by whoever watches the process. `ask` requests an orderly exit; without it the
    ladder begins at SIGTERM, and before it, with `dump`, the worker writes its stacks to stderr.
    SIGKILL comes `ask_grace_s + term_grace_s` after the beginning, dump or not.
    """
    if not process.is_ours:  # a forked child of the host, to which no end of it can come
        return process.kill_and_reap()  # noqa: ASYNC910 - as below
    if ask is not None and not exited.is_set():
        ask()
        await hold_until(exited, ask_grace_s)
    if dump and not exited.is_set():
        process.request_dump()
        dump_s = min(DUMP_S, term_grace_s / 2)
        await hold_until(exited, dump_s)
        term_grace_s -= dump_s
    if not exited.is_set():
        process.send_signal(signal.SIGTERM)
        await hold_until(exited, term_grace_s)
    if not exited.is_set():
        process.send_signal(signal.SIGKILL)
        await hold_until(exited, KILLED_EXIT_S)
    await seen_through(process.end_strays)
    return process.kill_and_reap()  # noqa: ASYNC910 - ending what is dead takes no wait
