"""One process: how it ended is known, its group ends with it, and it is always reaped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from _backends import trio_only
from _leaks import is_alive
from _process_kit import STUBBORN, python, shell, started

import snakepit
from snakepit.process import ExitStatus, WorkerProcess, _worker_process, climb, kill_running

ROOT = Path(snakepit.__file__).parents[1]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (ExitStatus(exit_code=0), "exited with code 0"),
        (ExitStatus(exit_code=7), "exited with code 7"),
        (ExitStatus(signal=9), "ended by SIGKILL"),
        (ExitStatus(signal=99), "ended by signal 99"),
        (ExitStatus(), "ended"),
    ],
)
def test_a_status_says_how_the_process_ended(status: ExitStatus, text: str) -> None:
    assert str(status) == text


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", ExitStatus(exit_code=0)),
        ("exit 7", ExitStatus(exit_code=7)),
        ("exit 255", ExitStatus(exit_code=255)),
        ("kill -TERM $$", ExitStatus(signal=signal.SIGTERM)),
        ("kill -KILL $$", ExitStatus(signal=signal.SIGKILL)),
    ],
)
async def test_how_it_ended_by_itself_is_known(script: str, status: ExitStatus) -> None:
    with anyio.fail_after(10), shell(script) as child:
        await child.process.wait_exit()
        await child.process.wait_exit()
        assert child.process.status is None  # seen, and not yet reaped
        assert child.process.kill_and_reap() == status
        assert child.process.status == status


async def test_until_it_is_reaped_its_pid_is_nobody_elses() -> None:
    """Its end is seen while it is a zombie still."""
    with anyio.fail_after(10), shell("exit 3") as child:
        await child.process.wait_exit()
        os.kill(child.process.pid, 0)
        child.process.kill_and_reap()
        with pytest.raises(ProcessLookupError):
            os.kill(child.process.pid, 0)


async def test_it_leads_a_session_and_a_group_of_its_own() -> None:
    with anyio.fail_after(10), shell(STUBBORN) as child:
        await child.line()
        pid = child.process.pid
        assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)


async def test_it_gets_the_environment_and_the_directory_it_was_given(tmp_path: Path) -> None:
    script = "import os; print(sorted(os.environ.items())); print(os.getcwd())"
    argv = [sys.executable, "-I", "-S", "-c", script]
    env = {"ONLY": "this", "LC_CTYPE": "C.UTF-8"}
    with anyio.fail_after(10), started(argv, env=env, cwd=str(tmp_path)) as child:
        assert await child.line() == repr(sorted(env.items()))
        assert await child.line() == str(tmp_path.resolve())


async def test_what_it_writes_to_stderr_can_be_read_without_blocking() -> None:
    with anyio.fail_after(10), shell("read go; echo oops >&2") as child:
        with pytest.raises(BlockingIOError):
            os.read(child.process.stderr_fd, 100)
        child.close_stdin()
        await anyio.wait_readable(child.process.stderr_fd)
        assert os.read(child.process.stderr_fd, 100) == b"oops\n"


@pytest.mark.parametrize(
    ("argv", "cwd"), [(["./no-such-program"], None), (["sh"], "/no/such/directory")]
)
def test_a_program_that_cannot_be_executed_is_an_oserror_and_leaves_nothing(
    argv: list[str], cwd: str | None
) -> None:
    with pytest.raises(FileNotFoundError), started(argv, cwd=cwd):
        pass


async def test_kill_and_reap_ends_it_at_once_and_says_the_same_again() -> None:
    with anyio.fail_after(10), shell(STUBBORN) as child:
        await child.line()
        status = child.process.kill_and_reap()
        assert status == ExitStatus(signal=signal.SIGKILL)
        assert child.process.kill_and_reap() is status
        await child.process.wait_exit()


@pytest.mark.parametrize("leave", ["value", "error", "cancel"])
async def test_however_its_block_is_left_it_is_dead_and_reaped(leave: str) -> None:
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        try:
            with shell(STUBBORN) as child:
                await child.line()
                if leave == "error":
                    raise ZeroDivisionError
                if leave == "cancel":
                    scope.cancel()
                    await anyio.sleep_forever()
        except ZeroDivisionError:
            assert leave == "error"
        finally:
            assert child.process.status == ExitStatus(signal=signal.SIGKILL)
            with pytest.raises(ProcessLookupError):
                os.kill(child.process.pid, 0)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(child.process.stderr_fd)


async def test_its_children_die_with_it() -> None:
    with anyio.fail_after(10), shell(f'sh -c "{STUBBORN}" & echo $!; wait') as child:
        numbers = {await child.line(), await child.line()} - {"ready"}
        grandchild = int(numbers.pop())
        assert is_alive(grandchild)
        child.process.kill_and_reap()
        assert await dies(grandchild)


async def test_children_that_outlive_it_die_when_it_is_reaped() -> None:
    """The group is signalled before the leader's pid can be given to anybody else."""
    with anyio.fail_after(10), shell("sleep 1000 & echo $!; exit 4") as child:
        grandchild = int(await child.line())
        await child.process.wait_exit()
        assert is_alive(grandchild)
        assert child.process.kill_and_reap() == ExitStatus(exit_code=4)
        assert await dies(grandchild)


async def dies(pid: int) -> bool:
    """It was killed; the kernel needs a moment."""
    with anyio.move_on_after(5):
        while is_alive(pid):
            await anyio.sleep(0.005)
        return True
    return False


async def test_a_signal_goes_to_the_whole_group() -> None:
    script = "trap 'echo parent; exit 0' TERM; (trap 'echo child; exit 0' TERM; {0}) & {0}"
    loop = "echo ready; while :; do sleep 0.01; done"
    with anyio.fail_after(10), shell(script.format(loop)) as child:
        assert [await child.line(), await child.line()] == ["ready", "ready"]
        child.process.send_signal(signal.SIGTERM)
        assert {await child.line(), await child.line()} == {"parent", "child"}


FAMILY = """
import os, signal, time
name = "child" if os.fork() == 0 else "parent"
def tell(number, frame):
    os.write(1, f"{name} {signal.Signals(number).name}\\n".encode())
signal.signal(signal.SIGQUIT, tell)
signal.signal(signal.SIGUSR1, tell)
os.write(1, b"ready\\n")
while True:
    time.sleep(0.01)
"""


async def test_a_dump_is_asked_of_the_leader_alone() -> None:
    with anyio.fail_after(10), python(FAMILY) as child:
        assert [await child.line(), await child.line()] == ["ready", "ready"]
        child.process.request_dump()
        assert await child.line() == "parent SIGQUIT"
        child.process.send_signal(signal.SIGUSR1)
        assert {await child.line(), await child.line()} == {"parent SIGUSR1", "child SIGUSR1"}


async def test_signals_to_a_reaped_process_go_nowhere() -> None:
    with anyio.fail_after(10), shell("exit 0") as child:
        await child.process.wait_exit()
        child.process.kill_and_reap()
        child.process.send_signal(signal.SIGKILL)
        child.process.request_dump()


async def test_all_that_run_are_killed_from_another_thread_and_their_owners_see_it() -> None:
    """Those that have been reaped are not among them."""
    with anyio.fail_after(10), shell(STUBBORN) as one, shell(STUBBORN) as two:
        for child in (one, two):
            await child.line()
        two.process.kill_and_reap()
        assert await anyio.to_thread.run_sync(kill_running) == 1
        await one.process.wait_exit()
        assert one.process.kill_and_reap() == ExitStatus(signal=signal.SIGKILL)
        assert kill_running() == 0
    assert kill_running() == 0


async def test_a_stopped_process_is_killed_too() -> None:
    with anyio.fail_after(10), shell(STUBBORN) as child:
        await child.line()
        child.process.send_signal(signal.SIGSTOP)
        assert child.process.kill_and_reap() == ExitStatus(signal=signal.SIGKILL)


async def test_a_process_that_somebody_else_reaped_has_ended_nobody_knows_how() -> None:
    """Another library that waits for any child."""
    with anyio.fail_after(10), shell("exit 7") as child:
        await child.process.wait_exit()
        assert os.waitpid(child.process.pid, 0)[0] == child.process.pid
        await child.process.wait_exit()
        assert child.process.kill_and_reap() == ExitStatus()


async def test_somebody_elses_wait_while_we_wait_wakes_us() -> None:
    with anyio.fail_after(10), shell("read go") as child:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.watch)
            await anyio.wait_all_tasks_blocked()
            child.close_stdin()
            os.waitpid(child.process.pid, 0)
            await child.exited.wait()
        assert child.process.kill_and_reap() == ExitStatus()


IGNORING = """
import os, signal, sys
sys.path[:0] = {path!r}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
import anyio
from _process_kit import STUBBORN, shell

async def main():
    with anyio.fail_after(20):
        with shell("exit 7") as child:
            await child.process.wait_exit()
            print(child.process.kill_and_reap())
        with shell(STUBBORN) as child:
            await child.line()
            print(child.process.kill_and_reap())
            await child.process.wait_exit()

anyio.run(main, backend={backend!r})
"""


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_where_sigchld_is_ignored_it_ends_nobody_knows_how(backend: str) -> None:
    """The kernel reaps it then; nothing hangs."""
    source = IGNORING.format(path=[str(ROOT), str(ROOT / "tests")], backend=backend)
    command = [sys.executable, "-c", source]
    result = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [str(ExitStatus())] * 2


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_where_the_kernel_has_no_pidfd_a_thread_waits(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS. The wait can be cancelled; its thread ends with the process."""
    monkeypatch.setattr(_worker_process, "_open_pidfd", lambda pid: None)

    async def main() -> None:
        with anyio.fail_after(10):
            with shell("read go; exit 7") as child:
                with anyio.move_on_after(0.02) as waiting:
                    await child.process.wait_exit()
                assert waiting.cancelled_caught
                child.close_stdin()
                await child.process.wait_exit()
                assert child.process.kill_and_reap() == ExitStatus(exit_code=7)
            with shell(STUBBORN) as child:
                await child.line()
                with anyio.move_on_after(0.02):
                    await child.process.wait_exit()

    anyio.run(main, backend=backend)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # from 3.12 on
def test_a_forked_child_of_the_host_holds_none_of_its_descriptors() -> None:
    """Else it would keep the worker from noticing that its host is gone."""
    with shell("read go") as child:
        process = child.process
        assert isinstance(process, WorkerProcess)
        fds = [process.stderr_fd, process._pidfd]
        pid = os.fork()
        if pid == 0:
            held = 0
            for fd in fds:
                try:
                    os.fstat(fd)  # type: ignore[arg-type]
                    held += 1
                except OSError:
                    pass
            os._exit(held)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for fd in fds:
            assert fd is not None
            os.fstat(fd)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # from 3.12 on
@pytest.mark.parametrize("act", ["leave", "reap", "kill", "dump"])
def test_a_forked_child_of_the_host_cannot_end_it(act: str) -> None:
    """A child that leaves the block, by `sys.exit` say, leaves the host its workers."""
    with shell("echo ready; read go; exit 7") as child:
        process = child.process
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                other = os.open(os.devnull, os.O_RDONLY)
                while other < max(process.stderr_fd, process._pidfd or 0):
                    other = os.dup(other)  # the numbers of the closed descriptors are taken now
                if act == "leave":
                    process.__exit__(None, None, None)
                    os.fstat(process.stderr_fd)
                    code = 0 if process.status == ExitStatus() else 1
                elif act == "reap":
                    code = 0 if process.kill_and_reap() == ExitStatus() else 1
                elif act == "kill":
                    process.send_signal(signal.SIGKILL)
                    code = 0
                else:
                    process.request_dump()
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        child.close_stdin()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.kill_and_reap() == ExitStatus(exit_code=7)


@trio_only  # asyncio does not let a forked child run its loop
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # from 3.12 on
async def test_a_forked_child_of_the_host_climbs_no_ladder_and_waits_for_no_exit() -> None:
    """Though it runs a copy of the host's event loop, in which a task waits for the exit."""
    with anyio.fail_after(10), shell("echo ready; read go; exit 7") as child:
        await child.line()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.watch)
            await anyio.wait_all_tasks_blocked()
            pid = os.fork()
            if pid == 0:
                code = 99
                try:
                    status = await climb(
                        child.process,
                        child.exited,
                        ask=child.close_stdin,
                        ask_grace_s=1000,
                        term_grace_s=1000,
                    )
                    await child.exited.wait()
                    await child.process.wait_exit()
                    code = 0 if status == ExitStatus() else 1
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            child.close_stdin()
            await child.exited.wait()
        assert child.process.kill_and_reap() == ExitStatus(exit_code=7)


async def test_a_process_that_may_not_be_signalled_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with `sudo`, which runs as somebody else: the event loop does not wait for its end."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    with anyio.fail_after(10), shell("echo ready; read go; exit 7") as child:
        await child.line()
        pid = child.process.pid
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.watch)
            await anyio.wait_all_tasks_blocked()
            with monkeypatch.context() as patch:
                patch.setattr(os, "kill", refuse)
                patch.setattr(os, "killpg", refuse)
                assert child.process.kill_and_reap() == ExitStatus()
            await child.exited.wait()
            await child.process.wait_exit()
        assert [(record.name, record.levelname) for record in caplog.records] == [
            ("snakepit.process", "WARNING")
        ]
        assert str(pid) in caplog.text
        child.close_stdin()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


async def test_a_group_with_one_that_may_be_signalled_does_not_hold_us_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel takes a signal to a group if it may be sent to one of them."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    with anyio.fail_after(10), shell("echo ready; read go; exit 7") as child:
        await child.line()
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", refuse)
            patch.setattr(os, "killpg", lambda group, number: None)
            assert child.process.kill_and_reap() == ExitStatus()
        child.close_stdin()
        os.waitpid(child.process.pid, 0)


async def test_one_that_ended_although_it_may_not_be_signalled_is_reaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    with anyio.fail_after(10), shell("exit 7") as child:
        await child.process.wait_exit()
        monkeypatch.setattr(os, "killpg", refuse)
        assert child.process.kill_and_reap() == ExitStatus(exit_code=7)
