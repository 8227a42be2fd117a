"""How a call ended, in one word: for the simulation and the chaos."""

from __future__ import annotations


def kind_of(error: BaseException) -> str:
    """The name of the error; ToolError for its builtin twins too, which bear other names."""
    if hasattr(error, "type") and hasattr(error, "traceback"):
        return "ToolError"
    return type(error).__name__
