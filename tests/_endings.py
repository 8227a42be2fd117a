"""What the simulation and the chaos both know of endings: of a call's, in one word, and of a pool's."""

from __future__ import annotations

from snakepit import CallQuarantinedError, CrashBarrier, Stop


def kind_of(error: BaseException) -> str:
    """The name of the error; ToolError for its builtin twins too, which bear other names."""
    if hasattr(error, "type") and hasattr(error, "traceback"):
        return "ToolError"
    return type(error).__name__


def closing_s(stop: Stop) -> float:
    """So long may leaving a pool's block take."""
    bound: float = stop.cancel_grace + stop.term_grace + stop.drain_timeout + 1
    return bound


def untruth_of_quarantine(
    barrier: CrashBarrier, error: CallQuarantinedError, *, runs: int, may_be_others: bool = False
) -> str | None:
    """Why a call that ran so often cannot have been refused so. `may_be_others`: they are the same call."""
    after = barrier.quarantine_after
    if after is None or error.kills < after:
        return f"{error.kills} deaths are not enough"
    if not may_be_others and error.kills > runs:
        return f"it ran {runs} times in all"
    return "it had not run" if error.started and not runs else None
