"""How `make compare` looks at what happens: callers, the dead that a host leaves, and the living."""

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import trio

from compare import _work
from compare._contender import Run
from compare._contenders import SNAKEPITS
from compare._peers import PEERS
from compare._scenarios import SCENARIOS, kinds_of
from snakepit import WorkerDiedError

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


def befallen(scenario: str, contender: Any, run: Run, folder: Path) -> dict[str, Any]:
    """What the scenario finds of this way to run calls."""

    async def main() -> dict[str, Any]:
        async with trio.open_nursery() as nursery:
            facts = await SCENARIOS[scenario].befall(nursery, contender, run, folder)
            nursery.cancel_scope.cancel()
        return facts

    return trio.run(main)


async def elsewhere(func: Any, *args: Any) -> Any:
    """Run it in a thread."""
    return await trio.to_thread.run_sync(func, *args, abandon_on_cancel=True)


def test_a_caller_that_stays_longer_than_its_worker_is_noticed(tmp_path: Path) -> None:
    """The worker that held the GIL is gone at once; who cancelled the call hears of it later."""

    async def run(func: Any, *args: Any) -> Any:
        if func is not _work.hold_gil:
            return await elsewhere(func, *args)
        with subprocess.Popen(["sleep", "60"]) as worker:
            _work.note(*args, pid=worker.pid)
            try:
                await trio.sleep_forever()
            finally:
                worker.kill()
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)

    facts = befallen("gil", SNAKEPITS[0], run, tmp_path)
    assert facts["left_s"] >= 0.5
    assert facts["ended_s"] is not None
    assert facts["neighbour"] == "survives"


@pytest.mark.parametrize(
    ("error", "cell"),
    [
        (WorkerDiedError("w", exit_code=-9), "survives / usable"),
        (TypeError("of the pool's own"), "survives / usable; its caller gets TypeError"),
        (None, "survives / usable; its caller gets a value"),
    ],
)
def test_what_the_caller_of_a_killed_call_gets_is_judged(
    error: Exception | None, cell: str, tmp_path: Path
) -> None:
    async def run(func: Any, *args: Any) -> Any:
        if func is not _work.nap:
            return await elsewhere(func, *args)
        with subprocess.Popen(["sleep", "60"]) as worker:
            _work.note(*args[:2], pid=worker.pid)
            await trio.to_thread.run_sync(worker.wait, abandon_on_cancel=True)
        if error is None:
            return "a value"
        raise error

    facts = befallen("kill", SNAKEPITS[0], run, tmp_path)
    assert SCENARIOS["kill"].cell(facts) == cell


def test_an_error_that_is_one_of_those_that_tell_of_a_death_tells_of_it_too() -> None:
    """As loky's `TerminatedWorkerError` is a `BrokenProcessPool`."""
    terminated = type("TerminatedWorkerError", (type("BrokenProcessPool", (Exception,), {}),), {})
    assert "BrokenProcessPool" in kinds_of(terminated())
    assert "BrokenProcessPool" not in kinds_of(OSError())
    assert kinds_of(None) == []
    assert [peer.name for peer in PEERS if not peer.death] == ["multiprocessing.Pool"]
