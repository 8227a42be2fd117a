"""`open_pool_sync`: the pool for blocking code."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import snakepit
from snakepit import Adapter, SyncPool, tool


class Simple(Adapter):
    @tool
    def double(self, number: int) -> int:
        return 2 * number

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


@pytest.fixture(params=["trio", "asyncio"])
def pool(request: pytest.FixtureRequest) -> Iterator[SyncPool]:
    with snakepit.open_pool_sync(Simple, size=2, backend=request.param) as pool:
        yield pool


def test_blocking_code_calls_tools_and_functions(pool: SyncPool) -> None:
    """execute, run_sync and the views do what they do for async callers."""
    pool.ready()
    assert pool.execute("double", {"number": 21}) == 42
    assert pool.run_sync(divmod, 7, 2) == (3, 1)
    assert set(pool.tools()) == {"double", "fail", "count", "sleep"}
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
