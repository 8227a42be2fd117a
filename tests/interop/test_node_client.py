"""A client in JavaScript, that of examples/clients/node, which knows protos/ alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_interop import HERE, ROOT, served

CLIENT = ROOT / "examples" / "clients" / "node"


def node_is_there() -> bool:
    if shutil.which("node") is None or not (CLIENT / "node_modules" / "@grpc").is_dir():
        return False
    is_new = "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)"
    return subprocess.run(["node", "-e", is_new], check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not node_is_there(),
    reason="needs Node.js 18 or newer, and what .ci/node installs",
)


def test_it_lists_executes_streams_cancels_and_hears_what_went_wrong(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    os.mkfifo(tmp_path / "fifo")
    with served("--listen", f"unix:{socket}"):
        client = ["node", str(HERE / "node_client.mjs"), f"unix:{socket}", str(tmp_path)]
        run = subprocess.run(client, capture_output=True, text=True, timeout=40, check=False)
    assert run.returncode == 0, run.stderr
    saw = json.loads(run.stdout)
    assert "add" in saw.pop("names")
    assert saw == {
        "required": ["left"],
        "add": 3,
        "echo": {"a": [1, 2.5, None, True, "ü"], "b": {"c": []}},
        "sessions": [[1], [1, 2]],
        "items": list(range(100)),
        "first": [0, 1, 2],
        "closed": True,
        "cancelled": ["CANCELLED", None, None],
        "ended": True,
        "failed": ["UNKNOWN", "tool", "builtins.FileNotFoundError"],
        "unknown": ["NOT_FOUND", "not_found", "snakepit.errors.ToolNotFoundError"],
        "late": ["DEADLINE_EXCEEDED", None, None],
        "unlike": ["TypeError"] * 6,
        "left_out": {"b": [None]},
        "never": ["AbortError", "AbortError"],
        "parting": "all was read",
        "after": 2,
    }
