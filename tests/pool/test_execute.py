"""The plain call: every form of adapter, every kind of tool, one value back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import module_tools
import pytest
from adapters import AsyncTools, Lifecycle, Tools
from pool_kit import ROOT, lines, pids, tools_pool

from snakepit import (
    ConfigError,
    ToolNotFoundError,
    open_pool,
)

MODULE = """
from snakepit import tool, Adapter
import beside

@tool
def shout(text: str) -> str:
    "Make it loud."
    return text.upper() + beside.MARK

class Inner(Adapter):
    @tool(name="whisper")
    def anything(self, text: str) -> str:
        return text.lower() + beside.MARK
"""


@pytest.fixture
def adapter_file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("MARK = '!'\n", encoding="utf-8")
    file = tmp_path / "voices.py"
    file.write_text(MODULE, encoding="utf-8")
    return file


async def test_every_form_of_adapter_is_found(
    adapter_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class, module, their names, files, and a class in a file; what lies beside them too."""
    async with tools_pool("adapters:Tools") as pool:
        assert await pool.execute("add", {"left": 1, "right": 2}) == 3
    async with tools_pool(Tools) as pool:
        assert await pool.execute("add", {"left": 1, "right": 2}) == 3
    for spec in (f"{adapter_file}", os.path.relpath(adapter_file)):
        async with tools_pool(spec) as pool:
            assert await pool.execute("shout", {"text": "a"}) == "A!"
    async with tools_pool(f"{adapter_file}:Inner") as pool:
        assert await pool.execute("whisper", {"text": "A"}) == "a!"
        with pytest.raises(ToolNotFoundError):
            await pool.execute("anything", {"text": "A"})
    monkeypatch.syspath_prepend(str(adapter_file.parent))
    async with tools_pool("voices") as pool:
        assert await pool.execute("shout", {"text": "a"}) == "A!"
    async with tools_pool("voices:Inner") as pool:
        assert await pool.execute("whisper", {"text": "A"}) == "a!"


async def test_a_module_object_serves_its_functions() -> None:
    async with tools_pool(module_tools) as pool:
        assert await pool.execute("twice", {"number": 4}) == 8
        assert set(pool.tools()) == {"twice"}


async def test_arguments_and_values_by_name_and_default() -> None:
    async with tools_pool() as pool:
        assert await pool.execute("echo") is None
        assert await pool.execute("echo", {}) is None
        assert await pool.execute("echo", {"value": (1, {2})}) == (1, {2})
        assert await pool.execute("add", {"left": 1}) == 2
        assert await pool.execute("add", {"right": 5, "left": 1}) == 6


async def test_params_are_not_kept_and_not_changed() -> None:
    """They may be changed as soon as the call has been made; any mapping will do."""
    from collections import ChainMap, UserDict

    async with tools_pool() as pool:
        value = [1, 2, 3]
        results: list[object] = []

        async def call() -> None:
            results.append(await pool.execute("echo", {"value": value}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            value.clear()
        assert results == [[1, 2, 3]]
        assert await pool.execute("add", UserDict(left=1, right=1)) == 2
        assert await pool.execute("add", ChainMap({"left": 1}, {"right": 3})) == 4


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_async_tools_run_on_the_loop_that_was_asked_for(backend: str, tmp_path: Path) -> None:
    """An async `initialize` has run before; sync tools of the same adapter run too."""
    async with tools_pool(AsyncTools, tool_backend=backend) as pool:
        assert await pool.execute("echo", {"value": backend}) == backend
        assert [await pool.execute("pid")] == pids(pool)
        log = tmp_path / "log"
        params = {"stop": 3, "log": str(log), "backend": backend}
        async with pool.stream("count", params) as items:
            assert [item async for item in items] == [0, 1, 2]


async def test_initialize_runs_once_per_worker_and_before_the_first_call(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with tools_pool(Lifecycle, size=3, adapter_args=(str(log),)) as pool:
        for _ in range(6):
            await pool.execute("pid")
        assert sorted(lines(log)) == sorted(f"initialize {pid}" for pid in pids(pool))


async def test_environment_and_directory_of_the_workers(tmp_path: Path) -> None:
    """`env` is added to ours, `cwd` is theirs; numeric libraries share the CPUs by default."""
    env = {"SNAKEPIT_TEST": "ä", "MKL_NUM_THREADS": "7"}
    async with tools_pool(None, env=env, cwd=tmp_path) as pool:
        assert await pool.run_sync(os.getcwd) == str(tmp_path.resolve())
        assert await pool.run_sync(os.getenv, "SNAKEPIT_TEST") == "ä"
        assert await pool.run_sync(os.getenv, "MKL_NUM_THREADS") == "7"
        assert await pool.run_sync(os.getenv, "PATH") == os.environ["PATH"]
        threads = await pool.run_sync(os.getenv, "OMP_NUM_THREADS")
        assert threads == os.environ.get("OMP_NUM_THREADS", threads)
        # So that setproctitle does not write over the mark of the process.
        assert await pool.run_sync(os.getenv, "SPT_NOENV") == "1"
        assert int(threads) >= 1


async def test_the_number_of_workers_follows_the_cpus_one_may_use() -> None:
    with anyio.fail_after(20):
        async with open_pool(Tools) as pool:
            await pool.ready()
            assert 1 <= len(pool.workers()) <= (os.cpu_count() or 1)


async def test_another_interpreter_by_option_and_by_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own path, here a link to ours, is what runs; the option goes before the environment."""
    by_option, by_variable = tmp_path / "by-option", tmp_path / "by-variable"
    for wrapper in (by_option, by_variable):
        wrapper.write_text(
            f'#!/bin/sh\nexport RAN_BY="{wrapper.name}"\nexec "{sys.executable}" "$@"\n',
            encoding="utf-8",
        )
        wrapper.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SNAKEPIT_PYTHON", str(by_variable))
    async with tools_pool(None) as pool:
        assert await pool.run_sync(os.getenv, "RAN_BY") == "by-variable"
    async with tools_pool(None, python=by_option) as pool:
        assert await pool.run_sync(os.getenv, "RAN_BY") == "by-option"


async def test_execute_is_a_checkpoint_and_other_tasks_go_on(tmp_path: Path) -> None:
    turns = 0
    async with tools_pool() as pool, anyio.create_task_group() as tasks:

        async def neighbour() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.sleep(0.005)

        tasks.start_soon(neighbour)
        await pool.execute("sleep", {"started": os.devnull, "seconds": 0.2})
        tasks.cancel_scope.cancel()
    assert turns > 5


async def test_workers_stay_the_same_over_many_calls() -> None:
    async with tools_pool(size=2) as pool:
        before = pids(pool)
        for number in range(200):
            assert await pool.execute("add", {"left": number}) == number + 1
        assert pids(pool) == before


async def test_workers_work_side_by_side(tmp_path: Path) -> None:
    """Two calls that each wait for the other's file: only two processes can end them."""
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    found: set[int] = set()
    async with tools_pool(size=2) as pool:

        async def hold(mine: str, other: str) -> None:
            found.add(await pool.execute("hold", {"started": mine, "release": other}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, first, second)
            tasks.start_soon(hold, second, first)
        assert found == set(pids(pool))


def test_nothing_heavy_is_imported_by_a_worker_of_a_small_adapter(adapter_file: Path) -> None:
    """What a call of it needs is not more than the worker's own modules and msgspec."""
    code = """
import trio, snakepit, sys
async def main():
    async with snakepit.open_pool(size=1) as pool:
        names = await pool.run_sync(eval, "sorted(__import__('sys').modules)")
        print(*[n for n in names if n.partition('.')[0] in {"trio", "anyio", "asyncio", "attr",
            "attrs", "numpy", "psutil", "pyarrow"}])
trio.run(main)
"""
    from _leaks import unmeasured_env

    result = subprocess.run(
        [sys.executable, "-c", code],
        env=unmeasured_env() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert result.stdout == "\n"


async def test_a_pool_is_not_made_by_hand() -> None:
    """Without its block nothing has started: an option's mistake is found on entering."""
    manager = open_pool(Tools, size=0)
    with pytest.raises(ConfigError):
        await manager.__aenter__()
