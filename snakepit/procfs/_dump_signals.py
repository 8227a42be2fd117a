"""The signals that ask a worker for the stacks of its threads, on stderr. They take no GIL to be answered.

`faulthandler` shows a hundred threads, the youngest first, and leaves out the rest: of more than
these the main thread, where tools run, is not among them. So it is asked for with a signal of its own.
"""

from __future__ import annotations

from snakepit.procfs._signals import signal

DUMP_ALL = signal.SIGQUIT
DUMP_MAIN = getattr(signal, "SIGRTMAX", None)  # None: there is no signal to spare, as on macOS
THREADS_SHOWN_MAX = 100  # by the former
