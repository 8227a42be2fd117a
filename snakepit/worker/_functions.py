"""The worker's half of `pool.run_sync`: functions that come pickled, by reference or by value.

Pickle is used on this one path only, and only between a host and the workers it spawned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from snakepit.errors import ToolCancelled
from snakepit.worker._tool import ToolOptions
from snakepit.worker._toolbox import Tool

RUN_SYNC = "snakepit.run_sync"
CAUSES_MAX: Final = 8


def run_sync_tool(load_main: Callable[[], object]) -> Tool:
    """The hidden tool that runs a pickled function. `load_main` imports the host's `__main__`.

    It returns `("returned", pickled value, "")`, `("raised", pickled exception and its causes,
    traceback)` or `("unpicklable", b"", why)`; an exception that pickle cannot carry is raised,
    and so travels as data. So does one that is no Exception, unless `as_is`.
    """

    def run_sync(pickled: bytes, uses_main: object, as_is: object) -> tuple[str, bytes, str]:
        import pickle

        if uses_main:
            load_main()
        function, arguments = pickle.loads(pickled)  # noqa: S301 - our own host sent it
        try:
            value = function(*arguments)
        except ToolCancelled:
            raise
        except BaseException as error:
            if not as_is and not isinstance(error, Exception):
                raise
            return "raised", _portable(error), _traceback_of(error)
        try:
            return "returned", pickle.dumps(value, pickle.HIGHEST_PROTOCOL), ""
        except Exception as error:
            return "unpicklable", b"", _why(value, error)

    return Tool(RUN_SYNC, run_sync, ToolOptions())


def run_chunk(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """What an executor's `map` sends: some calls in one."""
    return [function(*arguments) for arguments in chunk]


def _portable(error: BaseException) -> bytes:
    """The exception and its causes pickled, if that can be undone; else the exception is raised.

    Pickle leaves `__cause__` out. The chain ends before a cause that it cannot carry.
    """
    from snakepit.worker._exception_pickles import dumps, travels

    if not travels(error):
        raise error
    chain, cause = [error], error.__cause__
    while cause is not None and len(chain) <= CAUSES_MAX and travels(cause):
        chain.append(cause)
        cause = cause.__cause__
    return dumps(chain)


def _why(value: object, error: Exception) -> str:
    from types import AsyncGeneratorType, CoroutineType, GeneratorType

    if isinstance(value, CoroutineType):
        value.close()  # or it would complain on stderr that nobody has awaited it
        return "it is a coroutine; an async function can be a tool"
    if isinstance(value, GeneratorType | AsyncGeneratorType):
        return "it is a generator; return a list, or make the function a tool, which can stream"
    return str(error)


def _traceback_of(error: BaseException) -> str:
    from snakepit.protocol import describe

    return describe(error).traceback
