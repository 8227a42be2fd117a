"""The host's half of `pool.run_sync`: the function and its outcome, pickled."""

from __future__ import annotations

import inspect
import io
import itertools
import pickle
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from snakepit.errors import SerializationError
from snakepit.protocol import decode_value
from snakepit.shm import private_bytes
from snakepit.worker._target import IMPORTED_MAIN, MAIN

if TYPE_CHECKING:
    from msgspec import Raw

    from snakepit.pool._settings import Settings
    from snakepit.protocol import Buffers

REMOTE_TRACEBACK = "in a worker of the pool:\n"


def refuse_strangers(settings: Settings) -> None:
    """Raise PermissionError if the pool's workers are not our own, or are not Python."""
    if not settings.spawns_python:
        raise PermissionError(
            "functions travel as pickles, so this works only on pools that start their own Python "
            "workers; this one was opened with a command, or connected to workers of others"
        )


def refuse_async(function: object) -> None:
    """Raise TypeError at an async function, whose call would bring no value."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function!r} is async; only plain functions can be sent, an async one can be a tool"
        )


def pickle_call(
    function: Callable[..., Any], arguments: tuple[Any, ...], *, as_is: bool = False
) -> dict[str, Any]:
    """The params of the hidden tool. Functions that pickle refuses go by cloudpickle if it is there.

    With `as_is` a SystemExit and its like come back as themselves too, not as ToolErrors.

    Raises SerializationError; TypeError at an async function.
    """
    refuse_async(function)
    importable = _importable_main()
    try:
        pickled = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
        uses_main = b"__main__" in pickled
        if not uses_main or importable:
            return {"pickled": pickled, "uses_main": uses_main, "as_is": as_is}
        problem = (
            "it lives in __main__, which a worker cannot import from a REPL or -c: "
            "put it in a module or a file"
        )
    except Exception as error:
        problem = str(error)
    try:
        import cloudpickle
    except ImportError:
        raise SerializationError(
            f"{function!r} cannot travel: {problem}; with cloudpickle installed it could"
        ) from None
    try:
        pickled = cloudpickle.dumps((function, arguments))
    except Exception as error:
        raise SerializationError(f"{function!r} cannot travel: {error}") from error
    return {"pickled": pickled, "uses_main": False, "as_is": as_is}


def outcome_of(body: Raw, buffers: Buffers) -> tuple[Any, BaseException | None]:
    """The function's value, or what it raised, of the answer to the hidden tool. From any thread.

    Raises SerializationError if neither can be had.
    """
    return read_outcome(decode_value(body, buffers, make=private_bytes))


def read_outcome(outcome: tuple[str, bytes, str]) -> tuple[Any, BaseException | None]:
    """The function's value, or what it raised, with the worker's traceback as a note.

    Raises SerializationError if neither can be had.
    """
    kind, pickled, text = outcome
    if kind == "unpicklable":
        raise SerializationError(f"what the function returned cannot be pickled: {text}")
    try:
        value = _Unpickler(io.BytesIO(pickled)).load()
    except Exception as error:
        raise SerializationError(f"what came back cannot be rebuilt here: {error}") from error
    if kind == "returned":
        return value, None
    errors: list[BaseException] = value
    for above, cause in itertools.pairwise(errors):
        above.__cause__ = cause
    errors[0].add_note(REMOTE_TRACEBACK + text)
    return None, errors[0]


class _Unpickler(pickle.Unpickler):
    """Finds the classes of our `__main__`, which the worker has imported by another name.

    The pickles come from a worker that this host spawned.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return super().find_class(
            MAIN if module_name == IMPORTED_MAIN else module_name, global_name
        )


def _importable_main() -> bool:
    main = sys.modules.get("__main__")
    return getattr(main, "__spec__", None) is not None or hasattr(main, "__file__")
