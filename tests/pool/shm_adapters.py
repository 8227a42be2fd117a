"""Tools for pools with shared memory: they say what they copied, keep things, and lie."""

from __future__ import annotations

import asyncio
import copyreg
import errno
import gc
import mmap
import os
import pickle
import resource
import signal
import socket
import sys
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import snakepit
from snakepit import Adapter, tool
from snakepit.protocol import NIL, Drop, Result
from snakepit.shm import FdSocket, Heap, _endpoint
from snakepit.shm._fd_socket import RECORD, SHOW
from snakepit.shm._memory import address_of
from snakepit.shm._segments import create
from snakepit.worker import _empty

MIB = 2**20


def copied_bytes() -> int:
    """By this worker, into its own shared memory."""
    return the_heap().copied_bytes


def the_heap() -> Heap:
    """Of this worker, which takes part from now on if it has not before."""
    heap = _empty.find_heap()
    assert heap is not None
    return heap


def show(fds: FdSocket, kind: str) -> None:
    """Show a segment of 1 MiB as number 1, with something wrong about it."""
    segment, _ = create(MIB)
    record = RECORD.pack(SHOW, 1, MIB)
    count = 1
    if kind == "a segment without seals":
        segment = os.memfd_create("lie")
        os.ftruncate(segment, MIB)
    elif kind == "a segment that is too short":
        segment, _ = create(MIB - 4096)
    elif kind == "half a record":
        record = record[:12]
    elif kind == "ten descriptors":
        count = 10
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [segment] * count))]
    fds._socket.sendmsg([record], control)


LIES = (
    "a segment never shown",
    "memory that was not lent",
    "something malformed",
    "memory out of its segment",
    "a segment that was not there is gone",
    "a segment without seals",
    "a segment that is too short",
    "half a record",
    "ten descriptors",  # more than there is room for: some are lost
)


def endpoint() -> Any:
    return next(iter(the_heap().endpoints))


class Forbidden:
    """In place of a class of pickle's: it can be derived from, as libraries do, and not used."""

    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError("pickle was used")


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("pickle was used")


# The ways of NumPy, pandas, polars and cloudpickle into pickle end at one of these.
PICKLE_FORBIDDEN: list[tuple[Any, str, Any]] = [
    *((pickle, name, forbidden) for name in ("dump", "dumps", "load", "loads")),
    *((pickle, name, Forbidden) for name in ("Pickler", "Unpickler")),
    (copyreg, "__reduce_ex__", forbidden),
]


class Sharer(Adapter):
    kept: Any = None

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def through_the_host(self, value: Any) -> Any:
        return snakepit.context().call_host("same", {"value": value})

    @tool
    def each(self, values: Iterator[Any]) -> Iterator[Any]:
        yield from values

    @tool
    def forbid_pickle(self) -> None:
        for module, name, forbidden in PICKLE_FORBIDDEN:
            setattr(module, name, forbidden)

    @tool
    def segments_known(self) -> int:
        return len(endpoint().shown.segments)

    @tool
    def no_more_memory(self) -> None:
        """For what this worker sends."""

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

        endpoint().heap.take = _endpoint.make_gift = lambda *_: None
        mmap.mmap = refuse  # type: ignore[assignment]

    @tool
    def strided(self) -> Any:
        return np.ones((MIB, 2))[:, 0]

    @tool
    def strided_items(self) -> Iterator[Any]:
        yield 1
        yield self.strided()

    @tool
    def strided_for_the_host(self) -> Any:
        return snakepit.context().call_host("same", {"value": self.strided()})

    @tool
    def lengths(self, values: Iterator[Any]) -> int:
        return sum(map(len, values))

    @tool
    def repeat(self, value: Any, times: int) -> Iterator[Any]:
        for _ in range(times):
            yield value

    @tool
    def yield_and_wait(self, value: Any) -> Iterator[Any]:
        """Nobody collects garbage from then on."""
        gc.disable()
        yield 1
        time.sleep(60)
        yield value

    @tool
    def half(self, array: Any) -> Any:
        return array[len(array) // 2 :]

    @tool
    def total(self, array: Any) -> float:
        return float(np.sum(array))

    @tool
    def ones(self, size: int) -> Any:
        return np.ones(size)

    @tool
    def ones_once(self, size: int, sign: str) -> Any:
        """Tell that it runs, make the result once the sign is gone, and tell that it is made."""
        path = Path(sign)
        path.touch()
        while path.exists():
            time.sleep(0.005)
        made = np.ones(size)
        path.with_name("done").touch()
        return made

    @tool
    def born_there(self, size: int) -> Any:
        array = snakepit.empty(size)
        array[:] = 7
        return array

    @tool
    def copied(self) -> int:
        return copied_bytes()

    @tool
    def count(self, parts: int, size: int) -> Iterator[Any]:
        for number in range(parts):
            array = snakepit.empty(size, "u1")
            array[:] = number
            yield array

    @tool
    def keep(self, value: Any) -> None:
        self.kept = value

    @tool
    def kept_total(self) -> float:
        return 0.0 if self.kept is None else float(np.sum(self.kept))

    @tool
    def forget(self) -> None:
        self.kept = None

    @tool
    def die(self, value: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def ponder(self, value: Any, sign: str) -> None:
        with open(sign, "w") as file:
            file.write("x")
        time.sleep(60)

    @tool
    def make_until_stopped(self, sign: str) -> None:
        with open(sign, "w") as file:
            file.write("x")
        while True:
            snakepit.empty(3 * MIB)

    @tool
    def given_away(self) -> int:
        return the_heap().donations

    @tool
    def give_up_what_idles(self) -> None:
        the_heap().trim()
        the_heap().speak()

    @tool
    def in_use(self) -> int:
        the_heap().reclaim()
        return the_heap().arena.used_bytes

    @tool
    def table(self) -> Any:
        import pyarrow

        return pyarrow.table({"n": np.arange(MIB)})

    @tool
    def fork_and_return(self, value: Any) -> float:
        """The child ends as Python does, with all that it inherited."""
        pid = os.fork()
        if pid == 0:
            del value
            sys.exit(0)
        os.waitpid(pid, 0)
        return float(np.sum(value))

    @tool
    def no_more_descriptors(self) -> None:
        highest = max(map(int, os.listdir("/dev/fd")))
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, max(taken) + 1))

    @tool
    def lie(self, kind: str) -> None:
        """Say something untrue of this very call."""
        call, end = snakepit.context().call_id, endpoint()
        references: dict[str, list[object]] = {
            "a segment never shown": [99, 0, MIB, 0, 1],
            "memory that was not lent": [-1, 8 * MIB - 4, 8, 0, 0],
            "something malformed": ["segment"],
            "memory out of its segment": [1, 4096, MIB, 0, 1],
        }
        if kind == "a segment that was not there is gone":
            end.tell(Drop((99,)))
        else:
            show(end._fds, kind)
            reference = references.get(kind, [1, 0, MIB, 0, 1])
            end.tell(Result(call, NIL, (reference,)))
        time.sleep(60)


class AsyncSharer(Adapter):
    @tool
    async def yield_and_wait(self, value: Any) -> AsyncIterator[Any]:
        gc.disable()
        yield 1
        await asyncio.sleep(60)
        yield value

    @tool
    async def echo(self, value: Any) -> Any:
        return value

    @tool
    async def born_there(self, size: int) -> Any:
        array = snakepit.empty(size)
        array[:] = 7
        return array


def memory(pool: snakepit.Pool) -> snakepit.SharedMemoryStats:
    found = pool.stats().shared_memory
    assert found is not None
    return found


def where(array: Any) -> int:
    return address_of(array.data.cast("B"))
