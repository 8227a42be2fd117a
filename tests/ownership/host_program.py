"""A host with a pool, to be ended in every way: `host_program.py FOLDER JSON-OPTIONS`.

Options: `calls` that end before the others begin; `backend`, `transport`, `adapter`; `tools`, one running call for each, "stopped" being a
worker that is sent SIGSTOP and then more than its pipe has room for; `off`, the nets that are
switched off: "guardian", and of the worker's "pdeathsig", "pidfd" and "eof" (a child of the host
keeps the wires open); `how` it ends once told to (a line on stdin), "leave" being at once; `term_grace`; `ignores`: SIGCHLD.
Prints its guardian's pid when all runs; and, after the block was left, what of it is still there:
the workers that are not reaped, and whatever else runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import attrs
import family_adapters
from _leaks import is_alive
from family_adapters import KINDS

import snakepit
from snakepit.process import _fork_guard, _guardian, guardian

FOLDER, OPTIONS = sys.argv[1:3] if len(sys.argv) > 2 else (".", "{}")
STOP = snakepit.Stop(cancel_grace=0.3, term_grace=0.4, drain_timeout=2)
NOT_OURS = ("busy", "cleaned", "forked", "held")


def end(how: str) -> None:
    if how in ("fork", "fork_exec"):
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        (Path(FOLDER) / f"forked-{pid}").touch()
        how = "exec" if how == "fork_exec" else "kill"
    if how == "exec":
        os.execvp("sleep", ["sleep", "1000"])
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segv":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "exit":
        os._exit(3)


async def stop_a_worker(pool: snakepit.Pool) -> None:
    """And fill its pipe."""
    async with pool.session("stopped") as session:
        os.kill(await session.execute("pid"), signal.SIGSTOP)
        await session.execute("take", {"text": "x" * 4_000_000})


def pipe_is_full(pool: snakepit.Pool) -> bool:
    channels = [slot.worker._channel for slot in pool._core.slots]
    return any(channel is not None and channel.is_sending for channel in channels)


async def main(
    backend: str = "trio",
    transport: str = "auto",
    adapter: str = "SyncFamily",
    tools: tuple[str, ...] = (),
    off: tuple[str, ...] = (),
    how: str = "kill",
    calls: int = 0,
    term_grace: float = STOP.term_grace,
    ignores: bool = False,
) -> None:
    if ignores:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if "guardian" in off:
        _guardian.is_possible = lambda: False
    size = len(tools) + 1
    with anyio.fail_after(60):
        async with (
            snakepit.open_pool(
                getattr(family_adapters, adapter),
                size=size,
                min_ready=size,
                adapter_args=(FOLDER, tuple(off)),
                transport=transport,
                stop=attrs.evolve(STOP, term_grace=term_grace),
                sweep=False,
            ) as pool,
            anyio.create_task_group() as tasks,
        ):
            if "eof" in off:
                holder = subprocess.Popen(["sleep", "1000"], pass_fds=tuple(_fork_guard._fds))
                (Path(FOLDER) / f"held-{holder.pid}").touch()
            for _ in range(calls):
                await pool.execute("pid")
            if "stopped" in tools:
                tasks.start_soon(stop_a_worker, pool)
                while not pipe_is_full(pool):
                    await anyio.sleep(0.005)
            running = [name for name in tools if name != "stopped"]
            for name in running:
                kinds = {"kinds": list(KINDS)} if name.startswith("start") else {}
                tasks.start_soon(pool.execute, name, kinds)
            busy = len([name for name in running if name != "start"])
            while len(list(Path(FOLDER).glob("busy-*"))) < busy:
                await anyio.sleep(0.005)
            while "start" in running and not all(list(Path(FOLDER).glob(f"{k}-*")) for k in KINDS):
                await anyio.sleep(0.005)
            print(guardian.pid, flush=True)
            if how != "leave":
                await anyio.to_thread.run_sync(sys.stdin.readline)
                end(how)
            tasks.cancel_scope.cancel()


def still_there() -> list[str]:
    found = []
    for path in Path(FOLDER).glob("*-*"):
        name, _, pid = path.name.rpartition("-")
        is_there = Path("/proc", pid).exists() if name == "worker" else is_alive(int(pid))
        if is_there and name not in NOT_OURS:
            found.append(path.name)
    return found


if __name__ == "__main__":
    options = json.loads(OPTIONS)
    anyio.run(lambda: main(**options), backend=options.get("backend", "trio"))
    print(still_there())
