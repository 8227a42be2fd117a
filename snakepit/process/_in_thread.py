"""Blocking work of ours in a thread that keeps no program alive.

The threads of `anyio.to_thread` are no daemons on asyncio: a program that leaves its loop without
closing its pools, as `run_forever` does at Ctrl+C, would wait for them in vain when it exits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Thread

import anyio

from snakepit._loops import this_loop
from snakepit.process._hold import shielded


async def in_thread(function: Callable[[], object], *, abandon: bool = False) -> None:
    """Call it in a thread of its own, and see it to its end; raises what it raises.

    With `abandon` a cancellation is raised at once, and the thread goes on by itself. Where no
    thread can be started the function is called here and now.
    """
    done, loop = anyio.Event(), this_loop()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon(done.set)

    try:
        Thread(target=run, name="snakepit: in a thread", daemon=True).start()
    except RuntimeError:
        run()
    await (done.wait() if abandon else shielded(done.wait))
    if errors:
        raise errors[0]
