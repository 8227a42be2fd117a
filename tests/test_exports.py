"""The public face is exactly this, it is lazy, and the rooms behind it import only downwards."""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
from _leaks import unmeasured_env

import snakepit

ROOT = Path(snakepit.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

PUBLIC = [
    "Adapter",
    "BoundPool",
    "CallContext",
    "CallQuarantinedError",
    "CallTimeoutError",
    "Channel",
    "Cleanup",
    "ConfigError",
    "Connect",
    "CrashBarrier",
    "HostToolError",
    "InvalidParamsError",
    "Link",
    "Pool",
    "PoolBrokenError",
    "PoolClosedError",
    "PoolSaturatedError",
    "PoolStats",
    "ProtocolError",
    "Queue",
    "QueueTimeoutError",
    "ReentrancyError",
    "Results",
    "SerializationError",
    "Session",
    "SessionBusyError",
    "SessionLostError",
    "SessionNotFoundError",
    "Sessions",
    "SharedMemoryStats",
    "SnakepitError",
    "Startup",
    "Stop",
    "Stream",
    "SyncBoundPool",
    "SyncPool",
    "SyncSession",
    "ToolCancelled",
    "ToolError",
    "ToolNotFoundError",
    "ToolSpec",
    "Transport",
    "WorkerDiedError",
    "WorkerInfo",
    "WorkerMemoryStats",
    "WorkerStartError",
    "ZeroCopy",
    "cleanup",
    "context",
    "empty",
    "open_pool",
    "open_pool_sync",
    "progress",
    "run",
    "run_pool",
    "tool",
    "trace_context",
]

# Public rooms beside the face: for those who write a transport, and who put it to the checks.
PUBLIC_ROOMS = {
    "transports": [
        "BaseLink",
        "ByteChannel",
        "ByteStream",
        "Channel",
        "Link",
        "MemoryTransport",
        "ShmTransport",
        "StdioTransport",
        "Transport",
        "close_fds",
        "guard_fds",
    ],
    "testing": [
        "FRAMING_CHECKS",
        "LINK_BYTES_MAX",
        "TRANSPORT_CHECKS",
        "BytePeer",
        "CancelPoint",
        "Check",
        "Delay",
        "Die",
        "FakeAdapter",
        "Fault",
        "FaultPlan",
        "Faults",
        "Garbage",
        "MemoryTransport",
        "OpenBytePair",
        "OpenPair",
        "Passage",
        "Peer",
        "SeededFaults",
        "Silence",
        "StuckError",
        "cancel_at_every_checkpoint",
        "crash",
        "fake_adapter",
        "pair_of",
        "run_checks",
        "run_seeded",
        "running",
    ],
}

# A room imports only from rooms on lower floors, and from itself.
FLOORS = {
    "errors": 0,
    "protocol": 1,
    "shm": 1.5,  # both sides speak it, above the protocol
    "grpc": 1.5,  # as shm
    "worker": 2,
    "process": 2,
    "procfs": 1,
    "options": 2,
    "_address": 1,
    "_busy_wait": 1.5,
    "_loops": 1,
    "_progress_bar": 1,
    "_trace_context": 1,
    "transports": 3,
    "launchers": 4,
    "resilience": 4,
    "pool": 5,
    "testing": 6,
    "scripts": 6,
    "__init__": 7,
    "__main__": 7,
}
WORKER_ROOMS = {"_busy_wait", "_trace_context", "errors", "procfs", "protocol", "shm", "worker"}
# Third parties that the worker's side may name. The lazy ones serve where they are installed, and
# are imported where a value needs them.
WORKER_CORE = {"msgspec"}
WORKER_LAZY = {"cloudpickle", "numpy", "pandas", "polars", "pyarrow", "torch"}
LOOPS = {"trio", "asyncio", "anyio"}
LINES_MAX = 400
MODULES_OF_LOOPS = {ROOT / "worker" / "_loop_lanes.py"}
# Imported where gRPC is used, and nowhere else.
MODULES_OF_GRPC = set((ROOT / "worker").glob("_grpc_*.py"))


# -- the public face -------------------------------------------------------------------------------


def test_the_public_names_are_exactly_these() -> None:
    """A name more or less is a decision, made here."""
    assert sorted(snakepit.__all__) == sorted(PUBLIC)
    assert len(set(snakepit.__all__)) == len(snakepit.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported_and_has_a_docstring(name: str) -> None:
    value = getattr(snakepit, name)
    assert value.__name__ == name
    assert value.__doc__


@pytest.mark.parametrize("room", PUBLIC_ROOMS)
def test_the_public_names_of_a_room_are_exactly_these(room: str) -> None:
    names = PUBLIC_ROOMS[room]
    module = importlib.import_module(f"snakepit.{room}")
    assert {name for name in vars(module) if not name.startswith("_")} == set(names)
    for name in names:
        value = getattr(module, name)
        assert value.__doc__ or not isinstance(value, type | FunctionType)


def test_dir_shows_the_public_names_before_any_is_used() -> None:
    shown = run("import snakepit; print(*dir(snakepit))").split()
    assert set(PUBLIC) <= set(shown)
    assert len(shown) == len(set(shown))


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'snakepit' has no attribute 'no_such_name'"):
        getattr(snakepit, "no_such_" + "name")
    with pytest.raises(ImportError, match="no_such_name"):
        importlib.import_module("snakepit.no_such_name")


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING are what the table of homes says."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == snakepit._HOME_OF


# -- laziness --------------------------------------------------------------------------------------


def run(source: str) -> str:
    """What a fresh interpreter prints, in which nothing else has been imported."""
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT.parent)!r})\n{source}",
    ]
    return subprocess.run(
        command, env=unmeasured_env(), check=True, capture_output=True, text=True, timeout=30
    ).stdout


def loaded_after(source: str) -> set[str]:
    return set(run(f"{source}\nprint(*sys.modules)").split())


def test_importing_snakepit_loads_nothing_of_it() -> None:
    loaded = loaded_after("import snakepit")
    assert [name for name in loaded if name.startswith("snakepit.")] == []
    assert loaded.isdisjoint({"anyio", "trio", "asyncio", "attrs", "attr", "msgspec", "psutil"})


def test_the_workers_names_load_the_workers_side_only() -> None:
    loaded = loaded_after("from snakepit import Adapter, ToolCancelled, context, tool")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("snakepit.")}
    assert rooms <= WORKER_ROOMS
    assert "worker" in rooms
    foreign = {"anyio", "trio", "asyncio", "attrs", "attr", "psutil", "numpy", "pyarrow"}
    assert loaded.isdisjoint(foreign)


def test_the_checks_of_transports_load_no_test_framework() -> None:
    loaded = loaded_after("import snakepit.testing")
    assert loaded.isdisjoint({"pytest", "_pytest"})


# -- rooms -----------------------------------------------------------------------------------------


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path, node: ast.AST) -> Iterator[str]:
    """Absolute names of the modules that this one statement may import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parent = [] if node.level == 0 else ["snakepit", *path.relative_to(ROOT).parts]
        base = ".".join([*parent[: -node.level or None], *filter(None, [node.module])])
        if base == "snakepit":  # from snakepit import room
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield base


def all_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        yield from imports(path, node)


def imports_when_loaded(path: Path) -> Iterator[str]:
    """Imports outside functions and outside `if TYPE_CHECKING`: those that loading it runs."""
    waiting: list[ast.AST] = [parsed(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        yield from imports(path, node)
        waiting += ast.iter_child_nodes(node)


def upward(path: Path) -> list[str]:
    """Imports of this file that lead to a room which is not below its own."""
    room = room_of(path)
    wrong = []
    for name in all_imports(path):
        parts = name.split(".")
        if parts[0] != "snakepit" or len(parts) == 1:  # the bare package loads no room
            continue
        target = parts[1] if parts[1] in FLOORS else f"unknown room {parts[1]}"
        if target != room and FLOORS.get(target, 99) >= FLOORS[room]:
            wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    return wrong


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in SOURCES} <= set(FLOORS)
    assert {room_of(path) for path in SOURCES} >= {"errors", "protocol", "worker", "pool"}


@pytest.mark.unmeasured
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_downwards(path: Path) -> None:
    assert upward(path) == []


def test_the_check_of_the_floors_finds_what_is_wrong(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "process").mkdir()
    bad = tmp_path / "process" / "_bad.py"
    bad.write_text(
        "import snakepit, os\nfrom snakepit import pool, errors\nfrom ..worker import x\n"
        "from . import _hold\nfrom ._hold import y\nfrom snakepit.process import z\n"
        "def f():\n    import snakepit.worker._target\n    from snakepit.attic import w\n",
        encoding="utf-8",
    )
    found = sorted(line.rpartition(" ")[2] for line in upward(bad))
    assert found == [
        "snakepit.attic",
        "snakepit.pool",
        "snakepit.worker",
        "snakepit.worker._target",
    ]
    assert "snakepit.worker._target" not in set(imports_when_loaded(bad))


WORKER_SOURCES = [path for path in SOURCES if room_of(path) in WORKER_ROOMS]


@pytest.mark.unmeasured
@pytest.mark.parametrize("path", WORKER_SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_workers_side_needs_the_standard_library_and_msgspec(path: Path) -> None:
    """Loops only where async tools need one, and only once they do."""
    top = {name.split(".")[0] for name in imports_when_loaded(path)}
    if path in MODULES_OF_GRPC:
        top -= {"asyncio", "grpclib"}
    assert top <= set(sys.stdlib_module_names) | WORKER_CORE | {"snakepit"}
    assert top.isdisjoint(LOOPS)
    inside = {name.split(".")[0] for name in all_imports(path)} - top
    if path in MODULES_OF_GRPC:
        inside -= {"asyncio", "grpclib"}
    allowed = set(sys.stdlib_module_names) - LOOPS | WORKER_CORE | WORKER_LAZY | {"snakepit"}
    if path in MODULES_OF_LOOPS:
        allowed |= LOOPS
    assert inside <= allowed


@pytest.mark.unmeasured
def test_nothing_loads_grpc_before_it_is_asked_for() -> None:
    """Its modules name each other when they are loaded; all others name them inside functions."""
    users = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if not path.name.startswith("_grpc") and room_of(path) != "grpc"
        for name in imports_when_loaded(path)
        if name.startswith(("snakepit.grpc", "grpclib", "betterproto2")) or "._grpc" in name
    }
    assert users == set()


@pytest.mark.unmeasured
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_longer_than_one_can_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX
