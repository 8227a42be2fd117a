"""The workers of a pool live side by side: they start together and share the CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pool_kit import pids, tools_pool

from snakepit.procfs import usable_cpus

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

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


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_numeric_libraries_get_their_share_of_the_cpus(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers together are told to use no more threads than there are CPUs; at least one each."""
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "77")
    async with tools_pool(None, size=size) as pool:
        share = str(max(1, usable_cpus() // size))
        given = [await pool.run_sync(os.getenv, name) for name in THREAD_VARIABLES]
    assert given == [share, "77", share, share]
