"""The worker's own nets, with no guardian: what they end in time, on every transport."""

from __future__ import annotations

import time
from pathlib import Path

from ownership_kit import host, wait_gone

OLD_BOUND_S = (
    6.0  # whatever the grace was; the new one is `term_grace + 2`, 2.4 s, on an idle machine
)


def test_a_worker_that_nothing_stops_ends_with_its_host_in_time(tmp_path: Path) -> None:
    """Its tool swallows every interrupt, and ignores SIGTERM."""
    with host(tmp_path, off=["guardian"], tools=["swallow", "start_and_sleep"]) as doomed:
        assert doomed.wait_ready() == 0
        everybody = doomed.pids()
        doomed.tell_to_end()
        began = time.monotonic()
        wait_gone([doomed.pid, *everybody])
        assert time.monotonic() - began < OLD_BOUND_S - 1
        assert len(doomed.pids("cleaned")) == 2
