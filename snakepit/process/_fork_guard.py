"""What a forked child of the host must not keep: our file descriptors, and the use of our pools.

A child that holds the writing end of a worker's pipe keeps the worker from noticing that its
host is gone. So every descriptor that leads to a worker is noted here, closed in the child right
after the fork, and each pool can tell that it is not in the process that opened it any more.
"""

from __future__ import annotations

import os
from contextlib import suppress

_fds: set[int] = set()
_generation = 0


def guard_fds(*fds: int) -> None:
    """Close these in forked children."""
    _fds.update(fds)


def close_fds(*fds: int) -> None:
    """Close those of these that are guarded, and forget them.

    In a forked child they are closed, and their numbers may be somebody else's by now.
    """
    for fd in fds:
        if fd in _fds:
            _fds.remove(fd)
            with suppress(OSError):
                os.close(fd)


def unguard_fds(*fds: int) -> None:
    """Forget these: somebody else closes them, at once."""
    _fds.difference_update(fds)


def fork_generation() -> int:
    """A number that differs in every forked child."""
    return _generation


def _in_child() -> None:
    global _generation
    _generation += 1
    close_fds(*list(_fds))


os.register_at_fork(after_in_child=_in_child)
