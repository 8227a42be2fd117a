"""What the log says of a worker that is gone: how, what it ran, and its last words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from snakepit.errors import WorkerDiedError
    from snakepit.pool._call import PendingCall

WORDS_LINES: Final = 3  # the last ones, of a worker that has said nothing special
FATAL_LINES: Final = 10  # of the stack of the thread in which the interpreter came to its end
LINE_CHARS: Final = 200
FATAL: Final = "Fatal Python error"
CURRENT: Final = "Current thread 0x"
STACKS: Final = ("Thread 0x", CURRENT, "Stack (most recent call first)")


def obituary(death: WorkerDiedError, calls: Sequence[PendingCall], *, dumped: bool) -> str:
    """Some lines. `calls`: those that it left unanswered, in their order; `dumped`: it was asked for its stacks."""
    process = "" if death.pid is None else f" (pid {death.pid})"
    text = f"{death.worker_id}{process} {death.reason}: {death.certificate}{_what_it_ran(calls)}"
    stacks = dumped_stacks(death.stderr_tail) if dumped else ""
    lines = stacks.splitlines() or _last_words(death.stderr_tail)
    if lines:
        text += "\n  where it stood:\n" if stacks else "\n  its last lines on stderr:\n"
        text += "\n".join(f"  | {line[:LINE_CHARS]}" for line in lines)
    return text


def dumped_stacks(stderr_tail: str) -> str:
    """The stacks that the worker wrote when it was asked to, "" if it did not."""
    lines = stderr_tail.splitlines()
    for position, line in enumerate(lines):
        if line.startswith(STACKS):
            return "\n".join(lines[position:])
    return ""


def _what_it_ran(calls: Sequence[PendingCall]) -> str:
    if not calls:
        return ""
    first = calls[0]
    if not first.reached_worker:
        return f"; {len(calls)} calls on their way to it had not begun"
    behind = len(calls) - 1
    return f"; it ran {first.tool!r}" + (
        f", and {behind} behind that had not begun" if behind else ""
    )


def _last_words(stderr_tail: str) -> list[str]:
    lines = stderr_tail.splitlines()
    fatal: list[str] = []
    for position, line in enumerate(lines):
        if line.startswith(FATAL):
            fatal = [line]
        elif fatal and line.startswith(CURRENT):
            return fatal + lines[position : position + FATAL_LINES]
    return lines[-WORDS_LINES:]
