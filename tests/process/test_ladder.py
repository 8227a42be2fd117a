"""The stop ladder: ask, SIGTERM, SIGKILL, reap; each step bounded, whatever cancels its task."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import anyio
import pytest
from _backends import asyncio_only, virtual_time
from _leaks import is_alive
from _process_kit import STUBBORN, Child, python, shell

from snakepit.process import ExitStatus, Stoppable, climb

LONG_S = 60.0  # a grace that a passing test never waits for
SHORT_S = 0.05
POLITE = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"
KILLED = ExitStatus(signal=signal.SIGKILL)


async def climb_watched(child: Child, **options: Any) -> ExitStatus:
    """Climb, with somebody who watches the process."""
    graces = {"ask": None, "ask_grace_s": LONG_S, "term_grace_s": LONG_S}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child.watch)
        status = await climb(child.process, child.exited, **(graces | options))
        tasks.cancel_scope.cancel()
    return status


async def test_a_process_that_does_as_it_is_asked_gets_no_signal() -> None:
    with anyio.fail_after(10), shell("trap 'exit 9' TERM; echo ready; read go; exit 2") as child:
        await child.line()
        status = await climb_watched(child, ask=child.close_stdin)
    assert status == ExitStatus(exit_code=2)


async def test_a_process_that_does_not_is_told_by_sigterm_after_the_grace() -> None:
    asked_at = []
    with anyio.fail_after(10), shell(POLITE) as child:
        await child.line()
        status = await climb_watched(
            child, ask=lambda: asked_at.append(anyio.current_time()), ask_grace_s=SHORT_S
        )
        assert anyio.current_time() - asked_at[0] >= SHORT_S
    assert status == ExitStatus(exit_code=5)
    assert len(asked_at) == 1


async def test_without_a_request_the_ladder_begins_at_sigterm() -> None:
    with anyio.fail_after(10), shell(POLITE) as child:
        await child.line()
        assert await climb_watched(child) == ExitStatus(exit_code=5)


async def test_a_process_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    with anyio.fail_after(10), shell(STUBBORN) as child:
        await child.line()
        start = anyio.current_time()
        assert await climb_watched(child, term_grace_s=SHORT_S) == KILLED
        assert SHORT_S <= anyio.current_time() - start < 5


async def test_a_stopped_process_is_killed_after_the_grace() -> None:
    with anyio.fail_after(10), shell(POLITE) as child:
        await child.line()
        child.process.send_signal(signal.SIGSTOP)
        assert await climb_watched(child, term_grace_s=SHORT_S) == KILLED


async def test_a_process_that_has_ended_is_reaped_without_a_word() -> None:
    asked = []
    with anyio.fail_after(10), shell("exit 7") as child:
        await child.watch()
        status = await climb_watched(child, ask=lambda: asked.append(True), dump=True)
    assert status == ExitStatus(exit_code=7)
    assert asked == []


async def test_a_process_that_somebody_else_reaped_does_not_hold_the_ladder_up() -> None:
    with anyio.fail_after(10), shell("exit 7") as child:
        await child.process.wait_exit()
        os.waitpid(child.process.pid, 0)
        assert await climb_watched(child) == ExitStatus()


async def test_a_program_that_would_die_of_the_question_is_not_asked_for_a_dump() -> None:
    """A wrapper of a worker, say, or an interpreter that has hardly begun."""
    with anyio.fail_after(10), shell(POLITE) as child:
        await child.line()
        assert await climb_watched(child, dump=True) == ExitStatus(exit_code=5)


async def test_a_dump_is_asked_for_before_sigterm() -> None:
    script = "trap 'echo dump' QUIT; trap 'echo term; exit 0' TERM; echo ready;"
    with anyio.fail_after(10), shell(script + "while :; do sleep 0.01; done") as child:
        await child.line()
        assert await climb_watched(child, dump=True) == ExitStatus(exit_code=0)
        assert [await child.line(), await child.line()] == ["dump", "term"]


async def test_the_children_go_with_it_even_if_only_it_obeys() -> None:
    script = f"trap 'exit 5' TERM; sh -c \"{STUBBORN}\" & echo $!; wait; wait"
    with anyio.fail_after(10), shell(script) as child:
        numbers = {await child.line(), await child.line()} - {"ready"}
        grandchild = int(numbers.pop())
        assert await climb_watched(child) == ExitStatus(exit_code=5)
        while is_alive(grandchild):
            await anyio.sleep(0.005)


async def test_others_run_while_the_ladder_waits() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await anyio.sleep(0.001)
            turns += 1

    with anyio.fail_after(10), shell(STUBBORN) as child:
        await child.line()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await climb_watched(child, term_grace_s=SHORT_S)
            tasks.cancel_scope.cancel()
    assert turns >= 3


TELLING = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"told\\n"))
os.write(1, b"ready\\n")
while True:
    time.sleep(0.01)
"""


@pytest.mark.parametrize("when", ["before", "during"])
async def test_a_cancelled_ladder_is_climbed_to_its_end(when: str) -> None:
    """With its graces: cancelling its task does not make it rush, nor signal twice."""
    with anyio.fail_after(10), python(TELLING) as child:
        await child.line()
        start = anyio.current_time()
        async with anyio.create_task_group() as watching:
            watching.start_soon(child.watch)
            with anyio.CancelScope() as scope:
                if when == "before":
                    scope.cancel()
                else:
                    watching.start_soon(cancel_once_told, child, scope)
                status = await climb(
                    child.process, child.exited, ask=None, ask_grace_s=0, term_grace_s=0.2
                )
                assert anyio.current_time() - start >= 0.2
                assert status == KILLED
                await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        if when == "before":
            assert await child.line() == "told"
        with pytest.raises(AssertionError, match="it has ended"):
            await child.line()


async def cancel_once_told(child: Child, scope: anyio.CancelScope) -> None:
    assert await child.line() == "told"
    scope.cancel()


@asyncio_only
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_natively_cancelled_ladder_is_climbed_to_its_end(times: int) -> None:
    """A shield of anyio's does not stop `Task.cancel()`."""

    async def climb_it(child: Child) -> ExitStatus:
        return await climb(
            child.process, child.exited, ask=None, ask_grace_s=0, term_grace_s=SHORT_S * 4
        )

    with anyio.fail_after(10), python(TELLING) as child:
        await child.line()
        watch = asyncio.create_task(child.watch())
        task = asyncio.create_task(climb_it(child))
        assert await child.line() == "told"
        for _ in range(times):
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        assert not task.done()
        assert await task == KILLED
        await watch
        assert child.process.status == KILLED


class Deaf(Stoppable):
    """Ends at SIGKILL and at nothing else, and notes what it was sent, and when."""

    is_ours = True

    def __init__(self) -> None:
        self.exited = anyio.Event()
        self.notes: list[tuple[str, float]] = []
        self._begun = anyio.current_time()

    def note(self, what: str) -> None:
        self.notes.append((what, round(anyio.current_time() - self._begun, 6)))

    def send_signal(self, number: signal.Signals) -> None:
        self.note(number.name)
        if number == signal.SIGKILL:
            self.exited.set()

    def request_dump(self) -> None:
        self.note("dump")

    def kill_and_reap(self) -> ExitStatus:
        self.note("reaped")
        return KILLED


@virtual_time
@pytest.mark.parametrize(
    ("dump", "term_grace_s", "dump_s"),
    [(False, 2, 0), (True, 2, 0.1), (True, 0.1, 0.05), (True, 0, 0)],
)
async def test_the_graces_are_all_the_time_that_there_is(
    dump: bool, term_grace_s: float, dump_s: float
) -> None:
    """The stacks are written within the grace, and not on top of it."""
    deaf = Deaf()
    await climb(
        deaf,
        deaf.exited,
        ask=lambda: deaf.note("asked"),
        ask_grace_s=1,
        term_grace_s=term_grace_s,
        dump=dump,
    )
    assert deaf.notes == [
        ("asked", 0),
        *([("dump", 1)] if dump else []),
        ("SIGTERM", 1 + dump_s),
        ("SIGKILL", 1 + term_grace_s),
        ("reaped", 1 + term_grace_s),
    ]
