"""How `make compare` looks at what happens: the dead that a host leaves, and the living."""

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HERE = """
import json, sys
from pathlib import Path
from compare import _trial
"""
# Its own child ends with 7; what a shell has left to us ends as well, and somebody waits for its number.
LEAVES_A_CHILD = """
import json, os, subprocess, sys, time
own = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
left = int(subprocess.check_output(["sh", "-c", "sleep 0.1 > /dev/null & echo $!"]))
gone = False
deadline = time.monotonic() + 10
while not gone and time.monotonic() < deadline:
    gone = not os.path.exists(f"/proc/{left}")
    time.sleep(0.02)
facts = sys.argv[1] + "/facts.json"
with open(facts + ".new", "w") as file:
    json.dump({"gone": gone, "own": own.wait()}, file)
os.rename(facts + ".new", facts)
time.sleep(60)
"""
# Two workers, `cat` ends with its host, and a helper that does not; and shared memory that gets its name
# when it is mapped, as sem_open does it.
HAS_A_HELPER = """
import mmap, os, subprocess, sys, time
folder, named, *worker = sys.argv[1:]
with open(named + ".new", "xb+") as file:
    file.write(b" ")
    file.flush()
    held = mmap.mmap(file.fileno(), 1)
os.link(named + ".new", named)
os.unlink(named + ".new")
for name in ("one", "other"):
    process = subprocess.Popen(worker, stdin=subprocess.PIPE)
    open(f"{folder}/{name}-{process.pid}", "x").close()
subprocess.Popen(["sleep", "60"])
open(folder + "/ready", "x").close()
time.sleep(60)
"""


def trial(folder: Path, scenario: str, host: str, *arguments: str, before: str = "") -> Any:
    """What is told of this host; a process of its own looks on, for it adopts what is left."""
    argv = [sys.executable, "-c", host, str(folder), *arguments]
    program = f"{HERE}{before}\nprint(json.dumps(_trial.trial({scenario!r}, {argv!r}, Path({str(folder)!r}))))"
    looker_on = [sys.executable, "-c", program]
    done = subprocess.run(looker_on, cwd=ROOT, stdout=subprocess.PIPE, timeout=50, check=True)
    return json.loads(done.stdout)


def test_the_dead_that_were_adopted_are_reaped_and_those_of_the_host_are_left_to_it(
    tmp_path: Path,
) -> None:
    """Who waits for what is not its child would wait for ever otherwise: deadpool does."""
    assert trial(tmp_path, "grandchild", LEAVES_A_CHILD) == {"gone": True, "own": 7}


def test_how_a_host_has_ended_is_told(tmp_path: Path) -> None:
    told = trial(tmp_path, "kill", "raise SystemExit(3)")
    assert told == {"failed": "the host has ended with 3"}


@pytest.mark.parametrize("worker", [("cat",), ("sleep", "60")])
def test_orphans_and_helpers_are_counted_and_when_the_last_one_ends(
    worker: tuple[str, ...], tmp_path: Path
) -> None:
    sooner = (
        "count = _trial.kill_and_count\n"
        "_trial.kill_and_count = lambda *host: count(*host, (0.8, 0.9, 1.0), 1.1)"
    )
    named = Path("/dev/shm") / f"compare.{uuid.uuid4().hex}"
    facts = trial(tmp_path, "orphans", HAS_A_HELPER, str(named), *worker, before=sooner)
    assert facts["others"] == [1, 1, 1]
    if worker == ("cat",):
        assert facts["workers"] == [0, 0, 0]
        assert 0 <= facts["ended_s"] < 20
    else:
        assert facts["workers"] == [2, 2, 2]
        assert facts["ended_s"] is None
    assert not named.exists()


def test_a_host_that_has_told_its_facts_stays_until_its_shared_memory_was_looked_at(
    tmp_path: Path,
) -> None:
    argv = [sys.executable, "-m", "compare._host", "kill", "nobody", str(tmp_path)]
    with subprocess.Popen(argv, cwd=ROOT) as host:
        try:
            deadline = time.monotonic() + 20
            while not (facts := tmp_path / "facts.json").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert "KeyError: 'nobody'" in json.loads(facts.read_text(encoding="utf-8"))["failed"]
            with pytest.raises(subprocess.TimeoutExpired):
                host.wait(0.2)
        finally:
            host.kill()
