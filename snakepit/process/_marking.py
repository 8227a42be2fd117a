"""What this host writes into the environment of each worker, so that it is known to be ours."""

from __future__ import annotations

import os

from snakepit.procfs import Mark, random_id

_run = random_id()


def new_mark() -> Mark | None:
    """A mark for one more worker of this process; None where /proc does not show it."""
    return Mark.of_this_host(_run)


def run_id() -> str:
    """What the marks of all workers of this process have in common."""
    return _run


def renew_run() -> None:
    """Whatever starts from now on is of another run, and is not ended with what has started so far."""
    global _run
    _run = random_id()


os.register_at_fork(after_in_child=renew_run)
