"""Exceptions pickled so that they can be rebuilt, also those whose constructor wants something else.

Pickle keeps the `args` of an exception and calls its class with them. Where a constructor of its own
has other parameters that fails, or makes another exception of it: `Missing("x")`, whose args are
`("no x",)`, comes back as `no no x`. Such an exception is rebuilt without its constructor, from its
args and its attributes. Imported only where a function has raised.
"""

from __future__ import annotations

import io
import pickle
from types import FunctionType
from typing import Any


def dumps(value: object) -> bytes:
    """As `pickle.dumps`."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def travels(error: BaseException) -> bool:
    """Is it the same once it has been pickled by `dumps` and rebuilt?"""
    try:
        copy = pickle.loads(dumps(error))  # noqa: S301 - our own
        return type(copy) is type(error) and str(copy) == str(error)
    except Exception:
        return False


def rebuild(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """The exception, as its class makes it before any constructor runs."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object, /) -> Any:
        if not isinstance(value, BaseException) or not _needs_rebuilding(value):
            return NotImplemented
        return rebuild, (type(value), value.args), value.__dict__ or None


def _needs_rebuilding(error: BaseException) -> bool:
    kind = type(error)
    if kind.__reduce__ is not BaseException.__reduce__ or not isinstance(
        kind.__init__, FunctionType
    ):
        return False
    try:
        return kind(*error.args).args != error.args
    except Exception:
        return True
