"""Noticing that the host is gone, by other signs than the end of the wire.

A process that holds the other end of the wire open keeps the worker from seeing its end: a child
that the host has forked, say. So the kernel is asked for SIGTERM at the death of the parent, and
a thread waits for the host's own end. Both need the host's mark, and a host in our pid namespace.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from threading import Thread

from snakepit.procfs import Handle, Mark, die_with_parent, own_mark


class HostGoneError(Exception):
    """The host ended before this worker began."""


def bind_to_host() -> Handle | None:
    """Die with the host from now on; returns its handle, None where there is no way to know it.

    Raises HostGoneError.
    """
    mark = own_mark()
    if mark is None:
        return None
    _bind_to_parent(mark)
    host = Handle.open(mark.host_pid, mark.host_start)
    if host is None and not mark.host_is_alive():
        raise HostGoneError
    return host


def _bind_to_parent(mark: Mark) -> None:
    """Where a program stands between, an interpreter's wrapper say, its end is not the host's."""
    if os.getppid() == mark.host_pid:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != mark.host_pid:  # it ended just before the kernel was asked
            raise HostGoneError


def watch(host: Handle, gone: Callable[[], None]) -> None:
    """Call `gone`, in a thread of its own, when the host has ended."""

    def wait() -> None:
        poll = select.poll()
        poll.register(host.fd, select.POLLIN)
        poll.poll()
        gone()

    Thread(target=wait, name="snakepit-host", daemon=True).start()
