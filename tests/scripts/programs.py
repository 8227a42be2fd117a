"""The mains of programs that `snakepit.run` is to run: `python programs.py MAIN LOOP [OPTION=VALUE ...]`.

They say what they do on stdout, a line at a time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import anyio

import snakepit
from snakepit import Adapter, tool

FOREVER_S = 3600


def say(*words: object) -> None:
    print(*words, flush=True)


class Tools(Adapter):
    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def sleep(self) -> None:
        time.sleep(FOREVER_S)

    @tool
    def sleep_on(self, log: str) -> Any:
        """Says that it runs, and does not end by asking or by SIGTERM."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        yield "on"
        while True:
            try:
                time.sleep(FOREVER_S)
            except BaseException:
                with open(log, "a", encoding="utf-8") as file:
                    file.write("no\n")


def the_pool(**options: Any) -> Any:
    # What other programs left behind is none of its business, and nothing else is to be on stderr.
    return snakepit.open_pool(Tools, size=1, sweep=False, **options)


def tell_pids(pool: snakepit.Pool) -> None:
    say(*[worker.pid for worker in pool.workers()])


async def returns(code: Any = None) -> Any:
    async with the_pool() as pool:
        tell_pids(pool)
        await pool.execute("pid")
    return None if code is None else int(code)


async def raises() -> None:
    async with the_pool() as pool:
        tell_pids(pool)
        raise LookupError("the sky")


async def exits(what: str) -> None:
    async with the_pool() as pool:
        tell_pids(pool)
        async with anyio.create_task_group():
            sys.exit(int(what) if what.isdigit() else what)


async def interrupts() -> None:
    async with the_pool() as pool:
        tell_pids(pool)
        raise KeyboardInterrupt


async def returns_true() -> Any:
    return True


async def waits() -> None:
    """Its clean-up awaits, and is heard."""
    try:
        async with the_pool() as pool:
            tell_pids(pool)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.execute, "sleep")
                tasks.start_soon(pool.execute, "sleep")
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
        say("cleaned up")


async def cleans_up_without_a_shield() -> None:
    """As asyncio's libraries do it."""
    say("running")
    try:
        await asyncio.sleep(FOREVER_S)
    finally:
        await asyncio.sleep(0.01)
        say("cleaned up")


async def fails_to_clean_up() -> None:
    async with the_pool() as pool:
        tell_pids(pool)
        try:
            await anyio.sleep(FOREVER_S)
        finally:
            raise LookupError("the sky")


async def goes_on_to_an_end_of_its_own() -> int:
    async with the_pool() as pool:
        tell_pids(pool)
        with anyio.CancelScope(shield=True):
            try:
                await pool.execute("sleep", timeout=1)
            except (TimeoutError, asyncio.CancelledError):  # a shield holds on trio alone
                return 5
    return 6


async def has_workers_that_do_not_go(log: str) -> None:
    """Closing by the ladder would take an hour."""
    stop = snakepit.Stop(cancel_grace=FOREVER_S, term_grace=FOREVER_S, drain_timeout=1)
    async with the_pool(stop=stop) as pool, pool.stream("sleep_on", {"log": log}) as chunks:
        async for _ in chunks:
            tell_pids(pool)


async def does_not_end() -> None:
    async with the_pool() as pool:
        tell_pids(pool)
        while True:
            with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
                await anyio.sleep(FOREVER_S)


async def blocks_its_loop() -> None:
    async with the_pool() as pool:
        tell_pids(pool)
        print("not flushed")
        os.write(1, b"blocked\n")
        time.sleep(FOREVER_S)


async def leaves_a_thread() -> int:
    """The loop of asyncio waits for it."""
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, time.sleep, FOREVER_S)
    say("running")
    return 4


async def leaves_a_task() -> None:
    """It holds a pool, and nobody waits for it."""
    opened = asyncio.Event()

    async def hold() -> None:
        async with the_pool() as pool:
            tell_pids(pool)
            opened.set()
            await asyncio.sleep(FOREVER_S)

    KEPT.append(asyncio.ensure_future(hold()))
    await opened.wait()


async def exits_in_a_task() -> None:
    async def leave() -> None:
        sys.exit(9)

    async with the_pool() as pool:
        tell_pids(pool)
        KEPT.append(asyncio.ensure_future(leave()))
        await asyncio.sleep(FOREVER_S)


async def forks() -> None:
    """The child does not handle the signals of its parent."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b".")
        while True:
            time.sleep(FOREVER_S)
    os.read(reading, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    say(os.waitstatus_to_exitcode(status))


async def tells_handlers() -> None:
    say(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
    say(callable(signal.getsignal(signal.SIGTERM)))


KEPT: list[Any] = []


def main() -> int:
    name, backend, *rest = sys.argv[1:]
    options = {
        key: float(value) for key, _, value in (word.partition("=") for word in rest) if value
    }
    args = [word for word in rest if "=" not in word]
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        return snakepit.run(globals()[name], *args, backend=backend, **options)
    finally:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        assert [thread.name for thread in threading.enumerate() if "snakepit" in thread.name] == []


if __name__ == "__main__":
    sys.exit(main())
