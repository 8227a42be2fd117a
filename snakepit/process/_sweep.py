"""Ending the orphans of hosts that are gone, whoever they were: the table of processes is the registry."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from threading import Event
from typing import Final

import anyio
from attrs import frozen

from snakepit.process._in_thread import in_thread
from snakepit.procfs import Mark, end_marked

ORPHAN_GRACE_S: Final = 2.0

_log = logging.getLogger("snakepit.process")


@frozen
class Cleanup:
    """What `cleanup` did: pids of all processes that it `ended`, and of those that are `left`.

    Ended are orphans, and what lived below them. Left is what does not die although it was killed: a
    process in uninterruptible sleep, or one below an orphan that belongs to another user (`sudo`).
    """

    ended: tuple[int, ...] = ()
    left: tuple[int, ...] = ()


def cleanup() -> Cleanup:
    """End the orphans of dead hosts: workers, and what they started, whose host does not run any more.

    Only processes of this user, in this pid namespace, that bear the mark of a host, and what lives below
    them; those of hosts that are alive are left alone. Each gets SIGTERM, 2 seconds, SIGKILL. `open_pool`
    does the same in the background unless it is told `sweep=False`. Blocks; reads `/proc`, so elsewhere
    than on Linux it finds nothing. Call it from any thread, or as `python -m snakepit cleanup`.

    Source: docs/guarantees.md.
    """
    done = end_orphans()
    _report(done)
    return done


def end_orphans(hurry: Callable[[], bool] | None = None) -> Cleanup:
    """As `cleanup`, without a word in the log. A `hurry` ends the two seconds."""
    alive: dict[tuple[int, int], bool] = {}

    def is_orphan(mark: Mark) -> bool:
        host = mark.host_pid, mark.host_start
        if host not in alive:
            alive[host] = mark.host_is_alive()
        return not alive[host]

    ended, left = end_marked(is_orphan, ORPHAN_GRACE_S, user=os.getuid(), hurry=hurry)
    return Cleanup(tuple(ended), tuple(left))


async def sweep() -> None:  # noqa: ASYNC910 - a thread that fails was waited for
    """`cleanup`, in a thread. When cancelled it is in a hurry, and seen to its end."""
    hurry = Event()

    async def hurry_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            hurry.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hurry_when_cancelled)
        try:
            await in_thread(lambda: _report(end_orphans(hurry.is_set)))
        except OSError as error:
            _log.warning("orphans of dead hosts cannot be looked for: %s", error)
        tasks.cancel_scope.cancel()


def _report(done: Cleanup) -> None:
    what = f"orphans of dead hosts, of any program of user {os.getuid()}, and what was below them"
    if done.ended:
        _log.warning("%s: ended %d: %s", what, len(done.ended), _listed(done.ended))
    if done.left:
        _log.error("%s: %d would not die: %s", what, len(done.left), _listed(done.left))


def _listed(pids: tuple[int, ...]) -> str:
    return ", ".join(map(str, pids))
