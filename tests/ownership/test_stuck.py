"""However a call is stuck, it ends at its step of the ladder: the table of docs/guarantees.md."""

from __future__ import annotations

import anyio
import pytest
from _bounds import watched_machine
from _shares import in_turns

from benchmarks import stuck
from benchmarks._stuck_tools import STEPS, WAYS
from snakepit import Stop

INTERRUPTED = [way for way, step in STEPS.items() if step == "interrupt"]
KILLED = [way for way, step in STEPS.items() if step != "interrupt"]
# Neither too brief for a call that can be interrupted, nor for one that can not, to be seen.
PATIENT = Stop(cancel_grace=30, term_grace=0.2, drain_timeout=5)
BRISK = Stop(cancel_grace=0.2, term_grace=0.2, drain_timeout=5)


@pytest.mark.parametrize(
    ("transport", "anyio_backend"),
    in_turns(stuck.LOOPS, stuck.TRANSPORTS),
    indirect=["anyio_backend"],
)
async def test_a_call_that_can_be_interrupted_keeps_its_worker(transport: str) -> None:
    """All of them one and the same: its pid, and what it had loaded. What they started is gone."""
    with anyio.fail_after(50):
        found = await stuck.end_all(transport, INTERRUPTED, stop=PATIENT)
    assert [way for way in found if found[way].started] == [
        "`subprocess.run`",
        "`subprocess.run`, `shell=True`, with grandchildren",
    ]
    assert stuck.broken([found]) == []


@pytest.mark.parametrize("transport", stuck.TRANSPORTS)
async def test_a_call_that_can_not_be_interrupted_ends_with_its_worker(transport: str) -> None:
    """In C code that does not look at signals, or in a tool that will not hear of it."""
    with anyio.fail_after(50), watched_machine() as machine:
        found = await stuck.end_all(transport, KILLED, stop=BRISK)
    assert stuck.broken([found]) == []
    allowed_s = machine.allows(BRISK.cancel_grace + BRISK.term_grace)
    assert [(way, end.seconds) for way, end in found.items() if end.seconds > allowed_s] == []


def test_the_table_in_the_guarantees_has_these_steps() -> None:
    """Whatever the times are on another machine."""
    page = stuck.PAGE.read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if " ms | " in line]
    rows += [line.strip("| ").split(" | ") for line in page.splitlines() if " s | replaced" in line]
    assert {row[0]: row[1] for row in rows} == STEPS
    assert {row[0] for row in rows if row[3] == "kept"} == {*INTERRUPTED}
    assert set(STEPS) == set(WAYS)


@pytest.mark.parametrize(
    "ending",
    [
        stuck.Ending("SIGTERM", 0.1, True, 0, 0),
        stuck.Ending("interrupt", 0.1, False, 0, 0),
        stuck.Ending("interrupt", 0.1, True, 2, 1),
    ],
    ids=["another step", "another worker", "one is left"],
)
def test_a_way_that_did_not_end_as_promised_is_told(ending: stuck.Ending) -> None:
    """So `make ladder` fails of it."""
    kept = stuck.Ending("interrupt", 0.1, True, 2, 0)
    replaced = stuck.Ending("SIGKILL", 3, False, 0, 0)
    good = {way: kept if way in INTERRUPTED else replaced for way in WAYS}
    assert stuck.broken([good, good]) == []
    [line] = stuck.broken([good, good | {INTERRUPTED[0]: ending}])
    assert line.startswith(INTERRUPTED[0])
    assert len(stuck.broken([good | dict.fromkeys(KILLED, kept)])) == len(KILLED) == 3


def test_only_the_table_is_rewritten() -> None:
    page = f"before\n{stuck.BEGIN}\nold\n{stuck.END}\nafter\n"
    ending = stuck.Ending("interrupt", 0.002, True, 2, 1)
    part = stuck.table([{"a loop": ending}, {"a loop": stuck.Ending("SIGKILL", 3, False, 0, 0)}])
    assert stuck.rewrite(page, part) == (
        f"before\n{stuck.BEGIN}\n\n{part[0]}\n{part[1]}\n"
        "| a loop | SIGKILL or interrupt | 2.0 to 3000.0 ms | replaced | **1 left** |\n\n"
        f"{stuck.END}\nafter\n"
    )
    with pytest.raises(ValueError, match="markers"):
        stuck.rewrite("no table", part)
