"""Adapters whose tools start processes of every kind, and that are stuck in every way.

What runs is told by files in a folder: `NAME-PID`, made by the process itself or by its starter.
"""

from __future__ import annotations

import collections
import ctypes
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from threading import Thread

import snakepit
from snakepit import Adapter, tool
from snakepit.worker import _host_watch

FOREVER_S = 3600.0
PR_SET_PDEATHSIG = 1
# Each prints nothing and runs until it is killed; $0 is the folder.
STUBBORN = "trap '' TERM HUP INT; : > \"$0/{name}-$$\"; while :; do sleep 1000; done"


def note(folder: str, name: str, pid: int | None = None) -> None:
    (Path(folder) / f"{name}-{pid or os.getpid()}").touch()


def deafen(off: tuple[str, ...]) -> None:
    """Switch some of the worker's own nets off. Before it watches its host: in `__init__`."""
    if "pdeathsig" in off:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    if "pidfd" in off:
        _host_watch.Thread = lambda **_: Thread()  # type: ignore[misc, assignment]


def start(folder: str, kind: str) -> None:
    """Start a process of this kind, and do not wait for it."""
    script = STUBBORN.format(name=kind)
    if kind == "child":
        subprocess.Popen(["sh", "-c", script, folder])
    elif kind == "session":
        subprocess.Popen(["sh", "-c", script, folder], start_new_session=True)
    elif kind == "bare":  # no environment that could tell where it is from
        subprocess.Popen(["sh", "-c", script, folder], env={}, start_new_session=True)
    elif kind == "daemon":  # forked twice, in a session of its own, its parent gone
        daemonize = 'setsid sh -c \'sh -c "$1" "$0" &\' "$0" "$1"'
        subprocess.run(["sh", "-c", daemonize, folder, script], check=True)
    elif kind == "grandchild":
        code = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(1000)"
        subprocess.Popen([sys.executable, "-I", "-S", "-c", code, "sh", "-c", script, folder])
    else:
        raise ValueError(kind)


KINDS = ("child", "session", "bare", "daemon", "grandchild")


class Family(Adapter):
    """`off`: without these of its own nets. `early`: kinds of processes that `initialize` starts."""

    def __init__(self, folder: str, off: tuple[str, ...] = (), early: tuple[str, ...] = ()) -> None:
        self.folder, self.early = folder, early
        deafen(off)

    def initialize(self) -> None:
        note(self.folder, "worker")
        for kind in self.early:
            start(self.folder, kind)

    def cleanup(self) -> None:
        note(self.folder, "cleaned")

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def start(self, kinds: list[str], folder: str | None = None) -> None:
        """Start these, and return when each of them runs."""
        folder = folder or self.folder
        for kind in kinds:
            start(folder, kind)
        while not all(list(Path(folder).glob(f"{kind}-*")) for kind in kinds):
            time.sleep(0.003)

    @tool
    def start_and_sleep(self, kinds: list[str], folder: str | None = None) -> None:
        self.start(kinds, folder)
        note(folder or self.folder, "busy")
        time.sleep(FOREVER_S)

    @tool
    def start_and_stream(self, kinds: list[str]) -> Generator[int]:
        self.start(kinds)
        yield from range(1000)

    @tool
    def start_and_die(self, kinds: list[str]) -> None:
        self.start(kinds)
        os._exit(7)

    @tool
    def sleep_in_a_shell(self) -> None:
        """With grandchildren, in its session and in others."""
        sleeps = "sleep 1000 & setsid sleep 1000 & (sleep 1000; :) &"
        sign = f": > {shlex.quote(self.folder)}/busy-$$"
        subprocess.run(f"{sleeps} {sign}; exec sleep 1000", shell=True, check=False)

    @tool(cancel_grace=4)
    def wait_in_a_block(self, command: list[str]) -> None:
        """Its end waits for the child, whatever ended it."""
        with subprocess.Popen(command) as child:
            note(self.folder, "child", child.pid)
            note(self.folder, "busy")
            child.wait()

    @tool
    async def start_and_await(self, kinds: list[str], folder: str | None = None) -> None:
        import asyncio

        self.start(kinds, folder)
        note(folder or self.folder, "busy")
        await asyncio.sleep(FOREVER_S)

    @tool
    def sleep(self) -> None:
        note(self.folder, "busy")
        time.sleep(FOREVER_S)

    @tool
    def spin(self) -> None:
        note(self.folder, "busy")
        while True:
            pass

    @tool
    def swallow(self) -> None:
        """Neither an interrupt nor SIGTERM ends it."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(self.folder, "busy")
        while True:
            try:
                time.sleep(FOREVER_S)
            except BaseException:
                pass

    @tool
    def hold_gil(self) -> None:
        """C code that neither returns, nor looks at signals, nor lets anybody else run."""
        note(self.folder, "busy")
        collections.deque(itertools.repeat(None), maxlen=0)

    @tool
    def take(self, text: str) -> int:
        """Be sent something that no pipe has room for."""
        return len(text)

    @tool
    def zombies(self) -> list[str]:
        """The states of the children of this process that are dead."""
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        stats = [
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children
        ]
        return [stat[0] for stat in stats if stat[0] == "Z"]


class SyncFamily(Family):
    """Without an event loop: the plain main thread."""

    start_and_await = None  # type: ignore[assignment]


class SlowFamily(SyncFamily):
    """That never comes to be ready."""

    def initialize(self) -> None:
        super().initialize()
        time.sleep(FOREVER_S)


class Nested(Adapter):
    """A worker that is a host itself."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def initialize(self) -> None:
        stop = snakepit.Stop(cancel_grace=0.2, term_grace=0.2, drain_timeout=2)
        options = {"size": 1, "adapter_args": (self.folder,), "stop": stop, "sweep": False}
        self.block = snakepit.open_pool_sync(SyncFamily, **options)
        self.pool = self.block.__enter__()

    def cleanup(self) -> None:
        self.block.__exit__(None, None, None)

    @tool
    def hold_gil_below_and_die(self) -> None:
        Thread(target=self.pool.execute, args=("hold_gil",), daemon=True).start()
        while not list(Path(self.folder).glob("busy-*")):
            time.sleep(0.003)
        time.sleep(0.1)  # from its sign into what it is stuck in
        os._exit(7)


class Plain(Adapter):
    """Without a folder: for workers that their host gives no arguments."""

    @tool
    def pid(self) -> int:
        return os.getpid()
