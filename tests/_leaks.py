"""Every test ends with the processes, descriptors, threads and /dev/shm names it began with.

The run is a child subreaper (Linux): whatever a dead worker leaves behind becomes our child, so
reading our own children finds orphans too. The price is that an orphan which exits stays a zombie
until its test ends; `is_alive` counts it as gone.
"""

import ctypes
import dataclasses
import functools
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

PATIENCE_S = 1.0  # for what ends a moment after the test: watcher threads, a SIGKILL on its way
FREEZE_AFTER_S = 0.003  # a collection slower than this has too many old objects to look at
COLLECT_AFTER = 10_000  # new objects: each test ends with a collection, and needs few before that
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"

# Descriptors that the test run itself may open at any time, and keep.
RUNNER_FILES = ("/dev/urandom", "/.hypothesis/", ".coverage", "/__pycache__/")
# Threads parked for reuse by trio; a busy one bears the name of what it runs.
RUNNER_THREADS = ("Trio thread ",)

_spawned: set[tuple[int, float]] = set()  # pids come again: with when they were started
_failed = pytest.StashKey[bool]()


def is_alive(pid: int) -> bool:
    """Whether the process still runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def unmeasured_env() -> dict[str, str]:
    """Our environment, less what starts coverage in a child: for tests of imports and memory."""
    return {name: value for name, value in os.environ.items() if "COVERAGE" not in name}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What this process owned at one moment."""

    children: frozenset[int]
    fds: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]
    shm: frozenset[str]

    @classmethod
    def take(cls) -> Self:
        return cls(
            frozenset(_children()),
            frozenset(_fds()),
            frozenset(threading.enumerate()),
            frozenset(_shm_names()),
        )

    def leaks(self) -> list[str]:
        """One line for each thing that is here now and was not then."""
        now = Snapshot.take()
        found = []
        for pid in sorted(now.children - self.children):
            if _reap_adopted(pid):
                continue
            found.append(f"child process {_describe(pid)}")
        for fd, target in sorted(now.fds - self.fds):
            if not any(part in target for part in RUNNER_FILES):
                found.append(f"file descriptor {fd} -> {target}")
        found += [
            f"thread {thread.name!r}{' (daemon)' if thread.daemon else ''}"
            for thread in now.threads - self.threads
            if not thread.name.startswith(RUNNER_THREADS)
        ]
        found += [
            f"shared memory /dev/shm/{name}"
            for name in sorted(now.shm - self.shm)
            if not _held_by_a_stranger(f"/dev/shm/{name}")
        ]
        return found

    def leaks_after_patience(self) -> list[str]:
        """As `leaks`, but what ends within `PATIENCE_S` is forgiven."""
        deadline = time.monotonic() + PATIENCE_S
        while found := self.leaks():
            if time.monotonic() > deadline:
                break
            gc.collect()
            time.sleep(0.02)
        return found

    def kill_new_children(self) -> None:
        """So that one leaking test does not trouble the next."""
        for pid in _children() - self.children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children() -> set[int]:
    if not LINUX:
        return {child.pid for child in psutil.Process().children()}
    pids: set[int] = set()
    for thread_id in os.listdir("/proc/self/task"):
        try:
            text = Path(f"/proc/self/task/{thread_id}/children").read_text(encoding="ascii")
        except OSError:  # the thread has ended
            continue
        pids.update(map(int, text.split()))
    return pids


def _fds() -> set[tuple[int, str]]:
    folder = "/proc/self/fd" if LINUX else "/dev/fd"
    fds = set()
    for name in os.listdir(folder):
        try:
            fds.add((int(name), os.readlink(f"{folder}/{name}") if LINUX else ""))
        except OSError:  # the descriptor of the listing itself
            continue
    return fds


def _shm_names() -> list[str]:
    return os.listdir("/dev/shm") if LINUX else []


def _describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return f"{pid} {process.name()} (zombie: it was started here and never waited for)"
        return f"{pid}: {' '.join(process.cmdline()) or process.name()}"
    except psutil.Error:  # it has just ended
        return str(pid)


def _identity(pid: int) -> tuple[int, float]:
    try:
        return pid, psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:  # reaped already, by the kernel or by others
        return pid, 0.0


def _reap_adopted(pid: int) -> bool:
    """Whether it was a dead orphan, which only we could reap. Our own zombies are leaks."""
    if _identity(pid) in _spawned or is_alive(pid):
        return False
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    return True


def _held_by_a_stranger(path: str) -> bool:
    """Whether a process outside our tree uses the file, or it bears its pid: another test run."""
    ours = {os.getpid()}
    strangers = []
    for process in psutil.process_iter(["pid", "ppid"]):
        if process.info["ppid"] in ours:
            ours.add(process.info["pid"])
        elif process.info["pid"] not in ours:
            strangers.append(process)
    named = set(re.findall(r"\d+", path))
    for process in strangers:
        if str(process.pid) in named:
            return True
        try:
            if any(item.path == path for item in process.memory_maps()):
                return True
            if any(item.path == path for item in process.open_files()):
                return True
        except psutil.Error:
            continue
    return False


def _remember_spawned() -> None:
    original: Callable[..., None] = subprocess.Popen.__init__

    @functools.wraps(original)
    def init(self: subprocess.Popen[bytes], *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _spawned.add(_identity(self.pid))

    subprocess.Popen.__init__ = init  # type: ignore[method-assign, assignment]


def pytest_configure() -> None:
    _remember_spawned()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    if LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Generator[None]:
    """Fail the test that leaves something behind."""
    before = Snapshot.take()
    yield
    if request.node.stash.get(_failed, True):
        # The traceback keeps its frames' objects alive, so only processes are looked at.
        before.kill_new_children()
        return
    started = time.perf_counter()
    gc.collect()  # unclosed things say so now; filterwarnings makes that an error of this test
    if time.perf_counter() - started > FREEZE_AFTER_S:
        gc.freeze()
    leaks = before.leaks_after_patience()
    if leaks:
        before.kill_new_children()
        lines = "\n  ".join(leaks)
        pytest.fail(f"{request.node.nodeid} left behind:\n  {lines}", pytrace=False)
