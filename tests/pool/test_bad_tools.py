"""Tools that do what no tool should: a clear error for their caller, and the pool lives on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from adapters import BadStart, BadTools
from pool_kit import lines, pids, tools_pool

from snakepit import (
    InvalidParamsError,
    Pool,
    SerializationError,
    SnakepitError,
    ToolCancelled,
    ToolError,
    ToolNotFoundError,
    WorkerDiedError,
    open_pool,
)

pytestmark = one_loop_each


@asynccontextmanager
async def unharmed_pool(adapter: Any = BadTools, **options: Any) -> AsyncGenerator[Pool]:
    """A pool of one worker, which is the same one at the end and still answers."""
    async with tools_pool(adapter, **options) as pool:
        before = pids(pool)
        yield pool
        assert [await pool.execute("pid")] == before
        assert pool.stats().restarts == 0


# What they print


async def test_megabytes_on_stdout_reach_nobody_and_hold_nobody_up() -> None:
    """8 MB of lines, then 3 MB without a newline: never a frame, never a full pipe."""
    async with unharmed_pool() as pool:
        assert await pool.execute("print_megabytes", {"lines": 8000}) == 8000
        assert await pool.execute("print_without_newlines", {"size": 3_000_000}) == 3_000_000


async def test_a_tool_that_closes_its_standard_descriptors_harms_nobody() -> None:
    """The wire is elsewhere. What is opened next gets fd 0, 1, 2: that is no way in either."""
    async with unharmed_pool() as pool:
        assert await pool.execute("close_fds") == "closed"
        assert await pool.execute("typed", {"number": 1}) == (1, False, "w")
        with pytest.raises(OSError, match="Bad file descriptor"):
            await pool.execute("close_fds")


async def test_garbage_written_to_the_standard_descriptors_is_no_message() -> None:
    async with unharmed_pool() as pool:
        assert await pool.execute("write_to_fds") == ["0: OSError"]
        assert await pool.execute("read_stdin") == ""


# How they leave


@pytest.mark.parametrize(
    ("code", "message"), [(0, "0"), (7, "7"), (None, ""), ("bye", "bye"), ([1], "[1]")]
)
async def test_sys_exit_in_a_tool_is_a_plain_tool_error(code: object, message: str) -> None:
    """The worker stays: leaving is not a tool's decision."""
    async with unharmed_pool() as pool:
        with pytest.raises(ToolError) as caught:
            await pool.execute("exit", {"code": code})
        assert type(caught.value) is ToolError
        assert (caught.value.type, caught.value.message) == ("builtins.SystemExit", message)


# how, the builtin type that it is, the type's name, the message
RAISED: dict[str, tuple[type[Exception], str, str | None]] = {
    "unbuildable": (ValueError, "adapters.Unbuildable", "only this"),
    "mute": (ToolError, "adapters.Mute", None),
    "stop": (ToolError, "builtins.StopIteration", "value"),
    "async stop": (ToolError, "builtins.StopAsyncIteration", ""),
    "keyboard": (ToolError, "builtins.KeyboardInterrupt", ""),
    "base": (ToolError, "adapters.OnlyBase", "base"),
    "generator exit": (ToolError, "builtins.GeneratorExit", ""),
    "group": (ToolError, "builtins.ExceptionGroup", "several (2 sub-exceptions)"),
    "unsendable args": (LookupError, "builtins.LookupError", None),
    "huge": (RuntimeError, "builtins.RuntimeError", None),
    "cancelled": (ToolError, "snakepit.errors.ToolCancelled", "as if"),
    "async cancelled": (ToolError, "asyncio.exceptions.CancelledError", "as if"),
    "os": (PermissionError, "builtins.PermissionError", "[Errno 13] Permission denied: 'a/file'"),
    "unicode": (UnicodeDecodeError, "builtins.UnicodeDecodeError", None),
    "memory": (MemoryError, "builtins.MemoryError", "enough"),
    "surrogate": (ValueError, "builtins.ValueError", None),
}


@pytest.mark.parametrize("how", RAISED)
async def test_whatever_a_tool_raises_arrives_as_a_tool_error(how: str) -> None:
    """It is the builtin type too, where it was one that may cross; the traceback is a note."""
    kind, name, message = RAISED[how]
    async with unharmed_pool() as pool:
        [worker] = pool.workers()
        with pytest.raises(ToolError) as caught:
            await pool.execute("fail", {"how": how})
    error = caught.value
    assert isinstance(error, kind)
    if kind is ToolError:
        assert type(error) is ToolError
    assert (error.tool, error.type, error.worker_id) == ("fail", name, worker.id)
    if message is not None:
        assert error.message == message
    assert not isinstance(error, StopIteration | StopAsyncIteration | ToolCancelled)
    assert "in fail" in error.traceback
    assert any("in fail" in note for note in error.__notes__)
    assert len(str(error)) < 100_000


async def test_builtin_errors_keep_what_they_carry() -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(PermissionError) as os_error:
            await pool.execute("fail", {"how": "os"})
        assert (os_error.value.errno, os_error.value.filename) == (13, "a/file")
        with pytest.raises(UnicodeDecodeError) as unicode_error:
            await pool.execute("fail", {"how": "unicode"})
        assert unicode_error.value.object == b"\xff"


async def test_the_cause_of_an_error_comes_with_it() -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(ValueError, match="outer") as caught:
            await pool.execute("fail_with_cause")
    assert caught.value.args == ("outer", 3)
    assert isinstance(caught.value.__cause__, KeyError)
    assert "direct cause" in caught.value.traceback  # type: ignore[attr-defined]


# What they return


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("lambda", ["function", "['deep'][1][1]"]),
        ("object", ["object"]),
        ("module", ["module", "[0]"]),
        ("cycle", []),
    ],
)
async def test_a_result_that_cannot_travel_says_where_it_is(what: str, words: list[str]) -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(SerializationError) as caught:
            await pool.execute("give", {"what": what})
        assert "'give'" in str(caught.value)
        for word in words:
            assert word in str(caught.value)
        assert isinstance(caught.value, TypeError)


async def test_a_generator_where_a_value_was_expected_is_a_serialization_error() -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(SerializationError, match="generator"):
            await pool.execute("give_generator")


async def test_a_coroutine_where_a_value_was_expected_is_a_serialization_error() -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(SerializationError, match="coroutine"):
            await pool.execute("sync_returning_coroutine")


# What they are given


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (lambda: None, ["value"]),
        ({"deep": [1, (2, object())]}, ["deep", "[1][1]"]),
        ({lambda: None: 1}, ["function"]),
        ((number for number in ()), ["generator"]),
    ],
)
async def test_an_argument_that_cannot_travel_says_where_it_is_and_costs_nothing(
    value: object, where: list[str]
) -> None:
    """Nothing is sent, nothing is counted; it is an error of the caller."""
    async with unharmed_pool() as pool:
        with pytest.raises(SerializationError) as caught:
            await pool.execute("typed", {"number": value})
        for word in where:
            assert word in str(caught.value) or word == "value"
        assert "number" in str(caught.value)
        assert pool.stats().requests == 0


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, ["number"]),
        (None, ["number"]),
        ({"number": 1, "wordd": "x"}, ["wordd", "word"]),
        ({"number": "1"}, ["number", "int", "str"]),
        ({"number": 1.5}, ["number"]),
        ({"number": 1, "flag": "yes"}, ["flag"]),
        ({"number": 1, "word": None}, ["word"]),
        ({"number": 1, "self": 2}, ["self"]),
    ],
)
async def test_wrong_arguments_are_found_before_the_tool_runs(
    params: dict[str, Any] | None, words: list[str]
) -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(InvalidParamsError) as caught:
            await pool.execute("typed", params)
        assert isinstance(caught.value, TypeError)
        assert caught.value.tool == "typed"
        for word in words:
            assert word in caught.value.message


@pytest.mark.parametrize("params", [[1], (("number", 1),), "number", 3, {1: 2}, {"number", 1}])
async def test_params_that_are_no_mapping_of_names_are_refused_by_the_host(params: Any) -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(InvalidParamsError) as caught:
            await pool.execute("typed", params)
        assert caught.value.tool == "typed"
        assert pool.stats().requests == 0


@pytest.mark.parametrize("tool", [3, None, b"typed", ["typed"], BadTools.typed])
async def test_a_tool_name_that_is_no_string_is_refused(tool: Any) -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(InvalidParamsError, match="a tool is named by a string"):
            await pool.execute(tool)
        with pytest.raises(InvalidParamsError, match="a tool is named by a string"):
            async with pool.stream(tool):
                pytest.fail("the block was entered")
        assert pool.stats().requests == 0


async def test_what_is_wrong_with_a_call_is_found_by_the_worker_where_the_host_cannot_know(
    tmp_path: Path,
) -> None:
    """Before any worker was ready the host knows no tools: the answers are the same."""
    mark = str(tmp_path / "mark")
    raised: list[BaseException] = []
    with anyio.fail_after(20):
        async with open_pool(
            BadStart, size=1, min_ready=0, adapter_args=("slow second", mark)
        ) as pool:
            Path(f"{mark}.d").mkdir()  # so that it waits for its release

            async def call(tool: Any) -> None:
                with pytest.raises(SnakepitError) as caught:
                    await pool.execute(tool)
                raised.append(caught.value)

            async def stream() -> None:
                with pytest.raises(InvalidParamsError, match="execute"):
                    async with pool.stream("pid") as items:
                        await anext(items)

            async with anyio.create_task_group() as tasks:
                for tool in ("pidd", "\udcff", 3, "x" * 5 * 2**20):
                    tasks.start_soon(call, tool)
                tasks.start_soon(stream)
                await anyio.wait_all_tasks_blocked()
                assert pool.tools() == {}
                Path(f"{mark}.release").touch()
            assert await pool.execute("pid") == pool.workers()[0].pid
            assert pool.stats().restarts == 0
    assert sorted(type(error).__name__ for error in raised) == [
        "InvalidParamsError",
        *["ToolNotFoundError"] * 3,
    ]


async def test_an_unknown_tool_is_not_found_and_near_ones_are_named(tmp_path: Path) -> None:
    async with unharmed_pool() as pool:
        with pytest.raises(ToolNotFoundError) as caught:
            await pool.execute("typd")
        assert (caught.value.tool, caught.value.near) == ("typd", ("typed",))
        assert "did you mean 'typed'?" in str(caught.value)
        assert isinstance(caught.value, LookupError)
        for hidden in ("initialize", "cleanup", "__init__", "", "snakepit.run_sync"):
            with pytest.raises(ToolNotFoundError):
                await pool.execute(hidden)
        assert pool.stats().requests == 0
    assert lines(tmp_path / "none") == []


async def test_a_worker_that_is_ended_by_its_tool_does_not_take_the_pool_with_it() -> None:
    """The errors above one after the other in one pool, deaths in between."""
    async with tools_pool(size=2) as pool:
        for _ in range(3):
            with pytest.raises(WorkerDiedError):
                await pool.execute("die", {"how": "exit"})
            with pytest.raises(InvalidParamsError):
                await pool.execute("add", {"left": "x"})
            assert await pool.execute("add", {"left": 1}) == 2


async def test_a_tool_that_writes_into_the_wire_costs_its_worker_and_no_more() -> None:
    """What comes is not the protocol: the worker is ended, and the reason is in the error."""
    async with tools_pool(BadTools) as pool:
        [worker] = pool.workers()
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("vandalise")
        assert "broke the protocol" in caught.value.reason
        assert caught.value.worker_id == worker.id
        assert await pool.execute("pid") != worker.pid


async def test_a_tool_that_closes_the_wire_costs_its_worker_and_no_more() -> None:
    async with tools_pool(BadTools) as pool:
        [worker] = pool.workers()
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("close_everything")
        assert caught.value.pid == worker.pid
        assert await pool.execute("pid") != worker.pid
