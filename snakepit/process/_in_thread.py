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

LAST_WORD_S = 0.001  # between two looks whether a thread that has nothing left to do is gone


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

    thread = Thread(target=run, name="snakepit: in a thread", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        run()

    async def gone() -> None:
        await done.wait()
        while thread.is_alive():  # noqa: ASYNC110 - still in the call that has woken us
            await anyio.sleep(LAST_WORD_S)

    await (gone() if abandon else shielded(gone))
    if errors:
        raise errors[0]
