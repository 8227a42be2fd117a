"""Each net alone, further than in test_host_death.py: on every transport, in a namespace, unhurried."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from _shares import sampled
from family_adapters import KINDS
from ownership_kit import NAMESPACE, WORKER_NETS, host, needs_namespaces, wait_gone, wait_until

from snakepit.procfs import VARIABLE, descendants_of

BACKENDS = ("trio", "asyncio")
TRANSPORTS = ("stdio", "shm", "grpc")
STUCK = ["sleep", "hold_gil", "start_and_sleep", "stopped"]
# In `make test` these, together with those of test_host_death.py; all in `make thorough`.
SAMPLE = (
    ("guardian", "asyncio", "shm"),
    ("leave", "trio", "stdio"),
    ("pidfd", "trio", "grpc"),
)


@pytest.mark.parametrize(
    "case",
    sampled(
        product(("guardian", "leave", *WORKER_NETS), BACKENDS, TRANSPORTS),
        lambda case: case in SAMPLE,
    ),
    ids="-".join,
)
def test_each_net_alone_does_on_every_transport(case: tuple[str, str, str], tmp_path: Path) -> None:
    """The guardian, the host that leaves the block, and each of the worker's own."""
    net, backend, transport = case
    off = [other for other in ("guardian", *WORKER_NETS) if other != net]
    tools = ["spin", "start_and_sleep"] if net in WORKER_NETS else STUCK
    options = {"backend": backend, "transport": transport, "off": off, "tools": tools}
    with host(tmp_path, how="leave" if net == "leave" else "kill", **options) as doomed:
        guardian = doomed.wait_ready()
        assert (guardian != 0) == (net == "guardian")
        everybody = doomed.pids()
        assert len(everybody) >= len(tools) + 1 + len(KINDS)
        if net != "leave":
            doomed.end()
        wait_gone([pid for pid in (*everybody, guardian) if pid])
        if net in WORKER_NETS:
            assert sorted(doomed.pids("cleaned")) == sorted(doomed.pids("worker"))
        doomed.popen.wait()
        assert len(doomed.kill_bystanders()) == (net != "eof")


@pytest.mark.parametrize("ignores", sampled([False, True], bool), ids=["reaps", "ignores SIGCHLD"])
def test_the_guardian_has_every_worker_clean_up_that_can_run(ignores: bool, tmp_path: Path) -> None:
    """Where it has the time: nobody is killed before the grace is over."""
    tools = ["sleep", "spin", "start_and_sleep"]
    options = {"off": WORKER_NETS, "tools": tools, "term_grace": 60, "ignores": ignores}
    with host(tmp_path, **options) as doomed:
        guardian = doomed.wait_ready()
        everybody, workers = doomed.pids(), doomed.pids("worker")
        assert len(workers) == len(tools) + 1
        doomed.end()
        wait_gone([*everybody, guardian])
        assert sorted(doomed.pids("cleaned")) == sorted(workers)
        doomed.kill_bystanders()


@needs_namespaces
def test_the_guardian_alone_does_in_a_pid_namespace(tmp_path: Path) -> None:
    """Of a host that is not PID 1 there, and is killed."""
    wrapper = (*NAMESPACE, "sh", "-c", '"$@"; echo gone; exec sleep 1000', "sh")
    with host(tmp_path, wrapper=wrapper, off=WORKER_NETS, tools=STUCK) as doomed:
        assert doomed.wait_ready() > 1
        assert len(doomed.pids("worker")) == len(STUCK) + 1
        before = {process.pid for process in descendants_of(doomed.popen.pid)}
        assert len(marked(before)) >= len(STUCK) + 1
        doomed.tell_to_end()
        assert doomed.read_line() == "gone"
        wait_until(lambda: not marked(before))
        doomed.popen.kill()
        doomed.folder = tmp_path / "no pids of this namespace"
        wait_gone([*before])


def marked(pids: set[int]) -> set[int]:
    """Those of them that live and bear a mark, whatever namespace it is from."""
    found = set()
    for pid in pids:
        try:
            if VARIABLE.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(pid)
        except OSError:
            continue
    return found
