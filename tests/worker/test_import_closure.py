"""A worker imports little: none of the host's libraries, and nothing but msgspec is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import anyio
import bare_adapter
import pytest
from _leaks import unmeasured_env
from _venvs import HOSTS, make_venv
from worker_kit import ROOT, Worker

import snakepit
from snakepit.process import _guardian
from snakepit.protocol import End
from snakepit.shm import can_share

FOREIGN = {
    "trio",
    "anyio",
    "asyncio",
    "psutil",
    "attr",
    "attrs",
    "numpy",
    "grpclib",
    "betterproto2",
    "pyarrow",
    "pandas",
    "polars",
    "cloudpickle",
}
# The host's rooms. A worker needs errors, protocol and worker.
HOST_ROOMS = {"snakepit.pool", "snakepit.process", "snakepit.transports", "snakepit.options"}

# 126 on CPython 3.11; many more are a sign that something large has crept in.
MODULES_MAX = 160
# Where memory is shared, and nothing large has come yet.
SHARING_MODULES_MAX = 170


def strangers(modules: list[str]) -> set[str]:
    """Which of these a worker must not import by itself."""
    return (FOREIGN & {name.partition(".")[0] for name in modules}) | (HOST_ROOMS & set(modules))


def modules_after(statement: str, **env: str) -> list[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**unmeasured_env(), "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.split()


@pytest.fixture(scope="module")
def bare_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this package and msgspec, as `pip install --no-deps` leaves it."""
    return make_venv(tmp_path_factory.mktemp("venv"), {"snakepit", "msgspec"})


def test_the_check_finds_what_it_looks_for() -> None:
    """Else an empty answer would prove nothing."""
    assert strangers(modules_after("import snakepit; snakepit.open_pool")) >= {
        "anyio",
        "attr",
        "snakepit.pool",
    }


@pytest.mark.parametrize(
    "statement",
    [
        "import snakepit",
        "from snakepit import Adapter, tool, context",
        "import snakepit.worker.__main__",
        "import snakepit.errors, snakepit.protocol",
    ],
)
def test_importing_the_workers_side_imports_none_of_the_hosts(statement: str) -> None:
    assert strangers(modules_after(statement)) == set()


def test_importing_snakepit_alone_imports_next_to_nothing() -> None:
    """The face is lazy: it costs what it is asked for, and `typing`."""
    added = set(modules_after("import snakepit")) - set(modules_after("import typing"))
    assert added <= {"snakepit", "__future__"}


def test_the_guardian_imports_a_few_modules_and_none_that_are_slow() -> None:
    """It starts beside each first worker."""
    program = _guardian._PROGRAM.format(root=str(ROOT / "snakepit"))
    shown = program.replace("main(sys.argv[1:])", "print(*sys.modules)")
    assert shown != program
    argv = [sys.executable, "-I", "-S", "-c", shown]
    run = subprocess.run(argv, capture_output=True, text=True, check=True)
    modules = set(run.stdout.split())
    assert "snakepit.procfs._marks" in modules
    assert {"signal", "enum", "collections", "typing", "re", "threading"}.isdisjoint(modules)


def test_a_live_worker_with_a_bare_adapter_has_loaded_none_of_the_hosts() -> None:
    """After a call, a failure, an unknown tool and a stream."""
    env = {**unmeasured_env(), "PYTHONPATH": str(ROOT)}
    with Worker("bare_adapter:Bare", env=env) as worker:
        assert worker.call("add", {"a": 2, "b": 3}) == 5
        assert worker.fail("add", {"a": 2}).kind == "params"
        assert worker.fail("ad", {"a": 2}).kind == "not_found"
        call = worker.begin("numbers", {"stop": 2}, window=2)
        assert worker.items_of(call, 2) == [0, 1]
        assert worker.receive() == End(call)
        modules = worker.call("modules")
        assert "snakepit.worker._service" in modules
        assert strangers(modules) == set()
        # msgspec would load the first of these, and that the other; adapters still can.
        assert {"typing_extensions", "inspect"}.isdisjoint(modules)
        assert worker.call("import_one", {"name": "typing_extensions"}) == "typing_extensions"
        is_enabled, frozen = worker.call("collector")
        assert is_enabled
        assert frozen > 10_000  # what was imported is not looked through for garbage


def test_an_async_tool_brings_its_loop_and_no_other() -> None:
    for tool_backend, other in (("asyncio", "trio"), ("trio", "asyncio")):
        with Worker(
            "bare_adapter:BareAsync",
            tool_backend=tool_backend,
            env={**unmeasured_env(), "PYTHONPATH": str(ROOT)},
        ) as worker:
            roots = {name.partition(".")[0] for name in worker.call("modules")}
            assert tool_backend in roots
            assert "anyio" not in roots
            if other == "trio":
                assert other not in roots


# -- an environment with nothing else in it --------------------------------------------------------


def test_the_bare_environment_is_bare(bare_venv: Path) -> None:
    code = (
        "import importlib.util, json\n"
        f"names = {sorted(FOREIGN | {'msgspec', 'snakepit'})!r}\n"
        "print(json.dumps([n for n in names if importlib.util.find_spec(n)]))"
    )
    run = subprocess.run(
        [str(bare_venv / "bin" / "python"), "-P", "-c", code],
        env=unmeasured_env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == ["asyncio", "msgspec", "snakepit"]


def test_a_worker_there_is_small(bare_venv: Path) -> None:
    """Every import is paid for by each start of each worker."""
    argv = (str(bare_venv / "bin" / "python"), "-P", "-m", "snakepit.worker")
    with Worker("bare_adapter:Bare", argv=argv, env=unmeasured_env()) as worker:
        modules = worker.call("modules")
        assert len(modules) < MODULES_MAX, modules
        assert {"inspect", "logging", "subprocess", "socket", "pickle"}.isdisjoint(modules)


@pytest.mark.parametrize("how", ["python=", "SNAKEPIT_PYTHON"])
async def test_a_worker_in_a_bare_environment_serves_a_pool(
    bare_venv: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls, streams, failures and run_sync work there; the interpreter is that one."""
    python = str(bare_venv / "bin" / "python")
    if how == "SNAKEPIT_PYTHON":
        monkeypatch.setenv("SNAKEPIT_PYTHON", python)
    with anyio.fail_after(30):
        async with snakepit.open_pool(
            bare_adapter.Bare, size=1, python=python if how == "python=" else None
        ) as pool:
            modules = await pool.execute("modules")
            assert len(modules) < SHARING_MODULES_MAX, modules
            assert {"ctypes", "snakepit.shm._endpoint"}.isdisjoint(modules)  # they come when needed
            assert {"inspect", "logging", "socket", "random"}.isdisjoint(modules)
            prefix, package = await pool.execute("prefix")
            assert Path(prefix) == bare_venv
            assert bare_venv in Path(package).parents
            assert await pool.execute("add", {"a": 2, "b": 3}) == 5
            async with pool.stream("numbers", {"stop": 3}) as numbers:
                assert [number async for number in numbers] == [0, 1, 2]
            with pytest.raises(snakepit.InvalidParamsError):
                await pool.execute("add", {"a": 2})
            assert await pool.run_sync(abs, -4) == 4
            if can_share():  # without NumPy, too
                assert [worker.transport for worker in pool.workers()] == ["shm"]
                buffer = pool.buffer(2**21)
                buffer[:] = bytes(range(256)) * 2**13
                assert await pool.execute("echo", {"value": buffer}) == buffer
                shared = pool.stats().shared_memory
                assert shared is not None
                assert (shared.references, shared.copied_bytes) == (1, 0)
            assert strangers(await pool.execute("modules")) == set()


async def test_python_counts_more_than_the_environment_variable(
    bare_venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNAKEPIT_PYTHON", str(bare_venv / "bin" / "python"))
    with anyio.fail_after(30):
        async with snakepit.open_pool(bare_adapter.Bare, size=1, python=sys.executable) as pool:
            prefix, _ = await pool.execute("prefix")
            assert prefix == sys.prefix


# -- gRPC, which is an extra -----------------------------------------------------------------------

INSTALL = "pip install 'snakepit-pool[grpc]'"
WITHOUT_GRPC = """
import anyio, snakepit

async def main():
    async with snakepit.open_pool(size=1) as pool:
        print(await pool.run_sync(abs, -4))
    try:
        async with snakepit.open_pool(size=1, transport="grpc"):
            pass
    except snakepit.ConfigError as error:
        print(error)

if __name__ == "__main__":
    anyio.run(main)
"""


async def test_a_worker_over_grpc_brings_what_that_needs_and_no_more() -> None:
    with anyio.fail_after(30):
        async with snakepit.open_pool(bare_adapter.Bare, size=1, transport="grpc") as pool:
            modules = await pool.execute("modules")
    assert strangers(modules) == {"asyncio", "grpclib"}
    assert {"h2.connection", "snakepit.grpc._codec"} <= set(modules)
    assert not any(name.startswith("snakepit.grpc._generated") for name in modules)


def test_a_host_without_the_extra_says_what_to_install_and_needs_it_for_nothing_else(
    tmp_path: Path,
) -> None:
    """In an environment that has all that the package itself requires."""
    python = str(make_venv(tmp_path / "venv", {"snakepit", "msgspec"} | HOSTS) / "bin" / "python")
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_GRPC, encoding="utf-8")
    run = subprocess.run(
        [python, "-P", str(script)],
        env=unmeasured_env(),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    value, _, error = run.stdout.partition("\n")
    assert value == "4", run.stderr
    assert INSTALL in error
    assert "no grpclib here" in error


async def test_a_worker_without_the_extra_says_what_to_install(bare_venv: Path) -> None:
    """Behind a pool that has it, and by itself."""
    python = str(bare_venv / "bin" / "python")
    options = {"size": 1, "python": python, "transport": "grpc"}
    with anyio.fail_after(30), pytest.raises(snakepit.WorkerStartError, match=re.escape(INSTALL)):
        async with snakepit.open_pool(bare_adapter.Bare, **options):
            pass
    arguments = ["--adapter", "bare_adapter:Bare", "--listen", "unix:/no/such"]
    run = await anyio.run_process(
        [python, "-P", "-m", "snakepit.worker", *arguments], env=unmeasured_env(), check=False
    )
    assert run.returncode == 2
    assert INSTALL in run.stderr.decode()
