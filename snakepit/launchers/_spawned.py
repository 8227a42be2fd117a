"""Workers that this host spawns: one child process each, reached over a transport."""

from __future__ import annotations

import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from attrs import frozen
from trio.lowlevel import enable_ki_protection

from snakepit.launchers._base import CannotLaunchError, Launched, Launcher
from snakepit.process import (
    ExitStatus,
    StderrCollector,
    WorkerProcess,
    end_strays_at_last,
    guardian,
    new_mark,
    sweep,
)
from snakepit.procfs import DUMP_ALL, DUMP_MAIN
from snakepit.transports import Channel, Link, Transport
from snakepit.worker._wire import GRACE_VARIABLE

STACK = "(most recent call first)"  # in the first line of each that faulthandler writes


class SpawnedWorker(Launched):
    """A child process, its channel and what it prints."""

    def __init__(self, process: WorkerProcess, channel: Channel, worker_id: str) -> None:
        self._process = process
        self._stderr = StderrCollector(process.stderr_fd, worker_id)
        self._id = worker_id
        self.pid = process.pid
        self.channel = channel

    @property
    def is_ours(self) -> bool:
        return self._process.is_ours

    @property
    def output_tail(self) -> str:
        return self._stderr.tail

    @enable_ki_protection
    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stderr.collect)
            tasks.start_soon(self.channel.run)

    async def wait_exit(self) -> None:
        await self._process.wait_exit()

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def request_dump(self) -> None:
        self._process.request_dump()

    async def dump(self) -> str:
        process = self._process
        can_dump = process.catches(DUMP_ALL)
        if process.has_ended():
            await anyio.lowlevel.checkpoint()
            raise LookupError(f"worker {self._id!r} has ended")
        if not can_dump:
            await anyio.lowlevel.checkpoint()
            raise RuntimeError(
                f"{self._id} (pid {self.pid}) does not catch SIGQUIT, by which stacks are asked for: it "
                "has hardly begun to start, or its own code has changed that"
            )
        lines: list[str] = []
        for number in (DUMP_MAIN, DUMP_ALL) if process.has_many_threads() else (DUMP_ALL,):
            lines += await self._stderr.hear(
                partial(process.request_stacks, number), process.has_ended
            )
        if process.has_ended() and not any(STACK in line for line in lines):
            raise LookupError(f"worker {self._id!r} ended before it could show its stacks")
        return "\n".join(lines)  # noqa: ASYNC910 - `hear` is one

    async def end_strays(self) -> None:
        await self._process.end_strays()

    def kill_and_reap(self) -> ExitStatus:
        status = self._process.kill_and_reap()
        self._stderr.finish()
        return status


@frozen
class SpawnLauncher(Launcher):
    """Starts `argv` with the ends of a link as stdin and stdout.

    `orphan_grace_s`: from SIGTERM to SIGKILL when the host is gone. `sweeps`: the orphans of other
    hosts that are gone are ended meanwhile. `python`: the interpreter in `argv`, where there is one.
    """

    transport: Transport
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    orphan_grace_s: float
    sweeps: bool
    python: str | None = None

    def begin(self, tasks: TaskGroup) -> None:
        tasks.start_soon(guardian.guard, self.python, name="snakepit: guardian")
        tasks.start_soon(end_strays_at_last, name="snakepit: strays")
        if self.sweeps:
            tasks.start_soon(sweep, name="snakepit: sweep")

    @contextmanager
    def launch(self, worker_id: str, slot: int) -> Generator[Launched]:  # noqa: ARG002 - all alike
        try:
            link = self.transport.open_link()
        except OSError as error:
            raise CannotLaunchError(f"{self.transport.name}: {error}") from error
        assert isinstance(link, Link), "a process is reached by what it inherits"
        with link:
            try:
                process = WorkerProcess.start(
                    self.argv,
                    stdin=link.stdin,
                    stdout=link.stdout,
                    env={**self.env, **link.env, GRACE_VARIABLE: repr(self.orphan_grace_s)},
                    cwd=self.cwd,
                    pass_fds=link.pass_fds,
                    mark=new_mark(),
                )
            except OSError as error:
                raise CannotLaunchError(f"{self.argv[0]}: {error}") from error
            try:
                with process:
                    guardian.add(process.pid, self.orphan_grace_s)
                    link.worker_started()
                    yield SpawnedWorker(process, link.connect(), worker_id)
            finally:
                guardian.remove(process.pid)
