"""What tools tell of their progress, as it leaves the worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _backends import one_loop_each
from worker_kit import Worker, value

from snakepit.protocol import Call, Cancel, End, Item, Progress, Result, Settled, ToHost
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import Job
from snakepit.worker._progress import INTERVAL_S, MESSAGE_CHARS_MAX, Reporter
from snakepit.worker._wire import Wire

pytestmark = [pytest.mark.unmeasured, one_loop_each]

PIPE_PAGES = 16


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("progress_adapters:Telling") as worker:
        yield worker


def conversation(worker: Worker, call: int) -> tuple[list[Progress], ToHost]:
    """All that is told of a call, and its outcome."""
    told = []
    while isinstance(message := worker.receive(), Progress):
        assert message.id == call
        told.append(message)
    return told, message


# -- how much is sent ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_the_first_and_the_last_update_arrive_before_the_outcome(
    worker: Worker, count: int
) -> None:
    call = worker.begin("tell", {"count": count})
    told, outcome = conversation(worker, call)
    assert isinstance(outcome, Result)
    assert told[0] == Progress(call, 1, count)
    assert told[-1] == Progress(call, count, count)
    assert len(told) == len({update.done for update in told})


def test_hundreds_of_thousands_of_updates_are_a_few_messages(worker: Worker) -> None:
    """One in each interval at most, in order, and the latest each time."""
    call = worker.begin("tell", {"count": 300_000})
    told, outcome = conversation(worker, call)
    assert isinstance(outcome, Result)
    assert 2 <= len(told) <= 3 + value(outcome) / INTERVAL_S
    done = [update.done for update in told]
    assert done == sorted(done)
    assert done[-1] == 300_000


def test_an_update_that_came_too_soon_is_sent_although_the_tool_tells_no_more(
    worker: Worker,
) -> None:
    call = worker.begin("tell_and_stay", {"count": 3})
    assert worker.expect(Progress) == Progress(call, 1, 3, "step 1")
    assert worker.expect(Progress) == Progress(call, 3, 3, "step 3")
    worker.assert_quiet()
    assert worker.cancel(call) == Settled(call)


def test_an_update_is_out_before_a_step_that_holds_the_gil(worker: Worker, tmp_path: Path) -> None:
    """No other thread of the worker could send it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    call = worker.begin("tell_and_hold_the_gil", {"fifo": str(fifo)})
    try:
        assert worker.expect(Progress) == Progress(call, 1, 2, "a long step in C")
    finally:
        os.close(os.open(fifo, os.O_WRONLY))
    assert worker.value_of(call) is None


def test_a_call_that_fails_has_told_everything(worker: Worker) -> None:
    call = worker.begin("tell_and_fail")
    assert [worker.expect(Progress).done, worker.expect(Progress).done] == [1, 2]
    assert worker.failure_of(call).error.type == "builtins.LookupError"


def test_an_idle_worker_keeps_nothing_of_a_call_that_told(worker: Worker) -> None:
    conversation(worker, worker.begin("tell", {"count": 100}))
    worker.call("watch_for_calls")
    worker.wait_line("no call is left")


# -- who tells -----------------------------------------------------------------------------------


def test_threads_in_the_context_of_the_call_tell_for_it(worker: Worker) -> None:
    """Many at once; whichever is last, no update comes twice."""
    call = worker.begin("tell_from_threads", {"count": 20})
    told, outcome = conversation(worker, call)
    assert isinstance(outcome, Result)
    assert 2 <= len(told) == len({update.done for update in told})


def test_what_is_told_after_the_end_of_the_call_is_never_sent(worker: Worker) -> None:
    """A thread goes on telling, through the outcome and through the next calls."""
    call = worker.begin("leave_a_telling_thread")
    _, outcome = conversation(worker, call)
    assert isinstance(outcome, Result)
    for number in range(20):
        assert worker.call("echo", {"value": number}) == number
    worker.assert_quiet(3 * INTERVAL_S)
    assert worker.call("stop") is None
    worker.wait_line("stopped telling")


def test_a_forked_child_tells_nothing_and_is_left_alone(worker: Worker) -> None:
    call = worker.begin("tell_in_a_forked_child")
    told, outcome = conversation(worker, call)
    assert isinstance(outcome, Result)
    assert value(outcome) == 7
    assert told == [Progress(call, 1, None, "parent")]


def test_a_stream_tells_between_its_items(worker: Worker) -> None:
    call = worker.begin("tell_between_items", {"count": 3}, window=10)
    messages = [worker.receive()]
    while not isinstance(messages[-1], End):
        messages.append(worker.receive())
    assert messages[0] == Progress(call, 1, 3)
    assert messages[-2] == Progress(call, 3, 3, "done")
    assert [value(message) for message in messages if isinstance(message, Item)] == [1, 2, 3]


@pytest.mark.parametrize("tool_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("tool", ["tell", "tell_async", "tell_in_a_task", "tell_in_a_thread"])
def test_tools_on_a_loop_tell_like_any_other(tool_backend: str, tool: str) -> None:
    """Sync ones that run inline on it, async ones, their tasks and their threads."""
    with Worker("progress_adapters:AsyncTelling", tool_backend=tool_backend) as worker:
        call = worker.begin(tool, {"count": 50})
        told, outcome = conversation(worker, call)
        assert isinstance(outcome, Result)
        assert (told[0].done, told[-1].done) == (1, 50)
        call = worker.begin("tell_between_items", {"count": 1}, window=2)
        assert worker.expect(Progress) == Progress(call, 1, 1)
        assert worker.items_of(call, 1) == [1]
        assert worker.receive() == End(call)


# -- cancelling ----------------------------------------------------------------------------------


def test_a_cancelled_call_tells_nothing(worker: Worker) -> None:
    call = worker.begin("tell_after_the_cancel")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    worker.assert_quiet(3 * INTERVAL_S)


@pytest.mark.unmeasured
def test_cancels_at_any_moment_of_telling_leave_the_wire_whole(worker: Worker) -> None:
    """200 tools that tell all the time, each interrupted somewhere."""
    for number in range(200):
        call = worker.begin("tell_for_ever")
        worker.wait_line("running")
        time.sleep(number % 10 * INTERVAL_S / 15)  # to hit each part of an interval
        worker.send(Cancel(call))
        assert conversation(worker, call)[1] == Settled(call)
        assert worker.call("echo", {"value": number}) == number


@pytest.mark.unmeasured
@pytest.mark.parametrize("tool_backend", ["asyncio", "trio"])
def test_an_async_tool_that_tells_all_the_time_can_be_cancelled(tool_backend: str) -> None:
    """In a loop that never awaits it is interrupted; where it awaits, its loop cancels it."""
    with Worker(
        "progress_adapters:AsyncTelling", tool_backend=tool_backend, cancel_grace_s=0.2
    ) as worker:
        for tool in ("tell_for_ever", "tell_and_sleep_for_ever"):
            call = worker.begin(tool)
            assert worker.expect(Progress).done == 1
            worker.send(Cancel(call))
            assert conversation(worker, call)[1] == Settled(call)
        assert isinstance(conversation(worker, worker.begin("tell_async", {"count": 2}))[1], Result)


def fill_the_pipe(worker: Worker) -> int:
    """Have the tool that runs write into the full pipe; the number of the update that waits."""
    number = PIPE_PAGES + 1
    worker.wait_line(f"telling {number}")
    worker.wait_asleep()
    return number


def test_an_update_being_written_into_a_full_pipe_arrives_whole(worker: Worker) -> None:
    """The interrupt hits the write again and again, and lands behind it."""
    call = worker.begin("tell_into_a_full_pipe")
    last = fill_the_pipe(worker)
    worker.send(Cancel(call))
    worker.wait_heard()
    told, outcome = conversation(worker, call)
    assert outcome == Settled(call)
    assert [update.done for update in told] == list(range(1, last + 1))
    assert worker.call("echo", {"value": "next"}) == "next"


def test_telling_while_the_same_thread_writes_waits_for_nothing(worker: Worker) -> None:
    """A signal handler of the user's, inside the write of an update, tells one more."""
    call = worker.begin("tell_from_a_signal_handler", {"count": PIPE_PAGES + 2})
    fill_the_pipe(worker)
    time.sleep(2 * INTERVAL_S)  # so that the next update is not one that waits for its time
    worker.send_signal(signal.SIGUSR1)
    worker.wait_line("told in between")
    told, outcome = conversation(worker, call)
    assert isinstance(outcome, Result)
    assert told[-1].done == PIPE_PAGES + 2
    assert {update.done for update in told} >= set(range(1, PIPE_PAGES + 2))


# -- when threads meet, one step at a time -------------------------------------------------------


class MeetingWire(Wire):
    """Before it is a message's turn, something else comes in between."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__(-1, 0)
        self.sent: list[ToHost | None] = []
        self._meanwhile = [meanwhile]

    def send_taken(self, take: Callable[[], ToHost | None], *, wait: bool) -> bool:
        if self._meanwhile:
            self._meanwhile.pop()()
        self.sent.append(take())
        return True


def test_an_update_of_two_threads_that_meet_is_sent_once() -> None:
    """Both find that it is time; the first one sends the latest of the two."""
    job = Job(Call(1, "tool"))
    wire = MeetingWire(lambda: reporter.report(job, 2, None, None))
    reporter = Reporter(wire, Interrupt())
    reporter.report(job, 1, None, None)
    assert wire.sent == [Progress(1, 2), None]


def test_an_update_that_meets_the_end_of_its_call_is_not_sent_behind_it() -> None:
    job = Job(Call(1, "tool"))
    wire = MeetingWire(lambda: setattr(job, "over", True))
    Reporter(wire, Interrupt()).report(job, 1, None, None)
    assert wire.sent == [None]


# -- what is told --------------------------------------------------------------------------------

GOOD: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "ints": ((3, 10), (3, 10, None)),
    "floats": ((0.25, 1.0, "a quarter"), (0.25, 1.0, "a quarter")),
    "zero of nothing": ((0, 0), (0, 0, None)),
    "more than all": ((11, 10), (11, 10, None)),
    "large ints": ((2**53, 2**70), (2**53, 2.0**70, None)),
    "of NumPy": ((np.int64(3), np.float32(0.5)), (3, 0.5, None)),
    "no text": ((1, None, ""), (1, None, "")),
    "much text": ((1, None, "é" * 5000), (1, None, "é" * MESSAGE_CHARS_MAX)),
}
BAD: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "a str": (("1",), "TypeError", "progress: done must be a number, not str"),
    "None": ((None,), "TypeError", "progress: done must be a number, not NoneType"),
    "a bool": ((True,), "TypeError", "progress: done must be a number, not bool"),
    "a complex": ((1, 1j), "TypeError", "progress: total must be a number, not complex"),
    "below 0": ((-1,), "ValueError", "progress: done must be finite and not below 0, not -1"),
    "NaN": ((nan,), "ValueError", "progress: done must be finite and not below 0, not nan"),
    "inf": ((1, inf), "ValueError", "progress: total must be finite and not below 0, not inf"),
    "bytes": (
        (1, None, b"x"), "TypeError", "progress: message must be a string or None, not bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", GOOD)
def test_numbers_and_text_arrive_as_they_were_told(worker: Worker, what: str) -> None:
    given, wanted = GOOD[what]
    call = worker.begin("tell_one", {"values": given})
    update = worker.expect(Progress)
    assert (update.done, update.total, update.message) == wanted
    assert [type(update.done), type(update.total)] == [type(wanted[0]), type(wanted[1])]
    assert worker.value_of(call) == "told"


def test_text_that_is_no_unicode_is_escaped(worker: Worker) -> None:
    call = worker.begin("tell_lone_surrogate")
    assert worker.expect(Progress) == Progress(call, 1, None, "half \\ud800")
    assert worker.value_of(call) is None


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_progress_is_an_error_in_the_tool(worker: Worker, what: str) -> None:
    values, kind, message = BAD[what]
    failure = worker.fail("tell_one", {"values": values})
    assert (failure.error.type, failure.error.message) == (f"builtins.{kind}", message)
