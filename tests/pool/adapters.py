"""The adapters that the pool's tests run in real workers.

Tools tell the test what they do through files: `started` is made when a tool runs, `release` lets
it go on, a `log` gets one line for each thing that was done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from snakepit import Adapter, ToolCancelled, context, tool

FOREVER_S = 3600.0
BEAT_S = 0.01


def touch(path: str) -> None:
    Path(path).touch()


def log_line(path: str, text: object) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.005)


class Tools(Adapter):
    """Sync tools alone: they run on the plain main thread."""

    # What comes back at once.

    @tool
    def echo(self, value: Any = None) -> Any:
        """Give the value back.

        A second paragraph.
        """
        return value

    @tool
    def add(self, left: int, right: int = 1) -> int:
        return left + right

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def note(self, log: str, text: str) -> None:
        log_line(log, text)

    @tool
    def describe(self, value: Any) -> tuple[str, int, bool]:
        """What arrived: its type, its length, whether it is read-only."""
        if isinstance(value, memoryview):
            read_only = value.readonly
        elif hasattr(value, "flags"):
            read_only = not value.flags.writeable
        else:
            read_only = isinstance(value, bytes)
        return type(value).__name__, len(value), read_only

    @tool
    def make_bytes(self, size: int) -> bytes:
        return bytes(range(256)) * (size // 256) + bytes(size % 256)

    # What takes its time.

    @tool
    def sleep(self, started: str, seconds: float = FOREVER_S) -> None:
        touch(started)
        time.sleep(seconds)

    @tool
    def spin(self, started: str) -> None:
        touch(started)
        while True:
            pass

    @tool
    def run_child(self, started: str) -> None:
        subprocess.run(["sh", "-c", f"touch '{started}'; exec sleep {FOREVER_S:g}"], check=False)

    @tool
    def hold(self, started: str, release: str) -> int:
        """Wait until the file `release` is there; return the worker's pid."""
        touch(started)
        wait_for(release)
        return os.getpid()

    @tool
    def beat(self, log: str) -> None:
        """Write a line every 10 ms, for as long as it runs."""
        while True:
            log_line(log, time.monotonic())
            time.sleep(BEAT_S)

    @tool
    def slow_to_stop(self, log: str, seconds: float) -> None:
        """Go on for a while after the cancellation."""
        try:
            self.beat(log)
        finally:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                log_line(log, "stopping")
                time.sleep(BEAT_S)
            log_line(log, "stopped")

    @tool(cancel_grace=60)
    def slow_with_grace(self, log: str, seconds: float) -> None:
        self.slow_to_stop(log, seconds)

    @tool
    def stubborn(self, log: str) -> None:
        """Swallow every cancellation."""
        while True:
            try:
                self.beat(log)
            except ToolCancelled:
                log_line(log, "swallowed")

    @tool(cancel_grace=0)
    def stubborn_but_brief(self, log: str) -> None:
        self.stubborn(log)

    @tool(on_cancel="kill")
    def kill_on_cancel(self, log: str) -> None:
        self.beat(log)

    @tool(on_cancel="cooperative")
    def cooperative(self, started: str, log: str) -> None:
        touch(started)
        while not context().cancelled:
            time.sleep(BEAT_S)
        time.sleep(0.1)
        log_line(log, "slept on")
        context().check_cancelled()
        log_line(log, "not stopped")

    @tool(timeout=0.2)
    def sleep_with_timeout(self, started: str) -> None:
        self.sleep(started)

    @tool
    def deadline(self) -> float | None:
        """Seconds left, as the tool sees it."""
        at = context().deadline
        return None if at is None else at - time.monotonic()

    # What streams.

    @tool
    def count(self, stop: int, log: str | None = None) -> Iterator[int]:
        """Yield numbers; the log says what was produced, and when it was closed."""
        try:
            for number in range(stop):
                if log is not None:
                    log_line(log, number)
                yield number
        finally:
            if log is not None:
                log_line(log, "closed")

    @tool
    def count_then(self, stop: int, what: str) -> Iterator[int]:
        """Yield numbers and then fail in the given way."""
        yield from range(stop)
        if what == "raise":
            raise FileNotFoundError(2, "gone", "some/file")
        if what == "exit":
            os._exit(7)
        if what == "unsendable":
            yield lambda: None
        if what == "stall":
            time.sleep(FOREVER_S)

    @tool
    def slow_close(self, log: str) -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            time.sleep(0.2)
            log_line(log, "closed")

    @tool
    def deaf(self) -> Iterator[int]:
        """Swallow the closing of the generator, and the interrupt too."""
        while True:
            try:
                yield 0
            except GeneratorExit:
                break
        while True:
            try:
                time.sleep(FOREVER_S)
            except ToolCancelled:
                continue

    @tool
    def blobs(self, count: int, size: int) -> Iterator[bytes]:
        for number in range(count):
            yield bytes([number]) * size

    # What ends the worker.

    @tool
    def die(self, how: str, log: str | None = None) -> None:
        if log is not None:
            log_line(log, os.getpid())
        _die(how)

    @tool(idempotent=True)
    def die_idempotently(self, log: str) -> None:
        log_line(log, os.getpid())
        os._exit(5)

    @tool(idempotent=True)
    def die_once(self, log: str) -> int:
        """Die in the first worker that runs this, answer in the second."""
        first = not os.path.exists(log)
        log_line(log, os.getpid())
        if first:
            os._exit(5)
        return os.getpid()

    @tool
    def hold_then_die(self, started: str, release: str) -> None:
        self.hold(started, release)
        os._exit(9)

    @tool
    def say_and_die(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        os._exit(4)


def _die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segv":
        import ctypes

        ctypes.string_at(0)
    raise AssertionError(how)


class BadTools(Adapter):
    """Tools that do what a tool should not."""

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def print_megabytes(self, lines: int) -> int:
        for number in range(lines):
            print(f"line {number} " + "x" * 1000)
        return lines

    @tool
    def print_without_newlines(self, size: int) -> int:
        sys.stdout.write("y" * size)
        sys.stdout.flush()
        return size

    @tool
    def say(self, text: str) -> None:
        """Say it in four ways: print, stderr, a child's stdout, a bare fd."""
        print(f"print {text}")
        print(f"stderr {text}", file=sys.stderr, flush=True)
        subprocess.run(["echo", f"child {text}"], check=True)
        os.write(1, f"fd {text}\n".encode())

    @tool
    def say_bytes(self, data: bytes) -> None:
        os.write(1, data)

    @tool
    def close_fds(self) -> str:
        for fd in (0, 1, 2):
            os.close(fd)
        return "closed"

    @tool
    def write_to_fds(self) -> list[str]:
        problems = []
        for fd in (0, 1, 2):
            try:
                os.write(fd, b"\x00\xff garbage\n" * 100)
            except OSError as error:
                problems.append(f"{fd}: {type(error).__name__}")
        return problems

    @tool
    def read_stdin(self) -> str:
        return sys.stdin.read()

    @tool
    def exit(self, code: Any) -> None:
        sys.exit(code)

    @tool
    def fail(self, how: str) -> None:
        if how == "async cancelled":
            import asyncio

            raise asyncio.CancelledError("as if")
        raise FAILURES[how]

    @tool
    def fail_with_cause(self) -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer", 3) from error

    @tool
    def give_generator(self) -> Any:
        return (number for number in range(3))

    @tool
    def give(self, what: str) -> Any:
        values: dict[str, Any] = {
            "lambda": {"deep": [1, (2, lambda: None)]},
            "object": object(),
            "module": [sys],
            "cycle": [],
        }
        values["cycle"].append(values["cycle"])
        return values[what]

    @tool
    def typed(self, number: int, flag: bool = False, *, word: str = "w") -> tuple[int, bool, str]:
        return number, flag, word

    @tool
    def sync_returning_coroutine(self) -> Any:
        async def nothing() -> None: ...

        return nothing()

    @tool
    def vandalise(self) -> None:
        """Write garbage wherever it can."""
        for fd in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(fd, b"\xff" * 64)
        time.sleep(FOREVER_S)

    @tool
    def close_everything(self) -> None:
        os.closerange(3, 256)

    @tool
    def start_daemon(self) -> int:
        """Leave a process behind that has our stderr and is in no group of ours."""
        daemon = subprocess.Popen(["sleep", "300"], start_new_session=True)
        pid, daemon.returncode = daemon.pid, 0
        return pid


class Unbuildable(ValueError):
    """An exception whose constructor does not take its own args."""

    def __init__(self, one: int, two: int, three: int) -> None:
        super().__init__("only this")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class OnlyBase(BaseException):
    pass


FAILURES: dict[str, BaseException] = {
    "unbuildable": Unbuildable(1, 2, 3),
    "mute": Mute(),
    "stop": StopIteration("value"),
    "async stop": StopAsyncIteration(),
    "keyboard": KeyboardInterrupt(),
    "base": OnlyBase("base"),
    "generator exit": GeneratorExit(),
    "group": ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    "unsendable args": LookupError(lambda: None),
    "huge": RuntimeError("z" * 3_000_000),
    "cancelled": ToolCancelled("as if"),
    "os": PermissionError(13, "Permission denied", "a/file"),
    "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "memory": MemoryError("enough"),
    "surrogate": ValueError("\udcff"),
}


class AsyncTools(Adapter):
    """Async tools: they run on an event loop in the worker, sync ones inline on it."""

    async def initialize(self) -> None:
        self.ready = True

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    async def echo(self, value: Any = None) -> Any:
        assert self.ready
        return value

    @tool
    async def beat(self, log: str, backend: str) -> None:
        try:
            while True:
                log_line(log, time.monotonic())
                await _sleep(backend, BEAT_S)
        finally:
            log_line(log, "stopped")

    @tool
    async def stubborn(self, log: str, backend: str) -> None:
        """Swallow every cancellation of the loop."""
        while True:
            try:
                while True:
                    try:
                        log_line(log, time.monotonic())
                        await _sleep(backend, BEAT_S)
                    except BaseException:
                        log_line(log, "swallowed")
            except BaseException:  # an interrupt may hit the handler above
                continue

    @tool
    async def block(self, started: str) -> None:
        """Block the loop, so that its own cancellation cannot reach the tool."""
        touch(started)
        time.sleep(FOREVER_S)

    @tool
    async def count(self, stop: int, log: str, backend: str) -> AsyncIterator[int]:
        try:
            for number in range(stop):
                log_line(log, number)
                await _sleep(backend, 0)
                yield number
        finally:
            log_line(log, "closed")

    @tool
    def count_sync(self, stop: int, log: str) -> Iterator[int]:
        try:
            for number in range(stop):
                log_line(log, number)
                yield number
        finally:
            log_line(log, "closed")


async def _sleep(backend: str, seconds: float) -> None:
    if backend == "trio":
        import trio

        await trio.sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)


class Lifecycle(Adapter):
    """Tells through a log when it is initialised and cleaned up."""

    def __init__(self, log: str, cleanup: str = "quick") -> None:
        self.log, self.how = log, cleanup

    def initialize(self) -> None:
        log_line(self.log, f"initialize {os.getpid()}")

    def cleanup(self) -> None:
        log_line(self.log, f"cleanup {os.getpid()}")
        if self.how == "hang":
            time.sleep(FOREVER_S)
        if self.how == "raise":
            raise RuntimeError("cleanup went wrong")

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def hold(self, started: str, release: str) -> int:
        touch(started)
        wait_for(release)
        return os.getpid()

    @tool
    def stuck(self, started: str) -> None:
        """Stop for neither ToolCancelled nor SIGTERM."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        touch(started)
        while True:
            try:
                time.sleep(FOREVER_S)
            except ToolCancelled:
                continue


class BadStart(Adapter):
    """Starts in the way that it is told."""

    def __init__(self, how: str, started: str = "", only_if: str = "") -> None:
        self.how, self.started, self.only_if = how, started, only_if

    def initialize(self) -> None:
        if self.only_if and not os.path.exists(self.only_if):
            return
        if self.started:
            touch(self.started)
        match self.how:
            case "raise":
                raise LookupError("no model here")
            case "hang":
                self.hang_in_here()
            case "exit":
                print("about to exit", file=sys.stderr, flush=True)
                os._exit(6)
            case "sys.exit":
                sys.exit(8)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "ignore":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                self.hang_in_here()
            case "once":
                # The first worker starts, the others do not.
                try:
                    os.mkdir(self.started + ".d")
                except FileExistsError:
                    raise LookupError("only one may start") from None
            case "slow second":
                try:
                    os.mkdir(self.started + ".d")
                except FileExistsError:
                    wait_for(self.started + ".release")

    def hang_in_here(self) -> None:
        time.sleep(FOREVER_S)

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def die(self) -> None:
        os._exit(3)


class BadConstructor:
    def __init__(self) -> None:
        raise ZeroDivisionError("built wrongly")

    @tool
    def nothing(self) -> None: ...


class NoTools:
    pass


class NotAnAdapter(Adapter):
    """Takes arguments that nobody gives."""

    def __init__(self, needed: int) -> None: ...

    @tool
    def nothing(self) -> None: ...


class SlowTools(Tools):
    """Is ready once the file is there."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def initialize(self) -> None:
        wait_for(self.mark)
