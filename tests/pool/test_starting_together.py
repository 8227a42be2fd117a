"""Workers of one batch start side by side: the slowest one counts, not the sum."""

from __future__ import annotations

from pathlib import Path

from pool_kit import pids, tools_pool

# Each worker waits in `initialize` until both have come to it: one after the other never gets there.
ADAPTER = """
import os, time
from pathlib import Path
from snakepit import Adapter, tool

class Together(Adapter):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def initialize(self) -> None:
        (self.folder / str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < 2:
            time.sleep(0.005)

    @tool
    def met(self) -> set[int]:
        return {int(path.name) for path in self.folder.iterdir()}
"""


async def test_workers_initialise_at_the_same_time(tmp_path: Path) -> None:
    """Each of the two waits in `initialize` for the other; both get ready."""
    adapter, folder = tmp_path / "adapter.py", tmp_path / "met"
    adapter.write_text(ADAPTER, encoding="utf-8")
    folder.mkdir()
    spec = f"{adapter}:Together"
    async with tools_pool(spec, size=2, adapter_args=(str(folder),)) as pool:
        assert await pool.execute("met") == set(pids(pool))
