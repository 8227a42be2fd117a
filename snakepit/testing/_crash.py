"""`crash()`: what a worker's death looks like, wherever the worker lives."""

from __future__ import annotations

import os
from typing import NoReturn

from snakepit.launchers._in_process import current_worker
from snakepit.worker._context import current_context


def crash(exit_code: int = 1) -> NoReturn:
    """End the worker that runs this, at once, as `os._exit(exit_code)` does.

    For use in tools, and in memory in hooks too. In a worker process it is `os._exit`. A worker in
    memory is cut off from its host, does not clean up, and its exit code is this one; but the code
    that called this is unwound by an exception, so its `finally` blocks run.

    Raises: RuntimeError: called outside a worker.
    """
    worker = current_worker.get()
    if worker is not None:
        worker.crash(exit_code)
    if current_context.get() is None:
        raise RuntimeError("crash() ends a worker: call it in a tool")
    os._exit(exit_code)
