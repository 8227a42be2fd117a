"""A host with a pool, to be ended in every way: `host_program.py FOLDER JSON-OPTIONS`.

Options: `backend`; `tools`, one running call for each; `deaf`, `guardian`: the second and the third
net; `end`: how it ends once told to (a line on stdin); `hold`: a child of it keeps the wires open.
Prints its guardian's pid when all runs.
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
from family_adapters import KINDS, SyncFamily

import snakepit
from snakepit.process import _fork_guard, _guardian, guardian

FOLDER, OPTIONS = sys.argv[1:3] if len(sys.argv) > 2 else (".", "{}")
STOP = snakepit.Stop(cancel_grace=0.3, term_grace=0.4, drain_timeout=2)


def end(how: str) -> None:
    if how == "fork":
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        (Path(FOLDER) / f"forked-{pid}").touch()
        how = "kill"
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segv":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "exit":
        os._exit(3)


async def main(
    backend: str = "trio",
    tools: tuple[str, ...] = (),
    deaf: bool = False,
    guarded: bool = True,
    hold: bool = False,
    how: str = "kill",
) -> None:
    if not guarded:
        _guardian.is_possible = lambda: False
    size = len(tools) + 1
    with anyio.fail_after(60):
        async with (
            snakepit.open_pool(
                SyncFamily,
                size=size,
                min_ready=size,
                adapter_args=(FOLDER, deaf),
                stop=STOP,
                sweep=False,
            ) as pool,
            anyio.create_task_group() as tasks,
        ):
            if hold:
                subprocess.Popen(["sleep", "1000"], pass_fds=tuple(_fork_guard._fds))
            for name in tools:
                kinds = {"kinds": list(KINDS)} if name.startswith("start") else {}
                tasks.start_soon(pool.execute, name, kinds)
            busy = len([name for name in tools if name != "start"])
            while len(list(Path(FOLDER).glob("busy-*"))) < busy:
                await anyio.sleep(0.005)
            print(guardian.pid, flush=True)
            if how != "leave":
                await anyio.to_thread.run_sync(sys.stdin.readline)
                end(how)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    options = json.loads(OPTIONS)
    anyio.run(lambda: main(**options), backend=options.get("backend", "trio"))
