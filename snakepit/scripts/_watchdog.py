"""A thread that sees a program to its end, also when the program's event loop does not turn.

Signal handlers only tell it what has come: they may run between any two instructions of the main
thread, under whatever locks. All facts reach it through one queue, so it alone changes the `Ending`.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Self, TypeAlias

from snakepit.process import kill_running
from snakepit.scripts._ending import Ending, Step

Fact: TypeAlias = Callable[[float], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST_WORDS_S = 1.0  # for texts to be written, to somebody who may not read

_log = logging.getLogger("snakepit.run")


class Watchdog:
    """Does what each step of the end asks for. `with watchdog:` is while it watches."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._facts: SimpleQueue[Fact | None] = SimpleQueue()
        self._cancel_main: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._watch, name="snakepit.run", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._facts.put(None)
        self._thread.join()

    # -- facts ---------------------------------------------------------------------------------

    def signalled(self, number: int) -> None:
        """A signal has come. For signal handlers: takes no lock."""
        self._facts.put(partial(self._ending.on_signal, number))

    def main_began(self, cancel: Callable[[], None]) -> None:
        """There is something to cancel; `cancel` may be called from any thread."""

        def began(_: float) -> None:
            self._cancel_main = cancel
            if self._ending.step is not Step.RUNNING:
                self._ask()

        self._facts.put(began)

    def main_ended(self, code: int) -> None:
        """There is nothing to cancel any more."""

        def ended(now: float) -> None:
            self._cancel_main = None
            self._ending.on_main_ended(code, now)

        self._facts.put(ended)

    # -- the thread ----------------------------------------------------------------------------

    def _watch(self) -> None:
        ending = self._ending
        while True:
            left = ending.seconds_left(time.monotonic())
            if left is not None:
                left = min(left, threading.TIMEOUT_MAX)
            try:
                fact = self._facts.get(timeout=left)
            except Empty:
                fact = ending.on_time
            if fact is None:
                return
            before = ending.step
            fact(time.monotonic())
            if ending.step is not before:
                self._do(ending.step)

    def _do(self, step: Step) -> None:
        if step is Step.CLOSING:
            self._ask()
        elif step is Step.KILLED:
            killed = kill_running()
            if killed:
                _say_at_most(
                    partial(_log.warning, "workers killed, for they did not close: %d", killed)
                )
        elif step is Step.OVER:
            kill_running()  # those that were started meanwhile
            _say_at_most(_last_words)
            os._exit(self._ending.code)

    def _ask(self) -> None:
        if self._cancel_main is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._cancel_main()


def _last_words() -> None:
    _log.error("main did not end: this process does, and here is where its threads are")
    for file in (sys.stdout, sys.stderr):
        with suppress(Exception):
            file.flush()
    with suppress(Exception):  # a stderr without a descriptor
        faulthandler.dump_traceback()


def _say_at_most(say: Callable[[], None]) -> None:
    """Say it, but do not wait for ever for a lock that is held by the one who hangs."""
    thread = threading.Thread(target=say, name="snakepit.run: last words", daemon=True)
    thread.start()
    thread.join(LAST_WORDS_S)


@contextmanager
def handle_signals(signalled: Callable[[int], None]) -> Generator[None]:
    """Give SIGINT and SIGTERM to `signalled`. What is ignored stays ignored, as nohup wants it."""
    pid = os.getpid()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handler(number: int, _: FrameType | None) -> None:
        if os.getpid() == pid:
            signalled(number)
        else:  # a forked child of the program is ended as it would be without us
            signal.signal(number, before[signal.Signals(number)])
            os.kill(os.getpid(), number)

    ours = [number for number in SIGNALS if before[number] not in (signal.SIG_IGN, None)]
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number])
