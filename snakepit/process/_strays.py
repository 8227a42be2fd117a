"""What a worker has left behind bears its mark, and is ended when the worker has.

Looking means reading the whole table of processes. So it is done for all at once that end side by side,
as the workers of a pool do that closes. A host without a single free descriptor can find nothing. What
it could not look for is not forgotten: the next worker that ends, or at last the pool, looks for that
as well.
"""

from __future__ import annotations

import logging
import os
from threading import Lock

import anyio

from snakepit.procfs import kill_marked

_log = logging.getLogger("snakepit.process")
_unsearched: set[str] = set()  # instances in marks
_searching = Lock()


def end_strays(instance: str) -> None:
    """SIGKILL what bears this mark, or one that could not be looked for. From any thread; never raises.

    Blocks: it reads the whole table of processes.
    """
    _unsearched.add(instance)
    with _searching:
        if instance in _unsearched:  # else whoever had the lock has looked for this one as well
            _end_unsearched()


async def end_strays_at_last() -> None:
    """Look again when cancelled, as the pool has no worker any more, if there is something left to do."""
    try:
        await anyio.sleep_forever()
    finally:
        if _unsearched:
            _end_unsearched()


def warn_of(pids: list[int]) -> None:
    """These would not die."""
    if pids:
        _log.warning("started by workers, these would not die: %s", ", ".join(map(str, pids)))


def _end_unsearched() -> None:
    instances = frozenset(_unsearched)
    try:
        warn_of(kill_marked(instances))
        _unsearched.difference_update(instances)
    except OSError as error:
        _log.error("what a worker has left behind cannot be found: %s", error)


def _in_child() -> None:
    global _searching
    _searching = Lock()  # whoever held it is not here


os.register_at_fork(after_in_child=_in_child)
