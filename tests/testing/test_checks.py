"""The public checks find what they are there for, say it in a sentence, and need no pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from faulty_channels import FAULTS, pair_with, pipes, remove_what_is_left

from snakepit.testing import (
    FRAMING_CHECKS,
    TRANSPORT_CHECKS,
    _check,
    _probes,
    run_checks,
)
from snakepit.testing._check import promise

pytestmark = one_loop_each

ROOT = Path(__file__).parents[2]
CHECKS: dict[str, Any] = {check.__name__: check for check in [*TRANSPORT_CHECKS, *FRAMING_CHECKS]}


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for ever shall not make the tests wait as long."""
    monkeypatch.setattr(_probes, "PATIENCE_S", 0.4)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        pytest.param(fault, check, id=f"{fault[0].__name__}-{check}")
        for fault in FAULTS
        for check in sorted(fault[2])
    ],
)
async def test_a_check_finds_the_fault(fault: Any, check: str) -> None:
    channel_type, streams, _ = fault
    try:
        with pytest.raises(AssertionError) as caught:
            await CHECKS[check](pair_with(channel_type, streams))
    finally:
        remove_what_is_left()
    (note,) = caught.value.__notes__
    assert note == f"{check}: {promise(CHECKS[check])}"
    assert " " in str(caught.value)


def test_every_check_finds_some_fault() -> None:
    """A check that nothing can fail promises nothing."""
    found = set().union(*(checks for *_, checks in FAULTS))
    assert found == set(CHECKS)


def test_every_check_has_a_name_and_a_promise_of_its_own() -> None:
    assert len(CHECKS) == len(TRANSPORT_CHECKS) + len(FRAMING_CHECKS)
    promises = [promise(check) for check in CHECKS.values()]
    assert len(set(promises)) == len(promises)
    assert all(text.endswith(".") for text in promises)


async def test_a_check_that_hangs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_check, "CHECK_S_MAX", 0.1)
    checks: list[Any] = []

    @_check.joins(checks)
    async def check_patience(open_pair: Any) -> None:
        """Never."""
        await anyio.sleep_forever()

    with pytest.raises(AssertionError, match=r"it hangs: after 0\.1 s") as caught:
        await checks[0](None)
    assert caught.value.__notes__ == ["check_patience: Never."]


async def test_any_error_that_was_not_due_is_a_failure() -> None:
    """Told by its name, out of whatever groups the nurseries have put around it."""
    checks: list[Any] = []

    @_check.joins(checks)
    async def check_numbers(open_pair: Any) -> None:
        """It counts."""
        async with anyio.create_task_group(), anyio.create_task_group():
            raise ZeroDivisionError("by zero")

    with pytest.raises(AssertionError, match="none was due: ZeroDivisionError: by zero") as caught:
        await checks[0](None)
    assert isinstance(caught.value.__cause__, ExceptionGroup)


async def test_run_checks_runs_all_and_tells_all_that_failed() -> None:
    ran: list[str] = []
    checks: list[Any] = []

    @_check.joins(checks)
    async def check_one(open_pair: Any) -> None:
        """One."""
        await anyio.lowlevel.checkpoint()
        ran.append("one")
        raise AssertionError("wrong")

    @_check.joins(checks)
    async def check_two(open_pair: Any) -> None:
        """Two."""
        await anyio.lowlevel.checkpoint()
        ran.append("two")

    with pytest.raises(ExceptionGroup) as caught:
        await run_checks(pipes, [*checks, *checks])
    assert ran == ["one", "two"] * 2
    assert [str(error) for error in caught.value.exceptions] == ["wrong", "wrong"]
    await run_checks(pipes, checks[1:])


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_the_checks_need_neither_pytest_nor_assert_statements(loop: str) -> None:
    script = (
        "import sys, anyio\n"
        "sys.modules['pytest'] = sys.modules['_pytest'] = None\n"  # not to be had
        "from snakepit.testing import TRANSPORT_CHECKS, FRAMING_CHECKS, pair_of, run_checks\n"
        "from snakepit.transports import ByteChannel, StdioTransport\n"
        "class Lossy(ByteChannel):\n"
        "    async def receive(self):\n"
        "        messages = await super().receive()\n"
        "        return messages[1:] or await super().receive()\n"
        "async def main():\n"
        "    checks = [check for check in TRANSPORT_CHECKS if 'returns_all' in check.__name__]\n"
        "    await run_checks(pair_of(StdioTransport()), [*checks, FRAMING_CHECKS[0]])\n"
        "    snakepit.transports._stdio.ByteChannel = Lossy\n"
        "    try:\n"
        "        await run_checks(pair_of(StdioTransport()), checks)\n"
        "    except* AssertionError as group:\n"
        "        print(*group.exceptions[0].__notes__, sep='')\n"
        "import snakepit.transports._stdio\n"
        f"anyio.run(main, backend={loop!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("check_receive_returns_all_that_has_come: ")
