"""Tools that print, and that meddle with descriptors 0, 1 and 2."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from snakepit import Adapter, tool


def fd_inodes() -> list[int]:
    """What this process has open, by inode."""
    inodes = []
    for fd in range(256):
        with contextlib.suppress(OSError):
            inodes.append(os.fstat(fd).st_ino)
    return inodes


LIST_FDS = """\
import os
for fd in range(256):
    try: print("fd", fd, os.fstat(fd).st_ino)
    except OSError: pass
"""


class Noisy(Adapter):
    """Tools that print, and meddle with descriptors 0, 1 and 2."""

    @tool
    def echo(self, value: Any = None) -> Any:
        return value

    @tool
    def speak(self, how: str) -> str:
        getattr(self, f"_{how}")()
        return how

    def _print(self) -> None:
        print("one\ntwo", end="\n")

    def _print_to_stderr(self) -> None:
        print("one\ntwo", file=sys.stderr)

    def _unencodable(self) -> None:
        print("one\ntwo \udcff")

    def _write_fd_1(self) -> None:
        os.write(1, b"one\ntwo\n")

    def _write_fd_2(self) -> None:
        os.write(2, b"one\ntwo\n")

    def _c_puts(self) -> None:
        libc = ctypes.CDLL(None)
        libc.puts(b"one\ntwo")
        libc.fflush(None)

    def _child(self) -> None:
        subprocess.run(["sh", "-c", "echo one; echo two >&2"], check=True)

    def _system(self) -> None:
        os.system("echo one; echo two")

    def _fork(self) -> None:
        pid = os.fork()
        if not pid:
            os.write(1, b"one\ntwo\n")
            os._exit(0)
        os.waitpid(pid, 0)

    @tool
    def puts_unflushed(self) -> None:
        ctypes.CDLL(None).puts(b"from C, in a buffer")

    @tool
    def megabytes(self, count: int, through: str) -> int:
        line = "x" * 1023
        for _ in range(count * 1024):
            if through == "print":
                print(line)
            else:
                os.write(1, f"{line}\n".encode())
        return count

    @tool
    def read_stdin(self, how: str) -> Any:
        if how == "input":
            return input()
        return sys.stdin.read() if how == "sys.stdin" else os.read(0, 10)

    @tool
    def close_fds(self, fds: list[int]) -> list[int]:
        for fd in fds:
            os.close(fd)
        return fds

    @tool
    def close_streams(self) -> None:
        sys.stdin.close()
        sys.stdout.close()
        sys.stderr.close()

    @tool
    def drop_streams(self) -> None:
        sys.stdin = sys.stdout = sys.stderr = None

    @tool
    def print_now(self, text: str, file: str = "stdout") -> None:
        print(text, file=getattr(sys, file), flush=True)

    @tool
    def open_file(self, path: str) -> int:
        """Takes the lowest free descriptor, and keeps it."""
        fd = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"what the tool wrote\n")
        return fd

    @tool
    def own_fds(self) -> list[int]:
        return [os.fstat(fd).st_ino for fd in (0, 1, 2)]

    @tool
    def leave_child(self) -> int:
        """A forked child that outlives the worker, with all that it has inherited."""
        pid = os.fork()
        if not pid:
            signal.pause()
        return pid

    @tool
    def child_fds(self, how: str) -> list[int]:
        if how == "fork":
            return self._forked(lambda: " ".join(map(str, fd_inodes())), lambda t: t.split())
        kwargs: dict[str, Any] = {"close_fds": how != "subprocess, close_fds=False"}
        if how == "shell":
            command = f"{sys.executable} -c '{LIST_FDS}'"
            text = os.popen(command).read()
        else:
            argv = [sys.executable, "-c", LIST_FDS]
            text = subprocess.run(argv, capture_output=True, text=True, check=True, **kwargs).stdout
        return [int(line.split()[2]) for line in text.splitlines() if line.startswith("fd ")]

    def _forked(self, work: Callable[[], str], read: Callable[[str], list[str]]) -> list[int]:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(read_end)
            os.write(write_end, work().encode())
            os._exit(0)
        os.close(write_end)
        with open(read_end, encoding="ascii") as stream:
            text = stream.read()
        os.waitpid(pid, 0)
        return list(map(int, read(text)))


class NoisyHooks(Noisy):
    """Prints from the constructor to the end."""

    def __init__(self) -> None:
        print("constructed")

    def initialize(self) -> None:
        print("initialized")

    def cleanup(self) -> None:
        print("cleaned up")
