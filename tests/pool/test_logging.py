"""What workers say, and what the pool says of them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from _backends import one_loop_each
from adapters import BadTools, Tools
from pool_kit import ROOT, pids, tools_pool, until

from snakepit import ToolSpec, WorkerDiedError, WorkerInfo

pytestmark = one_loop_each

WORKER = [sys.executable, "-m", "snakepit.worker"]


def said(caplog: pytest.LogCaptureFixture, name: str = "snakepit.worker") -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == name]


async def test_what_a_tool_prints_is_logged_line_by_line_with_its_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """print, stderr, a child and a bare fd alike, in their order; the record has the worker's id."""
    caplog.set_level("INFO", "snakepit.worker")
    async with tools_pool(BadTools, size=2, name="talk") as pool:
        await pool.execute("say", {"text": "hello"})
        await until(lambda: len(said(caplog)) == 4)
        speakers = {worker.id for worker in pool.workers() if worker.requests == 1}
    [speaker] = speakers
    assert said(caplog) == [
        f"{speaker}: print hello",
        f"{speaker}: stderr hello",
        f"{speaker}: child hello",
        f"{speaker}: fd hello",
    ]
    records = [record for record in caplog.records if record.name == "snakepit.worker"]
    assert {record.worker_id for record in records} == speakers  # type: ignore[attr-defined]
    assert {record.levelno for record in records} == {logging.INFO}


async def test_any_bytes_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No UTF-8, no newline at the end, CRLF, an empty line, a line of 20,000 characters."""
    caplog.set_level("INFO", "snakepit.worker")
    async with tools_pool(BadTools) as pool:
        [worker] = pool.workers()
        await pool.execute("say_bytes", {"data": b"\xff\xfe\r\n\n" + b"z" * 20_000 + b"\nno end"})
        await until(lambda: any("z" in line for line in said(caplog)))
    prefix = f"{worker.id}: "
    assert all(line.startswith(prefix) for line in said(caplog))
    texts = [line.removeprefix(prefix) for line in said(caplog)]
    assert texts[:2] == ["\ufffd\ufffd", ""]
    assert "".join(texts[2:-1]) == "z" * 20_000
    assert max(map(len, texts)) <= 8192
    assert texts[-1] == "no end"


async def test_the_tail_of_what_was_said_is_bounded_and_in_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The last 100 lines of 5,000; the error's text shows the last twenty."""
    async with tools_pool() as pool:
        text = "\n".join(f"line {number}" for number in range(5000))
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("say_and_die", {"text": text})
    tail = caught.value.stderr_tail.splitlines()
    assert tail == [f"line {number}" for number in range(4900, 5000)]
    assert "line 4980" in str(caught.value)
    assert "line 4979" not in str(caught.value)


async def test_deaths_are_logged_by_the_pool_and_its_end_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "snakepit")
    async with tools_pool() as pool:
        [worker] = pool.workers()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: said(caplog, "snakepit.pool"))
        await pool.ready()
    assert said(caplog, "snakepit.pool") == [
        f"{worker.id} (pid {worker.pid}) died: ended by SIGKILL"
    ]


async def test_workers_tell_of_themselves(tmp_path: Path) -> None:
    begun = time.time()
    async with tools_pool(size=2, name="crew") as pool:
        workers = pool.workers()
        assert [worker.id for worker in workers] == ["crew-1.1", "crew-2.1"]
        assert all(isinstance(worker, WorkerInfo) for worker in workers)
        assert len(set(pids(pool))) == 2
        assert {worker.state for worker in workers} == {"ready"}
        assert {worker.requests for worker in workers} == {0}
        assert all(begun - 1 <= worker.started_at <= time.time() for worker in workers)
        for _ in range(3):
            await pool.execute("echo")
        assert sum(worker.requests for worker in pool.workers()) == 3
        with pytest.raises(AttributeError):
            workers[0].state = "happy"  # type: ignore[misc]


async def test_tools_tell_of_themselves() -> None:
    async with tools_pool() as pool:
        tools = pool.tools()
    assert all(isinstance(tool, ToolSpec) for tool in tools.values())
    assert {name: tool.name for name, tool in tools.items()} == {name: name for name in tools}
    assert tools["echo"].description == "Give the value back."
    assert not tools["echo"].streaming
    assert tools["count"].streaming
    schema = tools["add"].parameters
    assert schema["type"] == "object"
    assert schema["properties"]["left"] == {"type": "integer"}
    assert schema["required"] == ["left"]
    assert {"initialize", "cleanup"}.isdisjoint(tools)


async def test_the_repr_of_a_pool_says_how_it_is(tmp_path: Path) -> None:
    import anyio

    started, release = tmp_path / "started", tmp_path / "release"
    async with tools_pool(size=2, name="mine") as pool:
        assert repr(pool) == (
            "<snakepit.Pool 'mine' open: 2 of 2 workers ready, 0 busy, 0 calls queued>"
        )
        async with anyio.create_task_group() as tasks:
            params = {"started": str(started), "release": str(release)}
            tasks.start_soon(pool.execute, "hold", params)
            await until(started.exists)
            assert "1 busy" in repr(pool)
            release.touch()
    assert repr(pool) == (
        "<snakepit.Pool 'mine' closed: 0 of 2 workers ready, 0 busy, 0 calls queued>"
    )


@pytest.mark.parametrize("shell", [False, True])
async def test_a_worker_behind_a_command_serves_like_any_other(
    shell: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `ssh host python -m snakepit.worker ADAPTER` would: also with a shell in between."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{Path(__file__).parent}")
    command = [*WORKER, "adapters:Tools"]
    if shell:
        command = ["sh", "-c", f'"{sys.executable}" -m snakepit.worker adapters:Tools; exit $?']
    started = tmp_path / "started"
    async with tools_pool(None, command=command, size=2) as pool:
        found = {await pool.execute("pid") for _ in range(4)}
        assert await pool.execute("add", {"left": 1}) == 2
        assert "count" in pool.tools()
        async with pool.stream("count", {"stop": 40}, window=3) as items:
            assert [item async for item in items] == list(range(40))
        data = bytes(3_000_000)
        assert await pool.execute("echo", {"value": data}) == data
        with pytest.raises(TimeoutError):
            await pool.execute("sleep", {"started": str(started)}, timeout=0.5)
        assert await pool.execute("pid") in found
        with pytest.raises(WorkerDiedError):
            await pool.execute("die", {"how": "exit"})
        await pool.ready()
        assert await pool.execute("echo", {"value": 1}) == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)


def test_the_tools_class_is_usable_without_a_pool() -> None:
    """A tool is the function that was written."""
    assert Tools().add(1, right=2) == 3
    assert list(Tools().count(3)) == [0, 1, 2]
