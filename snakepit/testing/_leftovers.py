"""What a process owns beside its memory: what must be as it was once a link is closed."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

import psutil

# Threads that the loops keep for the next one who needs a thread.
PARKED_THREADS: Final = ("Trio thread", "AnyIO worker thread")


def owned() -> set[str]:
    """Descriptors, children, threads and names in /dev/shm of this process, as texts to compare."""
    return {
        *_descriptors(),
        *(f"child process {child.pid}" for child in psutil.Process().children()),
        *(
            f"thread {thread.name!r} ({thread.ident})"
            for thread in threading.enumerate()
            if not thread.name.startswith(PARKED_THREADS)
        ),
        *_shared_memory(),
    }


def is_shared_memory(thing: str) -> bool:
    """Whether this one of the things owned is a name that other programs might have made too."""
    return thing.startswith("shared memory")


def _descriptors() -> set[str]:
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    found = set()
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}") if sys.platform == "linux" else ""
        except OSError:  # the descriptor of the listing itself
            continue
        found.add(f"file descriptor {name} -> {target}")
    return found


def _shared_memory() -> set[str]:
    """Names of this user alone: others may come and go as they like."""
    found = set()
    if sys.platform == "linux":
        for name in os.listdir("/dev/shm"):  # noqa: S108 - looked at, not written to
            try:
                owner = os.stat(f"/dev/shm/{name}").st_uid  # noqa: S108 - as above
            except FileNotFoundError:
                continue
            if owner == os.getuid():
                found.add(f"shared memory /dev/shm/{name}")
    return found
