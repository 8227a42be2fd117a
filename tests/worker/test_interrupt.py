"""A sync tool is interrupted where it stands, in its own code and nowhere else."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _leaks import is_alive
from _shares import shares
from worker_kit import Worker, cancel_at_the_return, value

from snakepit.protocol import Cancel, Item, Recall, Returned, Settled

BLOCKING = ("sleep", "loop", "subprocess", "socket", "lock", "event", "select", "join")


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("worker_adapters:Stoppable") as worker:
        yield worker


@pytest.mark.parametrize("how", BLOCKING)
def test_a_blocking_call_is_interrupted_and_the_worker_keeps_its_state(how: str) -> None:
    """It ends as Settled at once; the same process goes on with the same objects."""
    with Worker("worker_adapters:Stoppable") as worker:
        model = worker.call("model_id")
        call = worker.begin("block", {"how": how})
        worker.wait_line("running")
        assert worker.cancel(call) == Settled(call)
        assert worker.call("model_id") == model
        assert [line for line in worker.lines if not line.startswith("pid ")] == ["running"]


def test_the_child_that_an_interrupted_tool_waits_for_is_gone(worker: Worker) -> None:
    """`subprocess.run` kills and reaps its child when the interrupt leaves through it."""
    call = worker.begin("block", {"how": "subprocess"})
    pid = int(worker.wait_line(lambda line: line.startswith("pid ")).split()[1])
    worker.wait_line("running")
    assert is_alive(pid)
    assert worker.cancel(call) == Settled(call)
    assert not is_alive(pid)


def test_an_interrupt_takes_milliseconds_at_most(worker: Worker) -> None:
    """The median over 20 cancels is far below what polling anything would take."""
    latencies = []
    for _ in range(20):
        call = worker.begin("block", {"how": "sleep"})
        worker.wait_line("running")
        started = time.perf_counter()
        assert worker.cancel(call) == Settled(call)
        latencies.append(time.perf_counter() - started)
    assert statistics.median(latencies) < 0.05


# -- the mask: no interrupt in library code -----------------------------------------------------


def test_a_result_being_written_into_a_full_pipe_arrives_whole(worker: Worker) -> None:
    """The interrupt hits the blocked write again and again and tears nothing."""
    call = worker.begin("large", {"nbytes": 3 * 2**20})
    worker.wait_full_pipe()
    worker.send(Cancel(call))
    worker.wait_heard()
    assert worker.value_of(call) == bytes(3 * 2**20)
    assert worker.call("echo", {"value": "next"}) == "next"


def test_an_item_being_written_into_a_full_pipe_arrives_whole(worker: Worker) -> None:
    """The item is finished, then the generator is closed, then the call is settled."""
    call = worker.begin("large_items", {"nbytes": 3 * 2**20}, window=3)
    worker.wait_full_pipe()
    worker.send(Cancel(call))
    worker.wait_heard()
    assert worker.items_of(call, 1) == [bytes(3 * 2**20)]
    assert worker.receive() == Settled(call)
    assert worker.call("read_notes") == ["closed"]


def test_a_failure_being_written_into_a_full_pipe_arrives_whole(worker: Worker) -> None:
    """What a tool raised is library code's to describe and to write."""
    call = worker.begin("large_error")
    worker.wait_full_pipe()
    worker.send(Cancel(call))
    worker.wait_heard()
    failure = worker.failure_of(call)
    assert failure.error.message == "x" * 60_000
    assert failure.error.notes == ("y" * 60_000,)
    assert worker.call("echo", {"value": "next"}) == "next"


def test_a_small_frame_that_waits_for_room_arrives_whole(worker: Worker) -> None:
    """Frames below the size of a part are finished, too."""
    call = worker.begin("large_items", {"nbytes": 50_000}, window=100)
    worker.wait_full_pipe()
    worker.send(Cancel(call))
    worker.wait_heard()
    message = worker.receive()
    while isinstance(message, Item):
        assert value(message) == bytes(50_000)
        message = worker.receive()
    assert message == Settled(call)
    assert worker.call("read_notes") == ["closed"]


def test_a_value_is_encoded_to_its_end(worker: Worker) -> None:
    """A cancel during the encoding of a big result comes too late; the result crosses it."""
    call = worker.begin("slow_to_encode")
    worker.wait_line("encoding")
    worker.send(Cancel(call))
    assert worker.value_of(call) == [{"field": 7}, list(range(100_000))]
    assert worker.call("echo", {"value": "next"}) == "next"


def test_a_tool_that_suspends_as_the_interrupt_comes_hears_of_its_cancellation() -> None:
    """No interrupt between an async tool and its loop, where only the library would hear it."""
    with Worker("loop_adapters:Async") as worker:
        call = worker.begin("suspend_as_the_interrupt_comes")
        worker.wait_line("running")
        assert worker.cancel(call) == Settled(call)
        assert worker.call("read_notes") == ["CancelledError"]


# -- one interrupt, until it lands ---------------------------------------------------------------


def test_a_finally_block_runs_to_its_end(worker: Worker) -> None:
    """The interrupt that led into the block is the only one."""
    call = worker.begin("with_finally")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == list(range(20))


def test_a_finally_block_after_check_cancelled_runs_to_its_end(worker: Worker) -> None:
    """A tool that has been told by check_cancelled() is not interrupted on top of it."""
    call = worker.begin("checking_then_cleaning_up")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == list(range(5))


def test_a_tool_that_swallows_the_interrupt_is_left_alone_until_it_ends(worker: Worker) -> None:
    """It ends as cancelled all the same, and its value goes nowhere."""
    call = worker.begin("swallow_once")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["swallowed", "went on"]


@pytest.mark.parametrize(
    "what", ["ValueError", "SystemExit", "KeyboardInterrupt", "StopIteration", "nothing"]
)
def test_a_cancelled_call_ends_as_cancelled_whatever_comes_out(worker: Worker, what: str) -> None:
    call = worker.begin("turn_into", {"what": what})
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("echo", {"value": what}) == what


@pytest.mark.parametrize(
    ("where", "times"),
    [
        ("del", 1),
        ("weakref_callback", 1),
        ("gc_callback", 1),
        ("ctypes_callback", 1),
        ("dels_one_after_the_other", 3),
    ],
)
def test_an_interrupt_that_python_swallows_is_repeated(
    worker: Worker, where: str, times: int
) -> None:
    """Where an exception cannot leave (`__del__`, callbacks) it is lost; the next one lands."""
    call = worker.begin("swallowed", {"where": where})
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["returned to ordinary code", "interrupted"]
    assert worker.lines == ["running"] * times


# -- imports ---------------------------------------------------------------------------------


def test_an_import_is_never_cut_short(worker: Worker, tmp_path: Path) -> None:
    """The interrupt waits until the module is whole, then it lands; importing again works."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    source = f"before = 1\nprint('importing')\nopen({str(gate)!r}).close()\nafter = 2\n"
    (tmp_path / "inner_module.py").write_text(source, encoding="utf-8")
    (tmp_path / "outer_module.py").write_text("import inner_module\nlast = 3\n", encoding="utf-8")
    params = {"folder": str(tmp_path), "name": "outer_module"}

    call = worker.begin("import_module", params)
    worker.wait_line("importing")
    worker.send(Cancel(call))
    worker.wait_heard()
    worker.assert_quiet()
    os.close(os.open(gate, os.O_WRONLY))
    assert worker.receive() == Settled(call)

    assert worker.call("imported", {"name": "inner_module"}) == ["after", "before"]
    assert worker.call("imported", {"name": "outer_module"}) == ["inner_module", "last"]
    assert worker.call("read_notes") in ([], ["outer_module imported"])
    again = worker.begin("import_module", params)
    worker.wait_line(f"imported in call {again}")
    assert worker.cancel(again) == Settled(again)
    assert worker.call("read_notes") == ["outer_module imported"]


# -- the right call ----------------------------------------------------------------------------


@pytest.mark.unmeasured
@pytest.mark.parametrize("share", shares(40))
def test_a_cancel_that_meets_the_return_never_hits_the_next_call(
    worker: Worker, share: int
) -> None:
    """20,000 cancels in all, aimed at the very end of the tool: the call after it is untouched."""
    cancel_at_the_return(worker, "spin", 500)


def test_a_cancel_of_a_finished_or_unknown_call_does_nothing(worker: Worker) -> None:
    finished = worker.begin("echo", {"value": 1})
    assert worker.value_of(finished) == 1
    running = worker.begin("block", {"how": "sleep"})
    worker.wait_line("running")
    worker.send(Cancel(finished), Cancel(12345))
    worker.assert_quiet()
    assert worker.cancel(running) == Settled(running)


def test_only_the_host_decides_that_time_is_up(worker: Worker) -> None:
    """What the worker is told of it is advice: the tool goes on until it is cancelled."""
    late = worker.call_message("spin", {"seconds": 0.05}, timeout_s=0.001)
    over = worker.call_message("spin", {"seconds": 0.05}, timeout_s=0.0)
    worker.send(late, over)
    assert [worker.value_of(call.id) for call in (late, over)] == ["spun"] * 2
    endless = worker.call_message("block", {"how": "sleep"}, timeout_s=0.001)
    worker.send(endless)
    worker.wait_line("running")
    worker.assert_quiet()
    assert worker.cancel(endless.id) == Settled(endless.id)


def test_a_call_that_waits_is_settled_at_once_and_never_runs(worker: Worker) -> None:
    """The call that runs before it does not notice."""
    running = worker.begin("swallow_once")
    worker.wait_line("running")
    waiting = [
        worker.begin("count", {"stop": 3}, window=2),
        worker.begin("turn_into", {"what": ""}),
    ]
    for call in waiting:
        assert worker.cancel(call) == Settled(call, ran=False)
    worker.assert_quiet()
    assert worker.cancel(running) == Settled(running)
    assert worker.call("read_notes") == ["swallowed", "went on"]


def test_calls_that_have_not_begun_are_given_back(worker: Worker) -> None:
    """Recall names them in Returned; what runs, has run or is unknown is not among them."""
    done = worker.begin("echo", {"value": 0})
    assert worker.value_of(done) == 0
    running = worker.begin("block", {"how": "sleep"})
    worker.wait_line("running")
    first, second, third = (worker.begin("echo", {"value": n}) for n in range(3))
    worker.send(Recall((first, done, running, third, 999)))
    assert worker.receive() == Returned((first, third))
    worker.send(Recall((first,)))
    assert worker.receive() == Returned(())
    assert worker.cancel(running) == Settled(running)
    assert worker.value_of(second) == 1
    assert worker.call("echo", {"value": "next"}) == "next"


# -- on_cancel="cooperative" ---------------------------------------------------------------------


def test_a_cooperative_tool_is_never_interrupted_and_sees_cancelled(worker: Worker) -> None:
    call = worker.begin("cooperative")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["saw cancelled", "went on"]


def test_check_cancelled_raises_in_a_cooperative_tool(worker: Worker) -> None:
    call = worker.begin("checking")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["this call was cancelled"]


def test_a_cooperative_tool_is_not_interrupted_though_python_swallowed_its_check(
    worker: Worker,
) -> None:
    """The interrupt is repeated where one was lost; here there was none."""
    call = worker.begin("cooperative_checking_in_del")
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["went on"]


# -- arguments and context ------------------------------------------------------------------------


def test_the_constructor_of_an_argument_has_the_context_of_its_call(worker: Worker) -> None:
    for _ in range(2):
        call = worker.begin("take_nosy", {"nosy": {"wait": False}})
        assert worker.value_of(call) == [call, call]


def test_a_call_that_ends_cancelled_while_its_arguments_are_converted_is_settled(
    worker: Worker,
) -> None:
    """The call behind it is not touched."""
    call = worker.begin("take_nosy", {"nosy": {"wait": True}})
    worker.wait_line("converting")
    assert worker.cancel(call) == Settled(call)
    following = worker.begin("take_nosy", {"nosy": {"wait": False}})
    assert worker.value_of(following) == [following, following]


def test_an_idle_worker_keeps_nothing_of_its_last_call(worker: Worker) -> None:
    """Neither its argument nor its value nor the call itself."""
    worker.send(worker.call_message("take_and_give", {"kept": {"name": "argument"}}))
    worker.receive()
    lines = {worker.wait_line(lambda line: line.startswith("let go")) for _ in range(2)}
    assert lines == {"let go of the argument", "let go of the value"}
    worker.call("watch_for_jobs")
    worker.wait_line("no call is left")


# -- generators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sleep", "loop", "lock"])
def test_a_generator_is_interrupted_in_its_code_and_its_finally_runs(
    worker: Worker, how: str
) -> None:
    call = worker.begin("first_then_block", {"how": how}, window=5)
    assert worker.items_of(call, 1) == ["first"]
    worker.wait_line("running")
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == list(range(20))


def test_a_generator_that_waits_for_credit_is_closed_without_an_interrupt(worker: Worker) -> None:
    """GeneratorExit is its notice; its `finally` runs to its end."""
    call = worker.begin("close_slowly", window=1)
    assert worker.items_of(call, 1) == [0]
    worker.assert_quiet()
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == list(range(20))


def test_a_generator_that_is_closed_is_not_interrupted_though_python_swallowed_its_check(
    worker: Worker,
) -> None:
    call = worker.begin("closing_with_a_check_in_del", window=1)
    assert worker.items_of(call, 1) == [0]
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["closed"]


def test_a_generator_that_refuses_to_close_is_settled_all_the_same(worker: Worker) -> None:
    call = worker.begin("refuse_to_close", window=1)
    assert worker.items_of(call, 1) == [1]
    assert worker.cancel(call) == Settled(call)
    assert set(worker.call("read_notes")) == {"refused"}  # Python asks it again as it drops it
