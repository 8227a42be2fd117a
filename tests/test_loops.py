"""What the hot path takes from the loop that runs: its signals are events, on both."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio
import trio.testing
from _backends import virtual_time

from snakepit._loops import Signal, this_loop

pytestmark = pytest.mark.anyio


async def test_a_signal_wakes_all_who_wait_and_all_who_will() -> None:
    signal = this_loop().new_signal()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await signal.wait()
        woken.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        assert (woken, signal.is_set()) == ([], False)
        signal.set()
        assert signal.is_set()
        signal.set()
    assert sorted(woken) == [0, 1, 2]
    await wait(3)
    assert woken[-1] == 3


async def test_who_is_cancelled_waits_no_more_and_harms_nobody() -> None:
    signal = this_loop().new_signal()
    ended: list[str] = []

    async def wait(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await signal.wait()
            ended.append(name)

    scopes = {name: anyio.CancelScope() for name in ("first", "second", "third")}
    async with anyio.create_task_group() as tasks:
        for name, scope in scopes.items():
            tasks.start_soon(wait, name, scope)
            await anyio.wait_all_tasks_blocked()
        scopes["first"].cancel()
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait, "fourth", anyio.CancelScope())  # in the place of the first
        await anyio.wait_all_tasks_blocked()
        scopes["third"].cancel()
        await anyio.wait_all_tasks_blocked()
        assert ended == []
        signal.set()
    assert sorted(ended) == ["fourth", "second"]
    assert [scope.cancelled_caught for scope in scopes.values()] == [True, False, True]


@virtual_time
async def test_a_signal_that_is_set_and_a_deadline_at_the_same_moment_end_one_wait() -> None:
    """Whichever of them comes first, the task goes on once."""
    for first_set in (False, True):
        signal: Signal = this_loop().new_signal()
        with anyio.move_on_after(1) as scope:
            async with anyio.create_task_group() as tasks:

                async def later() -> None:
                    await anyio.sleep(1)
                    signal.set()  # noqa: B023 - this turn's

                tasks.start_soon(later)
                if first_set:
                    scope.deadline += 1e-9
                await signal.wait()
        await anyio.sleep(5)
        assert signal.is_set() or scope.cancelled_caught


def test_ctrl_c_cannot_leave_a_task_noted_and_not_asleep_or_asleep_and_not_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, bool]] = []
    reschedule, wait = trio.lowlevel.reschedule, trio.lowlevel.wait_task_rescheduled

    def noted(task: trio.lowlevel.Task) -> None:
        seen.append(("wakes", trio.lowlevel.currently_ki_protected()))
        reschedule(task)

    async def waits(abort: Any) -> None:
        seen.append(("sleeps", trio.lowlevel.currently_ki_protected()))
        await wait(abort)

    async def main() -> None:
        signal = this_loop().new_signal()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(signal.wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not trio.lowlevel.currently_ki_protected()
            signal.set()

    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "reschedule", noted)
        patch.setattr(trio.lowlevel, "wait_task_rescheduled", waits)
        trio.run(main)
    assert seen == [("sleeps", True), ("wakes", True)]
