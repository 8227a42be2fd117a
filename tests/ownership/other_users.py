"""Hosts and workers of several users, for tests that root runs in namespaces of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from _leaks import unmeasured_env
from ownership_kit import env_for_hosts

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
ALONE = ("unshare", "-pfm", "--mount-proc", "--kill-child")  # among processes
# Each user sees no processes there but its own; root sees all.
HIDDEN = (
    *(*ALONE, "sh", "-c"),
    'mount -t proc -o hidepid=2 proc /proc && exec "$@"',
    "sh",
)


def env_for_nobody() -> dict[str, str]:
    """Nobody can write no measurements."""
    names = unmeasured_env()
    return {
        name: value for name, value in env_for_hosts().items() if name in {*names, "PYTHONPATH"}
    }


def runs(command: Sequence[str]) -> bool:
    """As a program of another user, with this library."""
    script = [*command, sys.executable, "-c", "import snakepit"]
    env = env_for_nobody()
    return (
        subprocess.run(script, env=env, cwd="/", capture_output=True, check=False).returncode == 0
    )


needs_other_users = pytest.mark.skipif(
    os.geteuid() != 0 or not runs((*ALONE, *AS_NOBODY)),
    reason="needs root, and files that nobody can read",
)
needs_hidden = pytest.mark.skipif(
    os.geteuid() != 0 or not runs((*HIDDEN, *AS_NOBODY)),
    reason="needs root that may mount, and files that nobody can read",
)
