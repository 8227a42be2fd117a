"""By which interpreter the guardian runs, and what becomes of one that runs by none."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ownership_kit import env_for_hosts

# A program in which Python is embedded says that it is the interpreter itself.
EMBEDDED = """
import logging, subprocess, sys, time
import anyio, snakepit
from pathlib import Path
from snakepit.process import _guardian, guardian

logging.basicConfig(format="%(message)s", stream=sys.stdout)
_guardian.RESTART_PAUSE_S = 0.02
python, sys.executable = sys.executable, sys.argv[2]
started = []

class Noted(subprocess.Popen):
    def __init__(self, argv, **options):
        if "snakepit.procfs._guardian" in argv[-4]:
            started.append(argv[0])
        super().__init__(argv, **options)

subprocess.Popen = Noted
OPTIONS = {
    "python": {"python": python},
    "command": {"command": [python, "-m", "snakepit.worker", "family_adapters:Plain"]},
}

def runs():
    try:
        return b"_guardian" in Path(f"/proc/{guardian.pid}/cmdline").read_bytes()
    except OSError:
        return False

async def main():
    options = OPTIONS[sys.argv[1]]
    async with snakepit.open_pool(size=1, sweep=False, **options) as pool:
        if "python" in options:
            with anyio.fail_after(20):
                while python not in started or not runs():
                    await anyio.sleep(0.01)
        else:
            await anyio.sleep(1)
    print(len(started), len(set(started)))

anyio.run(main)
"""


def embedded(option: str, executable: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", EMBEDDED, option, executable],
        env=env_for_hosts(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return run.stdout.splitlines()


@pytest.mark.parametrize(
    ("executable", "said"),
    [
        ("/bin/true", "does not run by /bin/true, which exited with code 0"),
        ("/no/such/program", "cannot be started: "),
        pytest.param("", None, marks=pytest.mark.share(False)),
    ],
)
def test_a_host_whose_interpreter_is_none_has_its_guardian_run_by_that_of_its_workers(
    executable: str, said: str | None
) -> None:
    """Each that does not do is tried once."""
    *lines, counts = embedded("python", executable)
    assert counts == ("1 1" if said is None else "2 2")
    assert len(lines) == (said is not None)
    assert all(line.startswith(f"the guardian of the workers {said}") for line in lines)


def test_a_guardian_that_never_runs_is_tried_less_and_less_often() -> None:
    *lines, counts = embedded("command", "/bin/false")
    assert lines == [
        "the guardian of the workers does not run by /bin/false, which exited with code 1"
    ]
    assert 2 <= int(counts.split()[0]) <= 7
