"""Interrupting a sync tool where it stands, and nothing else.

The I/O thread asks by a signal to the main thread; Python runs the handler there between two
bytecodes, or as soon as a blocking call returns with EINTR. The handler raises `ToolCancelled`
only if all of this holds: the call that runs now is cancelled, it has not been interrupted
before and is not spared (cooperative, or closing its generator), user code is running (never this library's own: an exception inside a write would tear a
frame, one between a coroutine and its loop would never reach the coroutine), and no import is in progress (a half-imported module stays broken for good).
Where it does not hold the handler does nothing; the I/O thread repeats the signal for as long
as the cancelled call runs un-interrupted. An exception that a `__del__` or a callback swallowed
is reported to `sys.unraisablehook`, which arms the interrupt once more.

SIGURG carries it: its default action is to be ignored, so a stray one can harm nobody.
"""

from __future__ import annotations

import signal
import sys
from _thread import get_ident
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Protocol, TypeVar

from snakepit.errors import ToolCancelled

T = TypeVar("T")

INTERRUPT_SIGNAL = signal.SIGURG
_IMPORTLIB = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


class Interruptible(Protocol):
    """What the handler needs to know of a call."""

    cancelled: bool
    interrupted: bool
    spared: bool


class Interrupt:
    """The state that the signal handler looks at. All of it belongs to the main thread.

    `in_user_code` is set by plain attribute stores right inside the `try` that catches
    `ToolCancelled`: between such a store and the next one there is no point where the
    interpreter runs signal handlers, so an interrupt can neither be lost nor hit the wrong call.
    """

    def __init__(self) -> None:
        self.seams: set[CodeType] = set()  # library code that user code has just returned to
        self.call: Interruptible | None = None
        self.in_user_code: bool = False
        self._thread_id = 0

    def install(self) -> None:
        """Install the handler and the hook. Call on the main thread."""
        self._thread_id = get_ident()
        signal.signal(INTERRUPT_SIGNAL, self._handle)
        sys.unraisablehook = self._unraisable(sys.unraisablehook)

    def send(self) -> None:
        """Ask the main thread to look at its call. Called from the I/O thread."""
        signal.pthread_kill(self._thread_id, INTERRUPT_SIGNAL)

    def raise_if_due(self) -> None:
        """Raise ToolCancelled if the current call is cancelled and was not interrupted yet."""
        call = self.call
        if call is not None and call.cancelled and not (call.interrupted or call.spared):
            call.interrupted = True
            raise ToolCancelled("this call was cancelled")

    def is_in_user_code(self, frame: FrameType | None) -> bool:
        """True if what the signal found running may be interrupted."""
        return self.in_user_code and (frame is None or frame.f_code not in self.seams)

    def is_home(self) -> bool:
        """Is this the thread in which tools are interrupted?"""
        return get_ident() == self._thread_id

    def masked(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call code of this library that a tool has called, from any thread: no interrupt hits it.

        One that comes meanwhile does nothing; the I/O thread asks again.
        """
        if not self.in_user_code or get_ident() != self._thread_id:
            return function(*args, **options)
        try:
            self.in_user_code = False
            return function(*args, **options)
        finally:
            self.in_user_code = True

    def _handle(self, _signal: int, frame: FrameType | None) -> None:
        if self.is_in_user_code(frame) and not _is_importing(frame):
            self.raise_if_due()

    def _unraisable(self, previous: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def hook(report: Any) -> None:
            if not issubclass(report.exc_type, ToolCancelled):
                previous(report)
            elif (call := self.call) is not None and call.cancelled:
                call.interrupted = False  # swallowed: the I/O thread will ask again

        return hook


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename in _IMPORTLIB:
            return True
        frame = frame.f_back
    return False
