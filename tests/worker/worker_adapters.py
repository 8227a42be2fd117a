"""Adapters that the tests of the worker process load into real workers."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from snakepit import Adapter, context, tool
from snakepit.errors import ToolCancelled

FOREVER_S = 3600.0


def say(text: str) -> None:
    """A whole line on stderr in one write: the sign for the test that a tool got here."""
    os.write(2, f"{text}\n".encode())


@dataclass
class Kept:
    """Says when nobody keeps it any more."""

    name: str

    def __post_init__(self) -> None:
        weakref.finalize(self, say, f"let go of the {self.name}").atexit = False


@dataclass
class Nosy:
    """Its constructor, which the check of arguments runs, asks for the call it serves."""

    wait: bool
    call_id: int = 0

    def __post_init__(self) -> None:
        self.call_id = context().call_id
        if self.wait:
            say("converting")
            while not context().cancelled:
                time.sleep(0.001)
            context().check_cancelled()


class ChecksInDel:
    """The ToolCancelled that its `__del__` raises is swallowed by Python."""

    def __del__(self) -> None:
        context().check_cancelled()


def watch_for_jobs() -> None:
    """Say, from a thread, when this process holds no call any more."""

    def watch() -> None:
        while any(type(found).__name__ in ("Job", "Call") for found in gc.get_objects()):
            time.sleep(0.005)
        say("no call is left")

    threading.Thread(target=watch, daemon=True).start()


class Trap:
    """Its `__del__` blocks."""

    def __del__(self) -> None:
        say("running")
        time.sleep(FOREVER_S)


@dataclass
class SlowToEncode:
    """Reading its field, as the encoder does, runs for a while."""

    field: int = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "field":
            say("encoding")
            for _ in range(20):
                time.sleep(0.01)
        return super().__getattribute__(name)


class Stoppable(Adapter):
    """Sync tools to be cancelled, each saying "running" when it is where it will stay."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.model = object()

    @tool
    def echo(self, value: Any = None) -> Any:
        return value

    @tool
    def model_id(self) -> int:
        return id(self.model)

    @tool
    def read_notes(self) -> list[Any]:
        notes, self.notes = self.notes, []
        return notes

    @tool
    def block(self, how: str) -> None:
        getattr(self, f"_{how}")()

    def _sleep(self) -> None:
        say("running")
        time.sleep(FOREVER_S)

    def _loop(self) -> None:
        say("running")
        while True:
            pass

    def _subprocess(self) -> None:
        # The child speaks when it has been given its input: when `run` has come to wait for it.
        script = "read go; echo pid $$; echo running; exec sleep 3600"
        subprocess.run(["sh", "-c", script], input=b"go\n", check=True)

    def _socket(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            say("running")
            ours.recv(1)

    def _lock(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        say("running")
        lock.acquire()

    def _event(self) -> None:
        say("running")
        threading.Event().wait()

    def _select(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            say("running")
            select.select([ours], [], [])

    def _join(self) -> None:
        thread = threading.Thread(target=time.sleep, args=(FOREVER_S,), daemon=True)
        thread.start()
        say("running")
        thread.join()

    @tool
    def spin(self, seconds: float) -> str:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return "spun"

    @tool
    def large(self, nbytes: int) -> bytes:
        return bytes(nbytes)

    @tool
    def large_error(self) -> None:
        error = ValueError("x" * 60_000)
        error.add_note("y" * 60_000)
        raise error

    @tool
    def slow_to_encode(self) -> list[Any]:
        return [SlowToEncode(7), list(range(100_000))]

    @tool
    def with_finally(self) -> None:
        try:
            say("running")
            time.sleep(FOREVER_S)
        finally:
            for step in range(20):  # 0.2 s, where interrupts are repeated every 0.01 s
                time.sleep(0.01)
                self.notes.append(step)

    @tool
    def swallow_once(self) -> str:
        try:
            say("running")
            time.sleep(FOREVER_S)
        except ToolCancelled:
            self.notes.append("swallowed")
        for _ in range(20):
            time.sleep(0.01)
        self.notes.append("went on")
        return "a value that nobody waits for"

    @tool
    def turn_into(self, what: str) -> str:
        try:
            say("running")
            time.sleep(FOREVER_S)
        except ToolCancelled:
            if what == "SystemExit":
                sys.exit(3)
            if what == "ValueError":
                raise ValueError("instead") from None
            if what == "KeyboardInterrupt":
                raise KeyboardInterrupt from None
            if what == "StopIteration":
                raise StopIteration from None
        return "a value"

    @tool
    def swallowed(self, where: str) -> None:
        try:
            getattr(self, f"_in_{where}")()
            self.notes.append("returned to ordinary code")
            time.sleep(FOREVER_S)
        finally:
            self.notes.append("interrupted")

    def _in_del(self) -> None:
        Trap()

    def _in_weakref_callback(self) -> None:
        class Referent:
            pass

        referent = Referent()
        reference = weakref.ref(referent, lambda _: self._sleep())
        del referent
        del reference

    def _in_gc_callback(self) -> None:
        def callback(phase: str, info: dict[str, int]) -> None:
            if phase == "stop":
                gc.callbacks.remove(callback)
                self._sleep()

        gc.callbacks.append(callback)
        gc.collect()

    def _in_ctypes_callback(self) -> None:
        def callback() -> int:
            self._sleep()
            return 1

        ctypes.CFUNCTYPE(ctypes.c_int)(callback)()

    def _in_dels_one_after_the_other(self) -> None:
        for _ in range(3):
            Trap()

    @tool
    def import_module(self, folder: str, name: str) -> str:
        if folder not in sys.path:
            sys.path.insert(0, folder)
        module = __import__(name)
        self.notes.append(f"{name} imported")
        say(f"imported in call {context().call_id}")
        time.sleep(FOREVER_S)
        return str(module)

    @tool
    def imported(self, name: str) -> list[str] | None:
        module = sys.modules.get(name)
        return None if module is None else sorted(n for n in vars(module) if n[0] != "_")

    @tool(on_cancel="cooperative")
    def cooperative(self) -> str:
        say("running")
        while not context().cancelled:
            time.sleep(0.001)
        self.notes.append("saw cancelled")
        for _ in range(20):
            time.sleep(0.01)
        self.notes.append("went on")
        return "a value that nobody waits for"

    @tool(on_cancel="cooperative")
    def checking(self) -> None:
        say("running")
        try:
            while True:
                time.sleep(0.001)
                context().check_cancelled()
        except ToolCancelled as cancelled:
            self.notes.append(str(cancelled))
            raise

    @tool
    def checking_then_cleaning_up(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})  # so that the check is first
        try:
            say("running")
            while True:
                with contextlib.suppress(ValueError):
                    context().check_cancelled()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
            for step in range(5):
                time.sleep(0.01)
                self.notes.append(step)

    @tool(on_cancel="cooperative")
    def cooperative_checking_in_del(self) -> None:
        say("running")
        while not context().cancelled:
            time.sleep(0.001)
        ChecksInDel()
        for _ in range(10):  # 0.1 s, where interrupts are repeated every 0.01 s
            time.sleep(0.01)
        self.notes.append("went on")

    @tool
    def closing_with_a_check_in_del(self) -> Iterator[int]:
        try:
            yield 0
            yield 1
        finally:
            ChecksInDel()
            for _ in range(10):
                time.sleep(0.01)
            self.notes.append("closed")

    @tool
    def take_and_give(self, kept: Kept) -> Kept:
        return Kept("value")

    @tool
    def watch_for_jobs(self) -> None:
        watch_for_jobs()

    @tool
    def take_nosy(self, nosy: Nosy) -> list[int]:
        return [nosy.call_id, context().call_id]

    @tool
    def count(self, stop: int) -> Iterator[int]:
        try:
            for number in range(stop):
                self.notes.append(f"made {number}")
                yield number
        finally:
            self.notes.append("closed")

    @tool
    def large_items(self, nbytes: int) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(nbytes)
        finally:
            self.notes.append("closed")

    @tool
    def first_then_block(self, how: str) -> Iterator[str]:
        try:
            yield "first"
            getattr(self, f"_{how}")()
        finally:
            for step in range(20):
                time.sleep(0.01)
                self.notes.append(step)

    @tool
    def close_slowly(self) -> Iterator[int]:
        try:
            yield 0
            yield 1
        finally:
            for step in range(20):
                time.sleep(0.01)
                self.notes.append(step)

    @tool
    def refuse_to_close(self) -> Iterator[int]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                self.notes.append("refused")

    @tool
    def fail_after(self, count: int) -> Iterator[int]:
        yield from range(count)
        raise LookupError("no more")

    @tool
    def item_that_cannot_travel(self) -> Iterator[Any]:
        try:
            yield 1
            yield {"inner": [self.spin]}
            yield 3
        finally:
            self.notes.append("closed")

    @tool
    def returns_a_generator(self) -> Any:
        return (number for number in range(3))

    @tool
    def returns_what_cannot_travel(self) -> Any:
        return {"inner": [object()]}

    @tool
    def empty(self) -> Iterator[int]:
        yield from ()

    @tool
    def nones(self, count: int) -> Iterator[None]:
        for _ in range(count):
            yield None
