"""Every way for a call to be stuck: what the workers of `stuck.py` load.

Each says that it has come there by making a folder, `sign`; what is stuck in C code makes it from
C code too, so that there is no bytecode left at which an interrupt could land.
"""

from __future__ import annotations

import collections
import ctypes
import hashlib
import itertools
import os
import queue
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from snakepit import Adapter, tool

FOREVER_S: Final = 3600
ITERATIONS: Final = 2**31 - 1  # some half an hour
FAMILY: Final = "sleep 3600 & setsid sleep 3600 & (sleep 3600; :) & mkdir {sign}; sleep 3600; :"


def sleep(sign: str) -> None:
    os.mkdir(sign)
    time.sleep(FOREVER_S)


def loop(sign: str) -> None:
    os.mkdir(sign)
    while True:
        pass


def child(sign: str) -> None:
    os.mkdir(sign)
    subprocess.run(["sleep", str(FOREVER_S)], check=False)  # noqa: S607 - wherever it is


def shell(sign: str) -> None:
    subprocess.run(FAMILY.format(sign=shlex.quote(sign)), shell=True, check=False)  # noqa: S602 - that is what is tried


def blocking_socket(sign: str) -> None:
    mine, other = socket.socketpair()
    with mine, other:
        os.mkdir(sign)
        mine.recv(1)


def lock(sign: str) -> None:
    taken = threading.Lock()
    taken.acquire()
    os.mkdir(sign)
    taken.acquire()


def waiting_queue(sign: str) -> None:
    empty: queue.Queue[None] = queue.Queue()
    os.mkdir(sign)
    empty.get()


def system_call(sign: str) -> None:
    """C code that lets others run, and returns when a signal comes."""
    _in_c(sign, ctypes.CDLL(None).sleep, FOREVER_S)


def computing_c(sign: str) -> None:
    """C code that lets others run, and does not look at signals."""
    _in_c(sign, hashlib.pbkdf2_hmac, "sha256", b"password", b"salt", ITERATIONS)


def greedy_c(sign: str) -> None:
    """C code that holds the GIL, and does not look at signals."""
    collections.deque(itertools.chain(map(os.mkdir, [sign]), itertools.repeat(None)), maxlen=0)


def swallowing(sign: str) -> None:
    """A tool that will not hear of it."""
    while True:
        with suppress(BaseException):
            Path(sign).mkdir(exist_ok=True)
            time.sleep(FOREVER_S)


def _in_c(sign: str, function: Callable[..., Any], *arguments: Any) -> None:
    steps = itertools.chain(map(os.mkdir, [sign]), itertools.starmap(function, [arguments]))
    collections.deque(steps, maxlen=0)


# What the table calls them.
WAYS: Final[dict[str, Callable[[str], None]]] = {
    "`time.sleep`": sleep,
    "a Python loop": loop,
    "`subprocess.run`": child,
    "`subprocess.run`, `shell=True`, with grandchildren": shell,
    "a blocking socket": blocking_socket,
    "`threading.Lock.acquire`": lock,
    "`queue.Queue.get`": waiting_queue,
    "C code that releases the GIL, in a system call": system_call,
    "C code that releases the GIL, and computes": computing_c,
    "C code that holds the GIL: `collections.deque(itertools.repeat(None), maxlen=0)`": greedy_c,
    "a tool that swallows `ToolCancelled`": swallowing,
}

# Those that no interrupt can end; only SIGKILL does.
DEAF: Final = frozenset(
    name for name, way in WAYS.items() if way in (computing_c, greedy_c, swallowing)
)
STEPS: Final = {way: "SIGKILL" if way in DEAF else "interrupt" for way in WAYS}


class Stuck(Adapter):
    """A worker that has loaded something, and is stuck when told to."""

    def initialize(self) -> None:
        self.model = os.urandom(8).hex()

    @tool
    def loaded(self) -> list[Any]:
        """The pid, and what nobody else has."""
        return [os.getpid(), self.model]

    @tool
    def be_stuck(self, way: str, sign: str) -> None:
        """Never return."""
        WAYS[way](sign)
