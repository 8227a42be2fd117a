"""The host's half of `pool.run_sync`: the function and its outcome, pickled."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

from snakepit.errors import SerializationError
from snakepit.worker._target import IMPORTED_MAIN, MAIN

REMOTE_TRACEBACK = "in a worker of the pool:\n"


def pickle_call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The params of the hidden tool. Functions that pickle refuses go by cloudpickle if it is there.

    Raises SerializationError.
    """
    importable = _importable_main()
    try:
        pickled = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
        uses_main = b"__main__" in pickled
        if not uses_main or importable:
            return {"pickled": pickled, "uses_main": uses_main}
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
    return {"pickled": pickled, "uses_main": False}


def unpickle_outcome(outcome: tuple[str, bytes, str]) -> Any:
    """The function's value, or raises what it raised, with the worker's traceback as a note."""
    kind, pickled, text = outcome
    if kind == "unpicklable":
        raise SerializationError(f"what the function returned cannot be pickled: {text}")
    try:
        value = _Unpickler(io.BytesIO(pickled)).load()
    except Exception as error:
        raise SerializationError(f"what came back cannot be rebuilt here: {error}") from error
    if kind == "raised":
        value.add_note(REMOTE_TRACEBACK + text)
        raise value
    return value


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
