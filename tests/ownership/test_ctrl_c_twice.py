"""Ctrl+C twice, close together, by real signals: the host ends, and nothing is left of its pool.

That no step can be interrupted so that the block is skipped is for `pool/test_interrupted_blocks.py` and
`pool/test_interrupted_sync.py`; here the signals come by chance, into the whole of a program.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _leaks import is_alive
from attrs import asdict
from leaving_program import BOUND_S, Case
from ownership_kit import HERE, env_for_hosts, pid_of

SLACK_S = 10.0
# One and the same for the kernel as long as the first is not handled; while it leaves; later.
GAPS_S = (0.0, 0.0005, 0.005)
STATES = ("busy", "stopped", "idle")

SYNC_HOST = """
import sys, time, snakepit
from family_adapters import SyncFamily
from leaving_program import STOP

def main(folder, backend):
    options = {"adapter_args": (folder, (), ("session",)), "stop": STOP, "sweep": False}
    with snakepit.open_pool_sync(SyncFamily, size=1, backend=backend, **options) as pool:
        print("set", flush=True)
        pool.execute("sleep")

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.parametrize(("gap_s", "state"), zip(GAPS_S, STATES, strict=True))
def test_a_pool_on_trio(gap_s: float, state: str, tmp_path: Path) -> None:
    case = Case("Ctrl+C twice", state, 1, "trio", "auto")
    program = [str(HERE / "leaving_program.py"), str(tmp_path), json.dumps(asdict(case))]
    assert ends_with_nothing_left(program, gap_s, tmp_path)


@pytest.mark.parametrize(
    ("gap_s", "backend"), zip(GAPS_S, ("trio", "asyncio", "trio"), strict=True)
)
def test_a_pool_of_blocking_code(gap_s: float, backend: str, tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(SYNC_HOST, encoding="utf-8")
    assert ends_with_nothing_left([str(script), str(tmp_path), backend], gap_s, tmp_path)


def ends_with_nothing_left(program: list[str], gap_s: float, folder: Path) -> bool:
    with subprocess.Popen(
        [sys.executable, *program],
        env=env_for_hosts(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "set\n"
            process.send_signal(signal.SIGINT)
            until = time.perf_counter() + gap_s
            while time.perf_counter() < until:
                pass
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=BOUND_S + SLACK_S)
        finally:
            process.kill()
    assert process.returncode in (1, 130, -signal.SIGINT), stderr
    assert "KeyboardInterrupt" in stderr
    pids = [pid_of(path) for name in ("worker", "session") for path in folder.glob(f"{name}-*")]
    assert len(pids) == 2, stderr
    return not any(map(is_alive, pids))
