"""Which event loop a test runs on.

A plain `async def test_...` runs on trio and on asyncio, under anyio's plugin. `@trio_only`,
`@asyncio_only` and `@virtual_time` narrow that; `@pytest.mark.trio` hands the test to pytest-trio.
With `@one_loop_each` the cases of a test, which differ in what the loop knows nothing of, take turns:
each runs on one of the loops.
"""

import inspect
from collections.abc import Generator
from typing import Any

import pytest
import trio.testing
from blockbuster import BlockBuster

LOOPS = ("trio", "asyncio")
LOOP_NAMES = ("anyio_backend", "loop", "tool_backend", "backend")  # the first that a test has

trio_only = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
# Trio under a clock that jumps when all tasks sleep. In-memory links only: a wait for a real
# process looks like sleep to the clock, which then jumps past every timeout.
virtual_time = pytest.mark.parametrize("anyio_backend", ["trio-virtual-time"], indirect=True)

one_loop_each = pytest.mark.one_loop_each

# What may block a loop for long. Reading small files, /proc above all, is not among it.
CHECKED_CALLS = (
    "time.sleep",
    "os.read",
    "os.write",
    "threading.Lock.acquire",
    "socket.socket.connect",
    "socket.socket.accept",
    "socket.socket.send",
    "socket.socket.sendall",
    "socket.socket.recv",
    "socket.socket.recv_into",
    "socket.socket.recvmsg",
    "builtins.input",
)


@pytest.fixture(scope="module", params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "trio-virtual-time":
        return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})
    return (request.param, {})


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> None:
    """Give every coroutine test to anyio, save those that pytest-trio was asked to run."""
    if not collector.istestfunction(obj, name):
        return
    inner = obj.hypothesis.inner_test if hasattr(obj, "hypothesis") else obj
    if not inspect.iscoroutinefunction(inner):
        return
    marks = {mark.name for mark in getattr(obj, "pytestmark", ())}
    if "trio" not in marks and collector.get_closest_marker("trio") is None:
        pytest.mark.usefixtures("anyio_backend")(obj)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the cases of `one_loop_each` take turns."""
    cases: dict[object, dict[str, pytest.Item]] = {}
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        loop = next((params[name] for name in LOOP_NAMES if name in params), None)
        if loop in LOOPS and item.get_closest_marker("one_loop_each") is not None:
            case = (item.path, item.originalname, item.callspec.id.replace(loop, "", 1))
            cases.setdefault(case, {})[loop] = item
    left = set()
    # Those that run on one loop alone do so, whoever's turn it is.
    for number, loops in enumerate(loops for loops in cases.values() if len(loops) == len(LOOPS)):
        left.add(loops[LOOPS[(number + 1) % len(LOOPS)]])
    if left:
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Generator[None]:
    """On asyncio, a call from snakepit that blocks the loop raises BlockingError."""
    if request.node.get_closest_marker("blocking_ok") is not None:
        yield
        return
    guard = BlockBuster("snakepit")
    guard.functions = {name: guard.functions[name] for name in CHECKED_CALLS}
    for function in guard.functions.values():
        # Popen waits for the child's exec, which is bounded by the kernel alone.
        function.can_block_in("subprocess.py", "_execute_child")
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()
