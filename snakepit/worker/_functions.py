"""The worker's half of `pool.run_sync`: functions that come pickled, by reference or by value.

Pickle is used on this one path only, and only between a host and the workers it spawned.
"""

from __future__ import annotations

from collections.abc import Callable

from snakepit.worker._tool import ToolOptions
from snakepit.worker._toolbox import Tool

RUN_SYNC = "snakepit.run_sync"


def run_sync_tool(load_main: Callable[[], object]) -> Tool:
    """The hidden tool that runs a pickled function. `load_main` imports the host's `__main__`.

    It returns `("returned", pickled value, "")`, `("raised", pickled exception, traceback)` or
    `("unpicklable", b"", why)`; an exception that pickle cannot carry is raised, and so travels
    as data.
    """

    def run_sync(pickled: bytes, uses_main: object) -> tuple[str, bytes, str]:
        import pickle

        if uses_main:
            load_main()
        function, arguments = pickle.loads(pickled)  # noqa: S301 - our own host sent it
        try:
            value = function(*arguments)
        except Exception as error:
            return "raised", _portable(error), _traceback_of(error)
        try:
            return "returned", pickle.dumps(value, pickle.HIGHEST_PROTOCOL), ""
        except Exception as error:
            return "unpicklable", b"", str(error)

    return Tool(RUN_SYNC, run_sync, ToolOptions())


def _portable(error: Exception) -> bytes:
    """The exception pickled, if that can be undone; else the exception itself is raised."""
    import pickle

    try:
        pickled = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        copy = pickle.loads(pickled)  # noqa: S301 - made one line above
    except Exception:
        raise error from None
    if type(copy) is not type(error):
        raise error
    return pickled


def _traceback_of(error: BaseException) -> str:
    from snakepit.protocol import describe

    return describe(error).traceback
