"""The errors: each pickles and copies with equal fields, and tells itself in a str."""

from __future__ import annotations

import builtins
import copy
import pickle
from typing import Any

import pytest

from snakepit import errors
from snakepit.errors import SnakepitError, ToolError, tool_error

EXAMPLES = [
    errors.SnakepitError("plain"),
    errors.ToolCancelled("why"),
    errors.ConfigError("size", -1, "a number > 0"),
    errors.SerializationError("cannot travel", "['a'][3]"),
    errors.ProtocolError("broken"),
    errors.ToolNotFoundError("predikt", ("predict",)),
    errors.InvalidParamsError("predict", "missing argument 'text'"),
    errors.ToolError("predict", "pkg.MyError", "text", "Traceback …", "w1"),
    errors.WorkerDiedError("w1", 123, None, 9, "was killed", False, "line", "killed by the kernel"),
    errors.CallQuarantinedError("predict", 3, 59.5, False, "ended by SIGSEGV"),
    errors.WorkerStartError("w1", "adapter import failed", 1, None, "tail", "Traceback …"),
    errors.PoolBrokenError("no worker left", "certificate"),
    errors.CallTimeoutError("predict", 1.5),
    errors.QueueTimeoutError("predict", 1.5),
    errors.PoolSaturatedError("full"),
    errors.ReentrancyError("no", ("outer", "inner")),
    errors.HostToolError("ask", "pkg.MyError", "text", "Traceback …"),
    errors.PoolClosedError("closed"),
    errors.SessionLostError("user_42", "w1"),
    errors.SessionBusyError("user_42", "is open already"),
    errors.SessionNotFoundError("user_42", "was ended"),
]


def test_every_error_has_an_example() -> None:
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    classes = {
        c for c in classes if issubclass(c, BaseException) and c.__module__ == errors.__name__
    }
    assert classes == {type(example) for example in EXAMPLES}
    assert {c.__name__ for c in classes} | {"host_tool_error", "tool_error"} == set(errors.__all__)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_errors_pickle_and_copy_with_equal_fields(error: Any, duplicate: Any) -> None:
    error.__dict__.pop("__notes__", None)
    error.add_note("a note")
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)
    assert str(error)


def test_every_builtin_exception_can_be_a_tool_error() -> None:
    """For `Exception` subclasses whose meaning is not the interpreter's own control flow."""
    plain = {"StopIteration", "StopAsyncIteration", "ExceptionGroup", "Exception"}
    for name, base in vars(builtins).items():
        if not (isinstance(base, type) and issubclass(base, BaseException)):
            continue
        for args in (None, (), ("x",), (1, 2, 3, 4, 5, 6), (2, "no", "/f")):
            error = tool_error(
                tool="t",
                type=f"builtins.{name}",
                message="m",
                traceback="",
                worker_id="w",
                builtin=name,
                args=args,
            )
            assert isinstance(error, ToolError)
            dual = issubclass(base, Exception) and name not in plain
            assert isinstance(error, base) is (dual or name in {"Exception", "BaseException"})
            twin = pickle.loads(pickle.dumps(error))
            assert (type(twin), twin.args, twin.message) == (type(error), error.args, "m")
            assert str(error) == f"{name}: m"


def test_all_errors_share_one_root_but_the_cancellation() -> None:
    for example in EXAMPLES:
        assert isinstance(example, SnakepitError) or type(example) is errors.ToolCancelled
    assert not issubclass(errors.ToolCancelled, Exception)


def test_a_refused_value_is_shown_in_part_when_it_is_long() -> None:
    error = errors.ConfigError("tool", "x" * 10**6, "a name of at most 256 characters")
    assert str(error) == (
        f"tool='{'x' * 99}…{'x' * 99}' is not possible: a name of at most 256 characters"
    )
    assert error.value == "x" * 10**6
