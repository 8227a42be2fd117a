"""What the clean-up says that it has done, as a function, as a command, and in the log of a pool."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from _shares import sampled
from other_users import ALONE, AS_NOBODY, env_for_nobody, needs_other_users
from ownership_kit import NAMESPACE, env_for_hosts, needs_namespaces, run_well

import snakepit
from snakepit.__main__ import main
from snakepit.process import _sweep

WHOSE = f"orphans of dead hosts, of any program of user {os.getuid()}, and what was below them"
ORPHANS = """
import os, subprocess, sys
from snakepit.process import new_mark
from snakepit.procfs import VARIABLE

MARK = new_mark()
MARK.host_start += 1

def orphan(*argv, env=os.environ):
    return subprocess.Popen(argv, env=env | {VARIABLE: str(MARK)}, stdout=subprocess.PIPE, text=True)

def command(*wrapper):
    argv = [*wrapper, sys.executable, "-m", "snakepit", "cleanup"]
    run = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
    return run.stdout.splitlines(), run.returncode
"""


def run_script(
    script: str, *arguments: str, wrapper: Sequence[str] = NAMESPACE, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """In a namespace, where no other run of the tests can be quicker."""
    return run_well(
        [*wrapper, sys.executable, "-c", ORPHANS + script, *arguments], env=env, cwd="/"
    )


UNMARKED = """
import snakepit

def with_a_bare_child():
    process = orphan("sh", "-c", "env -i setsid sh -c 'echo $$; exec sleep 1000' & wait")
    return {process.pid, int(process.stdout.readline())}

below = with_a_bare_child()
done = snakepit.cleanup()
print(set(done.ended) == below, done.left)
below = with_a_bare_child()
lines, code = command()
print({int(line.removeprefix("ended ")) for line in lines} == below, code)
print(*command())
"""


@needs_namespaces
def test_all_that_was_ended_is_told_also_what_bears_no_mark() -> None:
    """Below an orphan, in a session of its own. By the function in the log, by the command on stdout."""
    run = run_script(UNMARKED, env=env_for_hosts())
    assert run.stdout.splitlines() == ["True ()", "True 0", "['no orphans'] 0"]
    said = [line for line in run.stderr.splitlines() if "orphan" in line]
    assert len(said) == 1
    assert said[0].startswith(f"{WHOSE}: ended 2: ")


OF_TWO_USERS = """
AS_NOBODY = sys.argv[1:]

roots = orphan("sleep", "1000")
nobodys = orphan("sh", "-c", 'sleep 1000 & echo $!; exec "$@"', "sh", *AS_NOBODY, "sleep", "1000")
child = int(nobodys.stdout.readline())
while b"sleep" not in open(f"/proc/{nobodys.pid}/cmdline", "rb").read()[:5]:
    pass
lines, code = command(*AS_NOBODY)
print(lines == [f"ended {nobodys.pid}", f"would not die: {child}"], code)
print(nobodys.wait(), roots.poll())
others = orphan(*AS_NOBODY, "sleep", "1000")
while b"sleep" not in open(f"/proc/{others.pid}/cmdline", "rb").read()[:5]:
    pass
lines, code = command()
print(f"ended {roots.pid}" in lines, code, roots.wait(), others.poll())
"""


@needs_other_users
def test_the_orphans_of_another_user_are_left_alone_and_what_may_not_be_killed_is_told() -> None:
    """A child that an orphan started by `sudo`, say, is root's."""
    run = run_script(OF_TWO_USERS, *AS_NOBODY, wrapper=ALONE, env=env_for_nobody())
    assert run.stdout.splitlines() == ["True 1", "-15 None", "True 0 -15 None"]


def test_what_would_not_die_is_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_sweep, "end_marked", lambda *_args, **_options: ([4711], [4712, 4713]))
    with caplog.at_level(logging.WARNING, "snakepit.process"):
        done = snakepit.cleanup()
        assert done == snakepit.Cleanup(ended=(4711,), left=(4712, 4713))
        assert caplog.messages == [
            f"{WHOSE}: ended 1: 4711",
            f"{WHOSE}: 2 would not die: 4712, 4713",
        ]
        assert main(["cleanup"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ended 4711",
        "would not die: 4712",
        "would not die: 4713",
    ]
    assert len(caplog.messages) == 2


def test_the_command_helps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "end the orphans of dead hosts" in capsys.readouterr().out


# It has had its SIGTERM when it makes a file.
STUBBORN = """
import time
from pathlib import Path
import anyio, snakepit
from snakepit.process import _sweep

backend, folder = sys.argv[1:]
_sweep.ORPHAN_GRACE_S = 1000
told = Path(folder, "told")
process = orphan("sh", "-c", "trap ': > \\"$0\\"' TERM; while :; do sleep 1000; done", str(told))

async def main():
    async with snakepit.open_pool(size=1) as pool:
        with anyio.fail_after(30):
            while not told.exists():
                await anyio.sleep(0.01)
        assert process.poll() is None
        began = time.monotonic()
    assert time.monotonic() - began < 20

time.sleep(0.1)  # the trap is set
anyio.run(main, backend=backend)
print(process.wait(), process.pid)
"""


@needs_namespaces
@pytest.mark.parametrize("backend", sampled(["trio", "asyncio"], lambda name: name == "trio"))
def test_leaving_a_pool_does_not_wait_for_the_grace_of_orphans(
    backend: str, tmp_path: Path
) -> None:
    """They had their SIGTERM; the pool says what its sweep has ended."""
    run = run_script(STUBBORN, backend, str(tmp_path), env=env_for_hosts())
    code, pid = run.stdout.split()
    assert int(code) == -9
    found = re.search(r"what was below them: ended (\d+): (.*)", run.stderr)
    assert found is not None, run.stderr
    pids = found[2].split(", ")
    assert pid in pids
    assert int(found[1]) == len(pids) >= 2
