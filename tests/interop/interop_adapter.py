"""What the foreign clients call."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakepit import Adapter, context, tool


def log(path: str, text: object) -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


class Interop(Adapter):
    @tool(description="Add two numbers.", idempotent=True)
    def add(self, left: int, right: int = 1) -> int:
        return left + right

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def a_set(self) -> set[int]:
        return {1}

    @tool
    def fail(self) -> None:
        raise FileNotFoundError(2, "gone", "some/file")

    @tool
    def count(self, stop: int, path: str | None = None) -> Iterator[int]:
        try:
            yield from range(stop)
        finally:
            if path is not None:
                log(path, "closed")

    @tool
    def blobs(self, count: int, size: int) -> Iterator[bytes]:
        for _ in range(count):
            yield bytes(size)

    @tool
    def sleep(self, path: str) -> None:
        log(path, "begun")
        try:
            time.sleep(1000)
        finally:
            log(path, "ended")

    @tool
    def open_and_add(self, path: str) -> str:
        """Wait until whoever writes there has closed it."""
        with Path(path).open("rb") as fifo:
            fifo.read()
        return "all was read"

    @tool
    def remember(self, value: Any) -> list[Any]:
        told: list[Any] = context().session.setdefault("told", [])
        told.append(value)
        return told

    @tool
    def time_left(self) -> float | None:
        deadline = context().deadline
        return None if deadline is None else deadline - time.monotonic()

    @tool
    def trace(self) -> dict[str, str]:
        return context().trace_context

    @tool
    def traces(self) -> Iterator[dict[str, str]]:
        yield context().trace_context

    @tool
    def ask_host(self) -> str:
        try:
            context().call_host("anything")
        except Exception as error:
            return type(error).__name__
        return "answered"


class Stubborn(Adapter):
    def cleanup(self) -> None:
        """Never end, and say that it has begun."""
        print("it cleans up", file=sys.stderr, flush=True)
        threading.Event().wait()

    @tool
    def lock_twice(self, path: str) -> None:
        """Wait in C code that looks at no signal, with the GIL given back."""
        libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
        libc.pthread_mutex_lock(mutex)
        Path(path).write_text("it runs\n", encoding="utf-8")
        libc.pthread_mutex_lock(mutex)

    @tool
    def never_stop(self, path: str) -> None:
        """Tell that it runs; the file stays open as long as anything of it does."""
        with Path(path).open("w", encoding="utf-8") as file:
            subprocess.Popen(["sleep", "30"], pass_fds=[file.fileno()])
            file.write("it runs\n")
            file.flush()
            while True:
                try:
                    time.sleep(0.01)
                except BaseException:
                    pass
