"""What is known of a death is told; and the stacks of a worker, on request."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from family_adapters import SyncFamily
from ownership_kit import wait_until

from snakepit import (
    Adapter,
    CallTimeoutError,
    Pool,
    PoolClosedError,
    SessionLostError,
    Stop,
    WorkerDiedError,
    open_pool,
    open_pool_sync,
    tool,
)
from snakepit.process import ExitStatus, _worker_process
from snakepit.process._oom import parse_oom_kills

pytestmark = one_loop_each

BRISK = Stop(cancel_grace=0.2, term_grace=0.2, drain_timeout=2)


class Stuck(Adapter):
    @tool
    async def wait(self, busy: str) -> None:
        Path(busy).touch()
        await anyio.sleep_forever()


class Mortal(Adapter):
    @tool
    def say_and_die(self) -> None:
        os.write(2, b"".join(b"word %d\n" % number for number in range(10)))
        os._exit(7)

    @tool
    def segfault(self) -> None:
        faulthandler.enable()
        ctypes.string_at(0)

    @tool
    def idle(self) -> None:
        pass


async def stack_of_busy(tmp_path: Path, name: str, transport: str) -> str:
    options: dict[str, Any] = {"adapter_args": (str(tmp_path),), "transport": transport}
    async with (
        open_pool(SyncFamily, size=1, stop=BRISK, **options) as pool,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(pool.execute, name)
        while not list(tmp_path.glob("busy-*")):
            await anyio.sleep(0.005)
        stacks = await pool.dump(pool.workers()[0].id)
        tasks.cancel_scope.cancel()
    return stacks


@pytest.mark.parametrize(
    ("name", "transport"),
    [("sleep", "shm"), ("spin", "grpc"), ("hold_gil", "stdio"), ("hold_gil", "grpc")],
)
async def test_a_dump_shows_where_a_worker_stands(
    name: str, transport: str, tmp_path: Path
) -> None:
    """Also one that holds the GIL."""
    with anyio.fail_after(30):
        stacks = await stack_of_busy(tmp_path, name, transport)
    assert re.search(rf'File ".*family_adapters\.py", line \d+ in {name}\n', stacks)
    assert stacks.count("most recent call first") >= 2


async def test_an_idle_worker_shows_its_stacks_and_serves_on(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with open_pool(SyncFamily, size=1, adapter_args=(str(tmp_path),)) as pool:
            [worker] = pool.workers()
            first, second = await pool.dump(worker.id), await pool.dump(worker.id)
            assert "_reader.py" in first
            assert "_reader.py" in second
            assert await pool.execute("pid") == worker.pid


async def test_who_is_not_there_cannot_be_dumped(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with open_pool(SyncFamily, size=1, adapter_args=(str(tmp_path),)) as pool:
            [worker] = pool.workers()
            with pytest.raises(LookupError, match="no worker 'nobody'"):
                await pool.dump("nobody")
            os.kill(worker.pid, signal.SIGKILL)
            while pool.workers()[0].id == worker.id:
                await anyio.sleep(0.005)
            with pytest.raises(LookupError):
                await pool.dump(worker.id)


async def test_a_worker_that_does_not_know_the_signal_is_not_sent_it(tmp_path: Path) -> None:
    """To other programs it means: dump core. As to one that has just been started."""
    script = "import sys; sys.stdin.read()"
    argv = [sys.executable, "-I", "-S", "-c", script]
    with anyio.fail_after(30):
        async with open_pool(command=argv, size=1, min_ready=0, stop=BRISK) as pool:
            [worker] = pool.workers()
            while worker.pid is None:
                await anyio.sleep(0.005)
                [worker] = pool.workers()
            with pytest.raises(RuntimeError, match="cannot show its stacks"):
                await pool.dump(worker.id)


async def test_a_worker_in_memory_shows_the_stacks_of_its_host(tmp_path: Path) -> None:
    async with open_pool(Stuck, size=1, transport="memory") as pool:
        stacks = await pool.dump(pool.workers()[0].id)
    assert "test_a_worker_in_memory_shows_the_stacks_of_its_host" in stacks


def test_a_pool_without_async_dumps_too(tmp_path: Path) -> None:
    with open_pool_sync(SyncFamily, size=1, adapter_args=(str(tmp_path),)) as pool:
        assert "_reader.py" in pool.dump(pool.workers()[0].id)


async def test_a_worker_killed_for_not_stopping_tells_why_and_where_it_stood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At a level that is shown unless somebody sees to it."""
    with anyio.fail_after(30), caplog.at_level(logging.WARNING, "snakepit"):
        async with open_pool(SyncFamily, size=1, adapter_args=(str(tmp_path),), stop=BRISK) as pool:
            [worker] = pool.workers()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.execute, "hold_gil")
                while not list(tmp_path.glob("busy-*")):
                    await anyio.sleep(0.005)
                tasks.cancel_scope.cancel()
            while pool.workers()[0].id == worker.id:
                await anyio.sleep(0.005)
    assert re.search(
        rf"{worker.id} \(pid {worker.pid}\) was ended because 'hold_gil' did not stop within 0\.2 s of "
        r"being cancelled: ended by SIGKILL; it had up to \d+ MiB of memory; it ran 'hold_gil'\n"
        r"  where it stood:\n",
        caplog.text,
    )
    assert re.search(r"  \|   File .* in hold_gil\n", caplog.text)


async def test_the_log_tells_what_a_worker_ran_and_its_last_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.fail_after(30):
        async with open_pool(Mortal, size=1) as pool:
            [worker] = pool.workers()
            died: dict[str, WorkerDiedError] = {}
            async with anyio.create_task_group() as tasks:
                for name in ("say_and_die", "idle"):
                    tasks.start_soon(_note_death, pool, name, died)
            [words] = [m for m in caplog.messages if m.startswith(worker.id)]
            await pool.ready()
            with pytest.raises(WorkerDiedError):
                await pool.execute("segfault")
    assert died.keys() == {"say_and_die"}
    ran = r"it ran 'say_and_die'(, and 1 behind that had not begun)?"
    words, _, last = words.partition("\n  its last lines on stderr:\n")
    assert re.fullmatch(
        rf"{worker.id} \(pid {worker.pid}\) died: exited with code 7;( it had .*;)? {ran}", words
    )
    assert last == "  | word 7\n  | word 8\n  | word 9"
    assert "| Fatal Python error: Segmentation fault\n" in caplog.text
    assert re.search(r"\|   File .* in segfault\n", caplog.text)


async def _note_death(pool: Pool, name: str, died: dict[str, WorkerDiedError]) -> None:
    try:
        await pool.execute(name)
    except WorkerDiedError as error:
        died[name] = error


@pytest.mark.parametrize("transport", ["shm", "grpc"])
async def test_who_was_stopped_with_the_worker_is_told_how_it_died(
    transport: str, tmp_path: Path
) -> None:
    """The call whose time was up, and those of the session that is lost by it."""
    options: dict[str, Any] = {"adapter_args": (str(tmp_path),), "transport": transport}
    with anyio.fail_after(30):
        async with open_pool(SyncFamily, size=1, stop=BRISK, **options) as pool:
            [worker] = pool.workers()
            async with pool.session() as session:
                await session.execute("pid")
                with pytest.raises(CallTimeoutError) as timed_out:
                    await session.execute("hold_gil", timeout=0.3)
                with pytest.raises(SessionLostError) as lost:
                    await session.execute("pid")
    for error in (timed_out.value, lost.value):
        cause = error.__cause__
        assert isinstance(cause, WorkerDiedError)
        assert (cause.worker_id, cause.signal) == (worker.id, signal.SIGKILL)
        assert "did not stop within 0.2 s" in cause.reason
        assert re.search(r"File .* in hold_gil\n", cause.stderr_tail)


async def test_a_worker_that_has_to_be_killed_as_the_pool_closes_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, and to whoever has the call."""
    causes: list[BaseException | None] = []
    with anyio.fail_after(30):
        async with (
            anyio.create_task_group() as tasks,
            open_pool(SyncFamily, size=1, adapter_args=(str(tmp_path),), stop=BRISK) as pool,
        ):
            [worker] = pool.workers()

            async def call() -> None:
                with pytest.raises(PoolClosedError) as caught:
                    await pool.execute("hold_gil")
                causes.append(caught.value.__cause__)

            tasks.start_soon(call)
            while not list(tmp_path.glob("busy-*")):
                await anyio.sleep(0.005)
    [text] = caplog.messages
    assert text.startswith(f"{worker.id} (pid {worker.pid}) was ended because ")
    assert "ended by SIGKILL" in text
    assert re.search(r"File .* in hold_gil\n", text)
    [cause] = causes
    assert isinstance(cause, WorkerDiedError)
    assert cause.signal == signal.SIGKILL


async def test_memory_that_a_dead_worker_had_is_told(tmp_path: Path) -> None:
    """It is known where it is more than the host itself ever had."""
    with anyio.fail_after(30):
        async with open_pool(size=1) as pool:
            peak_mb = _peak_mb() + 50
            with pytest.raises(WorkerDiedError) as caught:
                await pool.run_sync(_fill_and_die, peak_mb)
    told = re.search(r"it had up to (\d+) MiB", caught.value.certificate)
    assert told is not None
    assert peak_mb <= int(told[1]) < peak_mb + 100


def _peak_mb() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) // 1024


def _fill_and_die(mb: int) -> None:
    filled = b"x" * (mb << 20)
    os._exit(len(filled) % 1)


def test_kills_for_want_of_memory_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "memory.events"
    monkeypatch.setattr(_worker_process, "oom_kills", lambda: parse_oom_kills(events))
    events.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    with _started("exit 1") as process:
        wait_until(process._exit_seen)
        events.write_text("low 0\noom 3\noom_kill 5\n")
        status = process.kill_and_reap()
    assert status == ExitStatus(exit_code=1)
    assert status.oom_kills == 3
    assert "the kernel ended 3 of the processes of its cgroup" in status.certificate


@pytest.mark.parametrize("text", ["", "oom_kill_disable 0\n", "oom_kill many\n"])
def test_a_counter_that_is_not_there_counts_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    assert parse_oom_kills(tmp_path / "file") is None
    assert parse_oom_kills(tmp_path / "nothing") is None


def _started(script: str) -> _worker_process.WorkerProcess:
    return _worker_process.WorkerProcess.start(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
        cwd=None,
    )
