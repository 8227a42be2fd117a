"""`open_pool_sync`: the pool for blocking code."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _backends import one_loop_each

import snakepit
from snakepit import Adapter, ConfigError, SyncPool, context, tool

pytestmark = one_loop_each


class Simple(Adapter):
    @tool
    def remember(self, value: Any) -> list[Any]:
        told: list[Any] = context().session.setdefault("told", [])
        told.append(value)
        return told

    @tool
    def recite(self) -> Iterator[Any]:
        yield from context().session["told"]

    @tool
    def double(self, number: int) -> int:
        return 2 * number

    @tool
    def ask(self, name: str) -> Any:
        return context().call_host(name)

    @tool
    def fail(self) -> None:
        raise FileNotFoundError(2, "gone", "model.bin")

    @tool
    def count(self, start: int, closed_path: str) -> Iterator[int]:
        try:
            yield from range(start, 10**9)
        finally:
            Path(closed_path).write_text("closed")

    @tool
    def sleep(self) -> None:
        time.sleep(600)

    @tool
    def steps(self, count: int, stopped_path: str = os.devnull, stay: bool = False) -> str:
        try:
            for number in range(1, count + 1):
                context().progress(number, count)
            if stay:
                time.sleep(600)
        finally:
            Path(stopped_path).write_text("stopped")
        return "all done"


@pytest.fixture(params=["trio", "asyncio"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pool(backend: str) -> Iterator[SyncPool]:
    with snakepit.open_pool_sync(Simple, size=2, backend=backend) as pool:
        yield pool


def test_blocking_code_calls_tools_and_functions(pool: SyncPool) -> None:
    """execute, run_sync and the views do what they do for async callers."""
    pool.ready()
    assert pool.execute("double", {"number": 21}) == 42
    assert pool.run_sync(divmod, 7, 2) == (3, 1)
    assert {"double", "fail", "count", "sleep", "steps"} < set(pool.tools())
    assert pool.stats().requests == 2
    assert {worker.state for worker in pool.workers()} == {"ready"}


def test_errors_reach_blocking_code_with_their_type(pool: SyncPool) -> None:
    """The error is raised in the calling thread."""
    with pytest.raises(FileNotFoundError) as caught:
        pool.execute("fail")
    assert caught.value.filename == "model.bin"
    with pytest.raises(snakepit.CallTimeoutError):
        pool.execute("sleep", timeout=0.2)


def test_a_stream_left_early_has_closed_its_generator(pool: SyncPool, tmp_path: Path) -> None:
    """The generator's `finally` has run when the block is left."""
    closed = tmp_path / "closed"
    with pool.stream("count", {"start": 5, "closed_path": str(closed)}) as numbers:
        assert [next(numbers), next(numbers)] == [5, 6]
        assert not closed.exists()
    assert closed.read_text() == "closed"


def test_map_takes_an_endless_input_in_threads_and_closes_it(pool: SyncPool) -> None:
    """The input may block, and use the pool; leaving early closes it."""
    taken = closed = 0

    def items() -> Iterator[dict[str, Any]]:
        nonlocal taken, closed
        try:
            while True:
                assert threading.get_ident() != caller
                taken += 1
                yield {"number": pool.execute("double", {"number": taken})}
        finally:
            closed += 1

    caller = threading.get_ident()
    with pool.map("double", items(), limit=3) as results:
        assert [next(results) for _ in range(10)] == [4 * number for number in range(1, 11)]
        assert taken <= 13
    assert closed == 1
    with pool.map("double", [{"number": 1}] * 3, ordered=False, timeout=20) as results:
        assert list(results) == [2, 2, 2]


def test_errors_of_map_reach_blocking_code_as_themselves(pool: SyncPool) -> None:
    def failing() -> Iterator[Any]:
        yield {"number": 1}
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"), pool.map("double", failing()) as results:
        list(results)
    with pool.map("double", failing(), on_error="return") as results:
        assert next(results) == 2
        with pytest.raises(LookupError, match="mine"):
            next(results)
    with pytest.raises(FileNotFoundError), pool.map("fail", [{}]) as results:
        next(results)
    with pytest.raises(ZeroDivisionError), pool.map("sleep", [{}] * 5):
        raise ZeroDivisionError


def test_map_over_what_blocking_code_cannot_iterate_is_refused(pool: SyncPool) -> None:
    async def waiting() -> AsyncIterator[Any]:
        yield {}

    wrong: Any
    for wrong in (waiting(), {"number": 1}, None):
        with pytest.raises(TypeError, match="map"), pool.map("double", wrong):
            pytest.fail("the block was entered")


def test_progress_is_shown_in_the_calling_thread_which_may_use_the_pool(pool: SyncPool) -> None:
    """In order, to the last update, before the value comes back."""
    pool.ready()
    shown: list[float] = []

    def show(done: float, total: float | None, message: str | None) -> None:
        assert threading.get_ident() == caller
        assert (total, message) == (100, None)
        assert pool.execute("double", {"number": 21}) == 42
        shown.append(done)

    caller = threading.get_ident()
    assert pool.execute("steps", {"count": 100}, on_progress=show) == "all done"
    assert shown == sorted(shown)
    assert shown[-1] == 100


def test_an_error_in_on_progress_stops_the_tool_and_is_raised_as_itself(
    pool: SyncPool, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    error = ZeroDivisionError("mine")

    def fail(*_: object) -> None:
        assert not stopped.exists()
        raise error

    params = {"count": 1, "stopped_path": str(stopped), "stay": True}
    with pytest.raises(ZeroDivisionError) as caught:
        pool.execute("steps", params, on_progress=fail)
    assert caught.value is error
    assert stopped.read_text() == "stopped"
    assert pool.execute("double", {"number": 1}) == 2


def test_a_call_whose_time_is_up_has_stopped_although_an_update_is_being_shown(
    pool: SyncPool, tmp_path: Path
) -> None:
    """The function is let come to its end; then the error is raised."""
    stopped = tmp_path / "stopped"
    ended = []

    def wait(*_: object) -> None:
        while not stopped.exists():
            time.sleep(0.01)
        ended.append(True)

    params = {"count": 1, "stopped_path": str(stopped), "stay": True}
    with pytest.raises(snakepit.CallTimeoutError):
        pool.execute("steps", params, timeout=0.2, on_progress=wait)
    assert ended == [True]


async def an_async_one(*_: object) -> None:
    """What blocking code cannot call."""


@pytest.mark.parametrize("wrong", ["print", an_async_one])
def test_what_blocking_code_cannot_call_is_refused_at_once(pool: SyncPool, wrong: Any) -> None:
    with pytest.raises(TypeError, match="on_progress must be a"):
        pool.execute("steps", {"count": 1}, on_progress=wrong)
    assert pool.stats().requests == 0


def test_threads_share_one_pool(pool: SyncPool) -> None:
    """Calls from several threads each get their own answer."""
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        answers[number] = pool.execute("double", {"number": number})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: 2 * number for number in range(8)}


def test_the_workers_are_gone_after_the_block() -> None:
    """No process is left, also when the block is left by an exception."""
    pids: list[int] = []
    with (
        pytest.raises(ZeroDivisionError),
        snakepit.open_pool_sync(Simple, size=2, min_ready=2) as pool,
    ):
        pids += [worker.pid for worker in pool.workers() if worker.pid is not None]
        raise ZeroDivisionError
    assert len(pids) == 2
    for use in (pool.stats, pool.workers, pool.tools, pool.ready, lambda: pool.execute("double")):
        with pytest.raises(snakepit.PoolClosedError):
            use()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_ctrl_c_stops_the_call_and_leaves_no_process(tmp_path: Path) -> None:
    """SIGINT in a blocking call is a KeyboardInterrupt there; the tool has stopped by then."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(snakepit.__file__).parents[1])},
    )
    with process:
        assert process.stdout is not None
        worker_pid = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\nstopped\n"
        assert process.wait(timeout=20) == 0
    assert not os.path.exists(f"/proc/{worker_pid}")


INTERRUPTED = """
import os, sys, time
import snakepit
from snakepit import tool

@tool
def sleep(path: str):
    try:
        print(os.getpid(), file=open(path, "w"), flush=True)
        time.sleep(600)
    finally:
        os.unlink(path)

if __name__ == "__main__":
    import threading
    path = os.path.abspath("running")

    def tell():
        while not os.path.exists(path) or not open(path).read().endswith("\\n"):
            time.sleep(0.01)
        print(open(path).read().strip(), flush=True)

    threading.Thread(target=tell, daemon=True).start()
    with snakepit.open_pool_sync(sys.modules[__name__], size=1) as pool:
        try:
            pool.execute("sleep", {"path": path})
        except KeyboardInterrupt:
            print("interrupted")
            print("running" if os.path.exists(path) else "stopped")
"""


def test_sessions_keep_their_state_for_blocking_code(pool: SyncPool) -> None:
    """Blocks, and ids on demand; each does what its namesake does."""
    with pool.session("user_42") as session:
        assert (session.id, session.worker_id) == ("user_42", None)
        assert session.execute("remember", {"value": 1}) == [1]
        assert session.execute("remember", {"value": 2}) == [1, 2]
        assert pool.execute("remember", {"value": 3}, session=session) == [1, 2, 3]
        with session.stream("recite") as told:
            assert list(told) == [1, 2, 3]
        assert session.worker_id in [worker.id for worker in pool.workers()]
        session.metadata["user"] = 42
        assert session.metadata == {"user": 42}
        assert "user_42" in repr(session)
    with pytest.raises(snakepit.SessionNotFoundError):
        session.execute("remember", {"value": 4})
    assert pool.execute("remember", {"value": 5}, session="user_42") == [5]
    with pool.stream("recite", session="user_42") as told:
        assert list(told) == [5]
    pool.end_session("user_42")
    assert pool.execute("remember", {"value": 6}, session="user_42") == [6]


def test_typed_calls_and_sessions_map_for_blocking_code(pool: SyncPool, tmp_path: Path) -> None:
    assert pool.call(Simple.double, 4) == 8
    assert pool.call(Simple.double, number=5) == 10
    with pytest.raises(FileNotFoundError):
        pool.call(Simple.fail)
    with pytest.raises(TypeError, match="no tool"):
        pool.call(len, "abc")
    with pool.call_stream(Simple.count, 7, closed_path=str(tmp_path / "closed")) as numbers:
        assert next(numbers) == 7
    assert (tmp_path / "closed").exists()
    with pool.session() as session:
        assert session.call(Simple.remember, 1) == [1]
        with session.map("remember", [{"value": 2}, {"value": 3}]) as told:
            assert list(told) == [[1, 2], [1, 2, 3]]
        with session.call_stream(Simple.recite) as items:
            assert list(items) == [1, 2, 3]


def test_bind_gives_a_view_whose_calls_have_its_options(pool: SyncPool) -> None:
    view = pool.bind(timeout=15, session="bound", idempotent=True)
    assert view.execute("remember", {"value": 1}) == [1]
    assert view.call(Simple.remember, 2) == [1, 2]
    numbers = ({"number": number} for number in range(3))
    with view.map("double", numbers, limit=1) as results:  # several at once may move the session
        assert list(results) == [0, 2, 4]
    with view.stream("recite", window=1) as told:
        assert list(told) == [1, 2]
    with view.call_stream(Simple.recite) as told:
        assert list(told) == [1, 2]
    pool.end_session("bound")
    with pytest.raises(TimeoutError):
        pool.bind(timeout=0.3).execute("sleep")
    with pytest.raises(ConfigError):
        pool.bind(timeout=-1)
    assert "timeout=15" in repr(view)
    here = threading.get_ident()
    shown: list[tuple[int, float]] = []
    telling = pool.bind(on_progress=lambda done, *_: shown.append((threading.get_ident(), done)))
    telling.execute("steps", {"count": 3})
    assert shown[-1] == (here, 3)
    with pytest.raises(TypeError, match="on_progress"), telling.map("double", []):
        pytest.fail("no map has been opened")


def test_a_host_tool_that_would_wait_for_its_own_loop_is_told_so(pool: SyncPool) -> None:
    """It would block the loop that has to do what it waits for."""
    said: list[str] = []

    def call_back() -> None:
        for use in (pool.stats, lambda: pool.execute("double", {"number": 1})):
            with pytest.raises(RuntimeError, match="host tool async") as caught:
                use()
            said.append(str(caught.value))

    name = f"call_back_{id(said)}"
    pool.add_host_tool(call_back, name=name)
    pool.execute("ask", {"name": name})
    assert len(said) == 2


@pytest.mark.parametrize("when", ["before", "soon after", "after"])
def test_an_interrupt_at_any_moment_leaves_no_call(
    pool: SyncPool, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the loop has just been told what to do, and nobody knows yet whether it does it."""
    start = pool._portal.start_task_soon

    def interrupted(function: Any) -> Any:
        patch.undo()
        if when != "before":
            start(function)
        while when == "after" and not pool._pool._core.requests > requests:
            time.sleep(0.001)
        raise KeyboardInterrupt

    requests, workers = pool.stats().requests, pool.workers()
    with monkeypatch.context() as patch:
        patch.setattr(pool._portal, "start_task_soon", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.execute("sleep")
    assert (pool.stats().busy, pool.stats().queued) == (0, 0)
    assert [one.id for one in pool.workers()] == [one.id for one in workers]
