"""A host that lives on as something else: as another program, or as another user."""

from __future__ import annotations

from pathlib import Path

import pytest
from ownership_kit import host, wait_gone


@pytest.mark.parametrize(
    ("how", "backend", "transport"), [("exec", "trio", "stdio"), ("fork_exec", "asyncio", "shm")]
)
def test_nothing_outlives_a_host_that_executes_another_program(
    how: str, backend: str, transport: str, tmp_path: Path
) -> None:
    """Its process lives on, and so may a child that it forked; its workers, also stuck ones, do not."""
    tools = ["sleep", "hold_gil", "stopped"]
    options = {"how": how, "backend": backend, "transport": transport}
    with host(tmp_path, tools=tools, **options) as changed:
        guardian = changed.wait_ready()
        everybody = changed.pids()
        assert len(everybody) == len(tools) + 1
        changed.tell_to_end()
        wait_gone([*everybody, guardian])
        assert changed.popen.poll() is None
        assert len(changed.kill_bystanders()) == (how == "fork_exec")
