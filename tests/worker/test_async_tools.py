"""Async tools run on a loop of the pool's choice, which lives from `initialize` to `cleanup`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from _backends import one_loop_each
from worker_kit import PATIENCE_S, Worker, cancel_at_the_return, start_message

from snakepit.protocol import (
    Cancel,
    Credit,
    End,
    Failure,
    Hello,
    Recall,
    Result,
    Returned,
    Settled,
    Shutdown,
)

CANCELLED = {"asyncio": "asyncio.exceptions.CancelledError", "trio": "trio.Cancelled"}
GRACE_S = 0.6

backends = pytest.mark.parametrize(
    "tool_backend", ["asyncio", pytest.param("trio", marks=pytest.mark.unmeasured)]
)
pytestmark = [backends, one_loop_each]


@pytest.fixture
def worker(tool_backend: str) -> Iterator[Worker]:
    with Worker("loop_adapters:Async", tool_backend=tool_backend, cancel_grace_s=GRACE_S) as worker:
        yield worker


# -- the loop ------------------------------------------------------------------------------------


def test_hooks_and_tools_share_one_loop_on_the_main_thread(
    worker: Worker, tool_backend: str
) -> None:
    """Sync tools run inline on it."""
    assert worker.call("where") == [True, True]
    assert worker.call("where_sync") == [True, True]
    assert worker.shut_down() == 0
    assert worker.lines == [f"initialized on {tool_backend}", "cleaned up on the same loop"]


def test_async_hooks_alone_bring_the_loop(tool_backend: str) -> None:
    with Worker("loop_adapters:AsyncHooksOnly", tool_backend=tool_backend) as worker:
        assert worker.call("loop_is_the_same") is True
        assert worker.shut_down() == 0
        assert worker.lines == ["initialized", "cleaned up"]


def test_an_async_initialize_that_raises_is_told(tool_backend: str) -> None:
    with Worker(start=False) as worker:
        worker.expect(Hello)
        worker.send(start_message("loop_adapters:HooksThatFail", (), tool_backend))
        failure = worker.failure_of(0)
        assert (failure.kind, failure.error.type) == ("start", "builtins.LookupError")
        assert worker.wait_exit() == 1


def test_background_tasks_live_between_calls(worker: Worker) -> None:
    """They run while no call does, survive a cancelled one, and end with the loop."""
    assert worker.call("start_ticking") is None
    worker.wait_line("tick 3")
    call = worker.begin("sleep")
    worker.wait_line("running")
    worker.wait_line(lambda line: line.startswith("tick "))  # beside a call, too
    assert worker.cancel(call) == Settled(call)
    worker.wait_line(lambda line: line.startswith("tick "))
    assert worker.shut_down() == 0
    assert "ticker ended" in worker.lines


def test_calls_run_one_at_a_time_in_order(worker: Worker) -> None:
    """Also while the first one awaits: a worker serves one call at a time."""
    calls = [worker.call_message("echo", {"value": number}) for number in range(20)]
    worker.send(*calls, Shutdown(5.0))
    assert [worker.value_of(call.id) for call in calls] == list(range(20))
    worker.receive()
    assert worker.wait_exit() == 0


# -- cancelling ----------------------------------------------------------------------------------


def test_an_async_tool_is_cancelled_by_its_own_loop(worker: Worker, tool_backend: str) -> None:
    """It sees what its loop raises; the loop and the worker live on."""
    call = worker.begin("sleep")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == [CANCELLED[tool_backend]]
    assert worker.call("loop_is_the_same") is True


def test_cleaning_up_may_await(worker: Worker) -> None:
    call = worker.begin("clean_up_slowly")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == [0, 1, 2, 3, 4]


def test_child_tasks_of_the_tool_are_cancelled_with_it(worker: Worker) -> None:
    call = worker.begin("in_child_tasks")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert sorted(worker.call("read_notes")) == ["a", "b"]


@pytest.mark.parametrize("what", ["ValueError", "SystemExit", "a value"])
def test_a_cancelled_call_ends_as_cancelled_whatever_comes_out(worker: Worker, what: str) -> None:
    call = worker.begin("turn_into", {"what": what})
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("echo", {"value": what}) == what


def test_a_tool_that_cleans_up_without_blocking_is_never_interrupted(worker: Worker) -> None:
    """However long it takes: how long it may is the host's to say."""
    call = worker.begin("clean_up_responsively", {"seconds": 1.5 * GRACE_S})
    worker.wait_line("running")
    assert worker.cancel(call, within=PATIENCE_S) == Settled(call)
    assert worker.call("read_notes") == ["cleaned up"]


@pytest.mark.parametrize("tool", ["block", "block_after_awaiting"])
def test_an_async_tool_that_blocks_its_loop_is_interrupted_after_half_the_grace(
    worker: Worker, tool: str
) -> None:
    """Not before: the loop's own cancellation has the first half to itself. The loop lives on."""
    call = worker.begin(tool)
    worker.wait_line("running")
    started = time.monotonic()
    assert worker.cancel(call, within=PATIENCE_S) == Settled(call)
    assert time.monotonic() - started >= GRACE_S / 2
    assert worker.call("read_notes") == (["ToolCancelled"] if tool == "block" else [])
    assert worker.call("loop_is_the_same") is True
    assert worker.call("echo", {"value": "next"}) == "next"


def test_a_tool_that_swallows_its_cancellation_and_blocks_is_interrupted(worker: Worker) -> None:
    call = worker.begin("swallow_then_block")
    worker.wait_line("running")
    assert worker.cancel(call, within=PATIENCE_S) == Settled(call)
    worker.wait_line("blocking")


def test_an_interrupt_that_python_swallows_is_followed_by_the_loops_cancellation(
    worker: Worker,
) -> None:
    """Lost in a `__del__` of an async tool: at its next await the tool hears of it."""
    call = worker.begin("block_in_del_then_here")
    worker.wait_line("running")
    assert worker.cancel(call, within=PATIENCE_S) == Settled(call)
    assert worker.call("read_notes") in ([], ["returned to ordinary code"])


def test_a_cooperative_async_tool_is_cancelled_by_its_loop_and_never_interrupted(
    worker: Worker,
) -> None:
    call = worker.begin("cooperative")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == [True, "went on"]


def test_a_sync_tool_on_the_loop_is_interrupted_at_once(worker: Worker) -> None:
    """The grace of async tools is not spent on it."""
    latencies = []
    for _ in range(3):
        call = worker.begin("sleep_sync")
        worker.wait_line("running")
        started = time.monotonic()
        assert worker.cancel(call) == Settled(call)
        latencies.append(time.monotonic() - started)
        assert worker.call("read_notes") == ["ToolCancelled"]
    assert min(latencies) < GRACE_S / 2


@pytest.mark.parametrize("tool", ["spin", "spin_sync"])
def test_a_cancel_that_meets_the_return_never_hits_the_next_call(worker: Worker, tool: str) -> None:
    """Hundreds of cancels, aimed at the very end of the tool: the call after it is untouched."""
    cancel_at_the_return(worker, tool, 400)


def test_a_call_that_waits_behind_an_async_one_is_settled_or_given_back_at_once(
    worker: Worker,
) -> None:
    running = worker.begin("sleep")
    worker.wait_line("running")
    cancelled, recalled = worker.begin("echo"), worker.begin("echo")
    assert worker.cancel(cancelled) == Settled(cancelled, ran=False)
    worker.send(Recall((running, cancelled, recalled)))
    assert worker.receive() == Returned((recalled,))
    assert worker.cancel(running) == Settled(running)


# -- streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["count", "count_sync"])
def test_never_more_items_than_credit(worker: Worker, tool: str) -> None:
    call = worker.begin(tool, {"stop": 10}, window=2)
    assert worker.items_of(call, 2) == [0, 1]
    worker.assert_quiet()
    worker.send(Credit(call, 3))
    assert worker.items_of(call, 3) == [2, 3, 4]
    worker.assert_quiet()
    worker.send(Credit(call, 100))
    assert worker.items_of(call, 5) == [5, 6, 7, 8, 9]
    assert worker.receive() == End(call)
    assert worker.call("read_notes") == ["closed"]


@pytest.mark.parametrize("tool", ["count", "count_sync", "count_awaiting_close"])
def test_a_generator_that_waits_for_credit_is_closed_by_a_cancel(worker: Worker, tool: str) -> None:
    """Its `finally` has run when the call is settled, awaits in it included."""
    call = worker.begin(tool, {"stop": 10}, window=1)
    assert worker.items_of(call, 1) == [0]
    worker.assert_quiet()
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["closed"]


@pytest.mark.parametrize("tool", ["first_then_sleep", "first_then_block"])
def test_an_async_generator_that_is_in_its_code_is_closed_by_a_cancel(
    worker: Worker, tool: str
) -> None:
    call = worker.begin(tool, window=5)
    assert worker.items_of(call, 1) == ["first"]
    worker.wait_line("running")
    assert worker.cancel(call, within=PATIENCE_S) == Settled(call)
    assert worker.call("read_notes") == ["closed"]
    assert worker.call("loop_is_the_same") is True


@pytest.mark.parametrize("tool", ["compute_then_close", "fail_then_close"])
def test_a_cancel_that_comes_while_a_generator_is_closed_cuts_nothing(
    worker: Worker, tool: str
) -> None:
    """Its `finally` may await: whatever the closing began with, it ends in peace."""
    call = worker.begin(tool, window=5)
    if tool == "compute_then_close":
        assert worker.items_of(call, 1) == ["first"]
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["closed"]


@pytest.mark.parametrize("tool", ["take_and_give", "stream_kept"])
def test_an_idle_worker_keeps_nothing_of_its_last_call(worker: Worker, tool: str) -> None:
    """Neither its argument nor its value nor the call itself."""
    window = 2 if tool == "stream_kept" else 0
    worker.send(worker.call_message(tool, {"kept": {"name": "argument"}}, window=window))
    lines = {worker.wait_line(lambda line: line.startswith("let go")) for _ in range(2)}
    assert lines == {"let go of the argument", "let go of the value"}
    while not isinstance(worker.receive(), End if window else Result):
        pass
    worker.call("watch_for_jobs")
    worker.wait_line("no call is left")


def test_errors_of_async_generators_follow_their_items(worker: Worker) -> None:
    call = worker.begin("fail_after", {"count": 2}, window=5)
    assert worker.items_of(call, 2) == [0, 1]
    failure = worker.failure_of(call)
    assert (failure.kind, failure.error.builtin) == ("tool", "LookupError")

    call = worker.begin("item_that_cannot_travel", window=5)
    assert worker.items_of(call, 1) == [1]
    failure = worker.failure_of(call)
    assert failure.kind == "serialization"
    assert "['inner'][0]" in failure.error.message
    assert worker.call("read_notes") == ["closed"]

    assert worker.fail("returns_an_async_generator").kind == "serialization"
    assert worker.call("read_notes") == []


# -- context -----------------------------------------------------------------------------------


def test_the_context_reaches_child_tasks_and_threads(worker: Worker) -> None:
    for _ in range(2):
        call = worker.begin("context_in_tasks")
        assert worker.value_of(call) == ["context_in_tasks", *[call] * 4]
    call = worker.begin("context_sync")
    assert worker.value_of(call) == ["context_sync", call]
    call = worker.begin("context_in_generator", window=2)
    assert worker.items_of(call, 2) == [["context_in_generator", call]] * 2
    assert worker.receive() == End(call)


def test_the_context_tells_the_deadline(worker: Worker) -> None:
    """On the worker's own monotonic clock; advice only."""
    call = worker.call_message("time_left", timeout_s=100.0)
    worker.send(call)
    assert 100.0 - PATIENCE_S < worker.value_of(call.id) <= 100.0
    assert worker.call("time_left") is None


@pytest.mark.parametrize("adapter", ["ContextOutside", "ContextOutsideSync"])
def test_there_is_no_context_outside_a_call(tool_backend: str, adapter: str) -> None:
    """Neither in `initialize` nor in `cleanup`, whatever ran between them."""
    with Worker(f"loop_adapters:{adapter}", tool_backend=tool_backend) as worker:
        assert worker.call("ask") == "ask"
        if "ask_async" in worker.tools:
            assert worker.call("ask_async") == "ask_async"
        assert worker.shut_down() == 0
        nothing = "context() works inside a tool's call"
        assert worker.lines == [f"initialize: {nothing}", f"cleanup: {nothing}"]


# -- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["sleep", "block", "count", "sleep_sync"])
def test_a_host_that_goes_ends_the_worker_whatever_runs(
    worker: Worker, tool: str, tool_backend: str
) -> None:
    """Cleanup runs on the loop, in bounds."""
    if tool == "count":
        call = worker.begin(tool, {"stop": 10}, window=1)
        assert worker.items_of(call, 1) == [0]
    else:
        worker.begin(tool)
        worker.wait_line("running")
    worker.hang_up()
    worker.wait_exit()
    assert worker.lines[-1] == "cleaned up on the same loop"


def test_nothing_of_this_writes_complaints(worker: Worker) -> None:
    """No "never retrieved", no "never awaited", no traceback from the loop."""
    for tool, window in (("sleep", 0), ("block", 0), ("first_then_sleep", 1), ("sleep_sync", 0)):
        call = worker.begin(tool, window=window)
        if window:
            assert worker.items_of(call, window) == ["first"]
        worker.wait_line("running")
        assert worker.cancel(call, within=PATIENCE_S) == Settled(call)
    message = worker.call_message("sleep")
    worker.send(message, Cancel(message.id))
    assert type(worker.receive()) is Settled
    assert not isinstance(worker.call("echo"), Failure)
    assert worker.shut_down() == 0
    assert {line.partition(" on ")[0] for line in worker.lines} <= {
        "initialized",
        "running",
        "cleaned up",
    }
