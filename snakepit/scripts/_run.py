"""`run`: a program that owns pools, from its first line to its exit code."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVarTuple

import anyio
from attrs import define

from snakepit._loops import TrioLoop, this_loop
from snakepit.errors import ConfigError
from snakepit.scripts._ending import Ending
from snakepit.scripts._outcome import code_of_error, is_exit_code, tell
from snakepit.scripts._watchdog import Watchdog, handle_signals

Ts = TypeVarTuple("Ts")
BACKENDS = ("trio", "asyncio")


class _NotAsyncError(TypeError):
    """Main is a plain function, which shows when it has been called."""


@define
class Program:
    """Main, and what has become of it."""

    main: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    ending: Ending
    watchdog: Watchdog
    began: bool = False
    value: Any = None
    error: BaseException | None = None

    async def live(self) -> None:  # noqa: ASYNC910 - as main does
        """Main, cancelled when the watchdog says so; all that it raises is kept."""
        self.began = True
        try:
            if isinstance(this_loop(), TrioLoop):
                await self._in_a_scope()
            else:
                await self._in_a_task()
        except anyio.get_cancelled_exc_class():
            raise  # not by us
        except BaseException as error:
            self.ended_by(error)
        else:
            self._ended()

    def ended_by(self, error: BaseException) -> None:
        """Main, or something that it has left to the loop, has raised this."""
        self.error = self.error or error
        self.watchdog.main_ended(code_of_error(self.error))

    def _ended(self) -> None:
        good = self.value if is_exit_code(self.value) else None
        self.watchdog.main_ended(good or 0)

    async def _in_a_scope(self) -> None:
        with anyio.CancelScope() as scope:
            self._cancel_by(scope.cancel)
            self.value = await self._call_main()
        if scope.cancelled_caught:
            self.value = self.ending.cause

    async def _in_a_task(self) -> None:  # noqa: ASYNC910 - if it was cancelled
        # Once, as `asyncio.run` does it at Ctrl+C, and not at each await again, as a scope of anyio's
        # would: the clean-up of asyncio's libraries waits without a shield.
        task = asyncio.current_task()
        assert task is not None
        self._cancel_by(task.cancel)
        try:
            self.value = await self._call_main()
        except asyncio.CancelledError:
            if self.ending.cause is None:
                raise
            self.value = self.ending.cause

    def _call_main(self) -> Awaitable[Any]:
        called: Any = self.main(*self.args)
        if not inspect.isawaitable(called):
            raise _NotAsyncError(
                f"main must be an async function, and {self.main!r} is a plain one: make it `async def`"
            )
        return called

    def _cancel_by(self, cancel: Callable[[], object]) -> None:
        loop = this_loop()
        self.watchdog.main_began(lambda: loop.call_soon(cancel))


def run(
    main: Callable[[*Ts], Awaitable[int | None]],
    /,
    *args: *Ts,
    backend: str = "trio",
    timeout: float | None = None,
    shutdown_timeout: float | None = 15,
    cleanup_timeout: float | None = 10,
) -> int:
    """Run a program, `sys.exit(snakepit.run(main))`, and return its exit code.

    The first SIGINT or SIGTERM cancels `main`, so that its pools close. Those that have not closed
    after `shutdown_timeout` lose their workers to SIGKILL; a program that even then, for another
    `cleanup_timeout`, does not end is ended by `os._exit`, with the stacks of its threads on
    stderr. Each further signal goes on to the next of these steps at once. What the program leaves
    to its event loop when `main` has ended has as much time.

    Args:
        main: an async function. It returns None or an exit code.
        *args: its arguments.
        backend: the event loop, "trio" or "asyncio".
        timeout: how long `main` may run, in seconds; then it is cancelled as by a signal.
        shutdown_timeout: how long it has to end after that, before its workers are killed; None: for ever.
        cleanup_timeout: how long it has then; None: for ever, and `os._exit` is never called.

    Returns: 0 or what `main` returned; 1 for an exception, whose traceback is shown; the code of
        SystemExit; 128 + the number of the signal that cancelled `main` (130, 143); 124 if its time was
        up. A `main` that returns or raises after it was cancelled counts for what it did.

    Raises: ConfigError: an option is wrong. RuntimeError: it is called outside of the main thread,
        where signals cannot be handled, or where an event loop runs already. TypeError: `main` is
        no function, or returned what is no exit code; the program has then ended all the same.
    """
    _check(backend in BACKENDS, "backend", backend, "'trio' or 'asyncio'")
    _check(_is_limit(timeout) and timeout != 0, "timeout", timeout, f"{_LIMIT} above 0, or None")
    for option, value in (
        ("shutdown_timeout", shutdown_timeout),
        ("cleanup_timeout", cleanup_timeout),
    ):
        _check(_is_limit(value), option, value, f"{_LIMIT}, or None")
    _check_main(main)
    if _loop_runs_here():
        raise RuntimeError("an event loop is already running here: await what main does instead")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "snakepit.run handles signals, so it belongs into the main thread; elsewhere use "
            "trio.run, asyncio.run or anyio.run: pools close with their blocks there too"
        )
    ending = Ending(
        time.monotonic(),
        timeout=timeout,
        shutdown_timeout=shutdown_timeout,
        cleanup_timeout=cleanup_timeout,
    )
    with Watchdog(ending) as watchdog:
        program = Program(main, args, ending, watchdog)
        with handle_signals(watchdog.signalled):
            try:
                anyio.run(program.live, backend=backend)
            except BaseException as error:
                if not program.began:
                    raise
                program.ended_by(error)
    if isinstance(program.error, _NotAsyncError):
        raise program.error
    if program.error is not None:
        tell(program.error)
        return code_of_error(program.error)
    if not is_exit_code(program.value):
        raise TypeError(f"main must return None or an exit code, and returned {program.value!r}")
    return program.value or 0


def _loop_runs_here() -> bool:
    try:
        this_loop()
    except RuntimeError:
        return False
    return True


_LIMIT = "a finite number of seconds"


def _is_limit(value: object) -> bool:
    return value is None or (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= sys.float_info.max
    )


def _check(good: object, option: str, value: object, allowed: str) -> None:
    if not good:
        raise ConfigError(option, value, allowed)


def _check_main(main: object) -> None:
    if inspect.iscoroutine(main):
        main.close()
        raise TypeError("give run the async function and its arguments: run(main), not run(main())")
    if not callable(main):
        raise TypeError(f"main must be an async function, not {main!r}")
