"""Ending the orphans of hosts that are gone, whoever they were: the table of processes is the registry."""

from __future__ import annotations

import logging
import os
from typing import Final

from attrs import frozen

from snakepit.process._in_thread import in_thread
from snakepit.procfs import Mark, end_marked

ORPHAN_GRACE_S: Final = 2.0

_log = logging.getLogger("snakepit.process")


@frozen
class Cleanup:
    """What `cleanup` did: pids of processes that it `ended`, and of those that are `left`.

    Left is what does not die although it was killed: a process in uninterruptible sleep, or one
    that this user may not signal.
    """

    ended: tuple[int, ...] = ()
    left: tuple[int, ...] = ()


def cleanup() -> Cleanup:
    """End the orphans of dead hosts: workers, and what they started, whose host does not run any more.

    Only processes of this user, in this pid namespace, that bear the mark of a host; those of hosts
    that are alive are left alone. Each gets SIGTERM, 2 seconds, SIGKILL. `open_pool` does the same
    in the background unless it is told `sweep=False`. Blocks; reads `/proc`, so elsewhere than on
    Linux it finds nothing. Call it from any thread, or as `python -m snakepit cleanup`.

    Source: docs/guarantees.md.
    """
    alive: dict[tuple[int, int], bool] = {}

    def is_orphan(mark: Mark) -> bool:
        host = mark.host_pid, mark.host_start
        if host not in alive:
            alive[host] = mark.host_is_alive()
        return not alive[host]

    ended, left = end_marked(is_orphan, ORPHAN_GRACE_S, user=os.getuid())
    if ended:
        _log.warning(
            "ended %d orphans of dead hosts: %s (workers of any program of user %d that was killed or "
            "crashed, and what they had started)",
            len(ended),
            _listed(ended),
            os.getuid(),
        )
    if left:
        _log.error("%d orphans of dead hosts would not die: %s", len(left), _listed(left))
    return Cleanup(tuple(ended), tuple(left))


async def sweep() -> None:  # noqa: ASYNC910 - a thread that fails was waited for
    """`cleanup`, in a thread. Seen to its end, which is bounded."""
    try:
        await in_thread(cleanup)
    except OSError as error:
        _log.warning("orphans of dead hosts cannot be looked for: %s", error)


def _listed(pids: list[int]) -> str:
    return ", ".join(map(str, pids))
