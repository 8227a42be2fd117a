"""`pool.run_sync`: any function of one's own, run in a worker."""

from __future__ import annotations

import functools
import math
import operator
import sys
from pathlib import Path
from typing import Any

import anyio
import functions
import pytest
from _backends import one_loop_each
from adapters import Tools
from functions import Counter
from pool_kit import ROOT, pids, run_python, run_script, tools_pool, until

from snakepit import SerializationError, SnakepitError, ToolError, WorkerDiedError

pytestmark = one_loop_each

WORKER = [sys.executable, "-m", "snakepit.worker"]


async def test_functions_of_all_kinds_run_in_a_worker() -> None:
    """Module functions, builtins, methods bound and static, partials, classes."""
    async with tools_pool(None) as pool:
        assert await pool.run_sync(functions.pid) == pids(pool)[0]
        assert await pool.run_sync(functions.double, 21) == 42
        assert await pool.run_sync(pow, 2, 10) == 1024
        assert await pool.run_sync(math.hypot, 3, 4) == 5.0
        assert await pool.run_sync(Counter(5).add, 3) == 8
        assert await pool.run_sync(Counter.triple, 3) == 9
        assert await pool.run_sync(Counter.make, 7) == Counter(7)
        assert await pool.run_sync(Counter, 7) == Counter(7)
        assert await pool.run_sync(functools.partial(operator.sub, 10), 3) == 7
        assert await pool.run_sync(str.upper, "a") == "A"
        by_name = functools.partial(functions.capture, func=1, args=2)
        assert await pool.run_sync(by_name, 3) == ((3,), {"func": 1, "args": 2})


async def test_a_pool_with_an_adapter_runs_functions_too() -> None:
    """It is no tool of it: nobody sees it among them, and nobody can call it as one."""
    async with tools_pool(Tools) as pool:
        assert await pool.run_sync(functions.double, 4) == 8
        assert await pool.execute("pid") == await pool.run_sync(functions.pid)
        assert not [name for name in pool.tools() if "run_sync" in name]
    async with tools_pool(None) as pool:
        assert pool.tools() == {}
        with pytest.raises(LookupError):
            await pool.execute("pid")


async def test_values_that_only_pickle_can_carry_come_back() -> None:
    big = bytes(range(256)) * 20_000
    async with tools_pool(None) as pool:
        for value in (Counter(3), {Counter(1): [Counter(2)]}, big, range(5), int, None):
            assert await pool.run_sync(functools.partial(functions.same, value)) == value


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3),
        KeyError("k"),
        FileNotFoundError(2, "gone", "a/file"),
        functions.Custom("mine", 5),
        StopIteration("stop"),
        ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    ],
)
async def test_an_exception_arrives_as_itself_with_the_workers_traceback(error: Exception) -> None:
    """Type, arguments and attributes are those of the original; a note tells where it was."""
    async with tools_pool(None) as pool:
        with pytest.raises(Exception) as caught:
            await pool.run_sync(functions.fail, error)
    raised: BaseException | None = caught.value
    if isinstance(error, StopIteration):  # no coroutine can raise it: Python says RuntimeError
        assert type(raised) is RuntimeError
        raised = raised.__cause__
        assert raised is not None
    assert type(raised) is type(error)
    assert str(raised) == str(error)
    if not isinstance(error, ExceptionGroup):
        assert raised.args == error.args
    assert vars(raised).keys() - {"__notes__"} == vars(error).keys() - {"__notes__"}
    [note] = raised.__notes__
    assert "in a worker of the pool" in note
    assert "functions.py" in note
    assert "in fail" in note
    assert not isinstance(raised, SnakepitError)


async def test_the_cause_of_an_exception_is_in_its_note() -> None:
    async with tools_pool(None) as pool:
        with pytest.raises(functions.Custom) as caught:
            await pool.run_sync(functions.fail_with_cause)
    assert caught.value.number == 3
    assert "KeyError: 'inner'" in caught.value.__notes__[0]
    assert "direct cause" in caught.value.__notes__[0]


async def test_the_causes_of_an_exception_come_with_it() -> None:
    """As far as pickle carries them; what it leaves out is in the note."""
    async with tools_pool(None) as pool:
        with pytest.raises(functions.Custom) as caught:
            await pool.run_sync(functions.fail_with_causes, 2)
        error: BaseException | None = caught.value
        chain = []
        while error is not None:
            chain.append((type(error), error.args))
            error = error.__cause__
        assert chain == [*((functions.Custom, ("level", at)) for at in (2, 1, 0)), (KeyError, (0,))]
        with pytest.raises(functions.Custom) as caught:
            await pool.run_sync(functions.fail_with_an_unpicklable_cause)
        assert caught.value.__cause__ is None
        assert "Unpicklable: inner" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "function",
    [functions.an_async_one, functools.partial(functions.an_async_one), functions.an_async_stream],
)
async def test_an_async_function_is_refused_before_anything_is_sent(function: Any) -> None:
    async with tools_pool(None) as pool:
        with pytest.raises(TypeError, match="is async; only plain functions"):
            await pool.run_sync(function)
        assert pool.stats().requests == 0


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (functions.AsyncCallable(), "it is a coroutine; an async function can be a tool"),
        (functools.partial(functions.count_to, 3), "it is a generator; return a list"),
    ],
)
async def test_a_value_that_is_still_to_be_run_says_so(
    function: Any, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And the worker does not complain that nobody has awaited it."""
    async with tools_pool(None) as pool:
        with caplog.at_level("INFO"), pytest.raises(SerializationError, match=hint):
            await pool.run_sync(function)
    assert "never awaited" not in caplog.text


async def test_an_exception_whose_constructor_wants_other_arguments_arrives_as_itself() -> None:
    """Pickle alone could not rebuild the first, and would rebuild the second as `no no key`."""
    async with tools_pool(None) as pool:
        with pytest.raises(functions.OneWay) as caught:
            await pool.run_sync(functions.fail_one_way)
        assert (str(caught.value), caught.value.only_by_name) == ("given 3", 3)
        with pytest.raises(functions.Missing) as missing:
            await pool.run_sync(functions.miss)
        assert str(missing.value) == "no key"
        with pytest.raises(ExceptionGroup) as group:
            await pool.run_sync(functions.fail_one_way_in_a_group)
        assert group.group_contains(functions.OneWay, match="^given 4$")


@pytest.mark.parametrize(
    ("function", "kind", "name"),
    [
        (functions.fail_unpicklably, LookupError, "functions.Unpicklable"),
        (functions.exit_by_exception, ToolError, "builtins.SystemExit"),
    ],
)
async def test_an_exception_that_pickle_cannot_carry_arrives_as_a_tool_error(
    function: Any, kind: type[Exception], name: str
) -> None:
    """As from a tool: it is the builtin type too; the worker lives."""
    async with tools_pool(None) as pool:
        before = pids(pool)
        with pytest.raises(kind) as caught:
            await pool.run_sync(function)
        assert isinstance(caught.value, ToolError)
        assert caught.value.type == name
        assert "functions.py" in caught.value.traceback
        assert [await pool.run_sync(functions.pid)] == before


async def test_a_value_that_cannot_be_pickled_is_an_error_and_costs_nothing() -> None:
    async with tools_pool(None) as pool:
        before = pids(pool)
        with pytest.raises(SerializationError, match=r"cannot be pickled.*lambda"):
            await pool.run_sync(functions.make_lambda)
        assert [await pool.run_sync(functions.pid)] == before


async def test_an_argument_that_nothing_can_pickle_is_a_serialization_error() -> None:
    async with tools_pool(None) as pool:
        with pytest.raises(SerializationError, match="cannot travel"):
            await pool.run_sync(id, (number for number in ()))
        assert pool.stats().requests == 0


async def test_cloudpickle_carries_lambdas_and_closures() -> None:
    factor = 3
    async with tools_pool(None) as pool:
        assert await pool.run_sync(lambda number: number * factor, 5) == 15

        def local(number: int) -> int:
            return number + factor

        assert await pool.run_sync(local, 5) == 8


async def test_without_cloudpickle_a_lambda_says_what_would_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    async with tools_pool(None) as pool:
        with pytest.raises(SerializationError) as caught:
            await pool.run_sync(lambda: None)
        assert "with cloudpickle installed it could" in str(caught.value)
        assert await pool.run_sync(functions.double, 1) == 2


async def test_a_cancelled_function_is_stopped_and_its_worker_kept(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with tools_pool(None) as pool:
        before = pids(pool)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.run_sync, functions.sleep, str(started))
            await until(started.exists)
            tasks.cancel_scope.cancel()
        assert [await pool.run_sync(functions.pid)] == before


async def test_a_function_that_ends_the_worker_is_a_worker_died_error() -> None:
    async with tools_pool(None) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.run_sync(functions.leave, 5)
        assert caught.value.exit_code == 5
        assert await pool.run_sync(functions.double, 1) == 2


async def test_a_pool_of_foreign_workers_refuses_to_send_pickles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{Path(__file__).parent}")
    async with tools_pool(None, command=[*WORKER, "adapters:Tools"]) as pool:
        with pytest.raises(PermissionError, match="opened with a command"):
            await pool.run_sync(pow, 2, 2)
        assert await pool.execute("add", {"left": 1}) == 2


SCRIPT = """
import os, {loop}, snakepit

class Box:
    def __init__(self, value):
        self.value = value

def unpack(box):
    assert __name__ == "__mp_main__", __name__
    return Box(box.value * 2)

async def main():
    async with snakepit.open_pool(size=1) as pool:
        box = await pool.run_sync(unpack, Box(21))
        print(type(box) is Box, box.value)

{guard}{run}
"""


@pytest.mark.parametrize(
    ("loop", "run"), [("trio", "trio.run(main)"), ("asyncio", "asyncio.run(main())")]
)
def test_functions_and_classes_of_a_guarded_script_work(
    loop: str, run: str, tmp_path: Path
) -> None:
    """The worker imports the script under another name; what comes back is of the script's class."""
    guard = 'if __name__ == "__main__": '
    result = run_script(tmp_path, SCRIPT.format(loop=loop, run=run, guard=guard))
    assert (result.stdout, result.returncode) == ("True 42\n", 0), result.stderr


def test_functions_of_an_unguarded_script_say_what_to_do(tmp_path: Path) -> None:
    result = run_script(tmp_path, SCRIPT.format(loop="trio", run="trio.run(main)", guard=""))
    assert result.returncode == 1
    assert 'if __name__ == "__main__"' in result.stderr
    assert "True" not in result.stdout


TYPED = """
import trio, sys, snakepit
{prepare}
def double(x):
    return 2 * x

async def main():
    async with snakepit.open_pool(size=1) as pool:
        print(await pool.run_sync(double, 21))

trio.run(main)
"""


def test_a_function_typed_into_dash_c_needs_cloudpickle() -> None:
    """With it the function travels by value; without it the error says so."""
    result = run_python("-c", TYPED.format(prepare=""))
    assert (result.stdout, result.returncode) == ("42\n", 0), result.stderr
    result = run_python("-c", TYPED.format(prepare="sys.modules['cloudpickle'] = None"))
    assert result.returncode == 1
    assert "SerializationError" in result.stderr
    assert "put it in a module or a file" in result.stderr


BESIDE = """
import multiprocessing, trio, snakepit

def double(number):
    return 2 * number

async def main():
    async with snakepit.open_pool("beside:Beside", size=1) as pool:
        await pool.run_sync(multiprocessing.cpu_count)
        print(await pool.run_sync(double, 21), await pool.execute("name"))

if __name__ == "__main__":
    trio.run(main)
"""


def test_functions_of_a_script_whose_adapter_is_elsewhere_work(tmp_path: Path) -> None:
    """Also when the worker has imported multiprocessing, which claims the name of main."""
    (tmp_path / "beside.py").write_text(
        "import snakepit\n\nclass Beside:\n    @snakepit.tool\n    def name(self): return 'beside'\n"
    )
    result = run_script(tmp_path, BESIDE)
    assert (result.stdout, result.returncode) == ("42 beside\n", 0), result.stderr
