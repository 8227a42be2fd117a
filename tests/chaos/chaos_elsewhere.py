"""The workers of a round whose pool is connected to them: begun again whenever they end, as a service manager would."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
from chaos_tools import JOURNAL
from chaos_world import World

TICK_S = 0.02
PATIENCE_S = 60.0
HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE)))


class Elsewhere:
    """Workers that are nobody's, one at each of `addresses`. Somebody has to run it."""

    def __init__(self, world: World) -> None:
        plan, journal = world.plan, world.journal
        self._adapter = "AsyncChaos" if plan.has_async else "Chaos"
        self._journal = os.fspath(journal)
        folder = journal.parent
        self._sockets = [folder / str(number) for number in range(plan.options["size"])]
        self._processes = world.processes
        self._running: dict[Path, subprocess.Popen[bytes]] = {}

    @property
    def addresses(self) -> list[str]:
        return [f"unix:{path}" for path in self._sockets]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._running.values() if process.returncode is None]

    async def run(self) -> None:
        """Until cancelled; then it is for `close` to end them."""
        async with anyio.create_task_group() as tasks:
            for slot, path in enumerate(self._sockets, 1):
                tasks.start_soon(self._keep, slot, path)

    async def until_all_serve(self) -> None:
        with anyio.fail_after(PATIENCE_S):
            for path in self._sockets:
                said = path.with_suffix(".log")
                while not (said.exists() and "serves" in said.read_text(encoding="utf-8")):
                    await anyio.sleep(TICK_S)

    async def _keep(self, slot: int, path: Path) -> None:
        argv = [
            sys.executable,
            "-m",
            "snakepit.worker",
            "--adapter",
            f"chaos_tools:{self._adapter}",
        ]
        env = os.environ | {"PYTHONPATH": PATHS, JOURNAL: self._journal}
        while True:
            with path.with_suffix(".log").open("wb") as log:
                process = subprocess.Popen(
                    [*argv, "--listen", f"unix:{path}"], env=env, stdout=log, stderr=log
                )
            self._running[path] = process
            self._processes[slot].append(process.pid)
            while process.poll() is None:
                await anyio.sleep(TICK_S)

    def close(self) -> None:
        """End them, with all that they have started."""
        for process in self._running.values():
            process.kill()
            process.wait()
        for left in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if left.environ().get(JOURNAL) == self._journal:
                    left.kill()
