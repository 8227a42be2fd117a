"""Why a worker could not start, from all that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit.errors import WorkerStartError
from snakepit.pool._obituary import dumped_stacks

if TYPE_CHECKING:
    from snakepit.launchers import Launched
    from snakepit.pool._handshake import StartFailedError
    from snakepit.process import ExitStatus


def start_error(
    worker_id: str, failed: StartFailedError, status: ExitStatus, launched: Launched
) -> WorkerStartError:
    """The error for callers; `status` is how the worker has ended since."""
    reason, tail = failed.reason, launched.output_tail
    if not failed.traceback and failed.exits_by_itself:
        reason = launched.start_failure or f"{reason} ({status})"
    return WorkerStartError(
        worker_id,
        reason,
        status.exit_code,
        status.signal,
        tail,
        failed.traceback or dumped_stacks(tail),
    )
