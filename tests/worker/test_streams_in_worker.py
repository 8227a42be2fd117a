"""Streams as the worker serves them: credit, closing, failures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from worker_kit import Worker

from snakepit.protocol import Cancel, Credit, End, Result, Settled


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("worker_adapters:Stoppable") as worker:
        yield worker


@pytest.mark.parametrize("window", [1, 3])
def test_never_more_items_than_credit(worker: Worker, window: int) -> None:
    """At first the window, then exactly what each grant allows, then nothing until the next."""
    call = worker.begin("count", {"stop": 20}, window=window)
    expected = iter(range(20))
    for granted in (0, 1, 2, 1, 4):
        if granted:
            worker.send(Credit(call, granted))
        count = granted or window
        assert worker.items_of(call, count) == [next(expected) for _ in range(count)]
        worker.assert_quiet()
    worker.send(Credit(call, 100))
    rest = list(expected)
    assert worker.items_of(call, len(rest)) == rest
    assert worker.receive() == End(call)


def test_grants_add_up(worker: Worker) -> None:
    """Credit given before it is needed is kept, also while the call waits for its turn."""
    running = worker.begin("block", {"how": "sleep"})
    worker.wait_line("running")
    call = worker.begin("count", {"stop": 10}, window=1)
    worker.send(Credit(call, 2), Credit(call, 3))
    assert worker.cancel(running) == Settled(running)
    assert worker.items_of(call, 6) == [0, 1, 2, 3, 4, 5]
    worker.assert_quiet()
    assert worker.cancel(call) == Settled(call)


def test_credit_of_one_stream_is_no_credit_of_another(worker: Worker) -> None:
    first = worker.begin("count", {"stop": 2}, window=2)
    assert worker.items_of(first, 2) == [0, 1]
    assert worker.receive() == End(first)
    second = worker.begin("count", {"stop": 10}, window=1)
    assert worker.items_of(second, 1) == [0]
    worker.send(Credit(first, 5), Credit(999, 5))
    worker.assert_quiet()
    assert worker.cancel(second) == Settled(second)


def test_the_generator_is_at_most_one_item_ahead(worker: Worker) -> None:
    """Backpressure reaches the tool: it is not run further than one item past its credit."""
    call = worker.begin("count", {"stop": 100}, window=3)
    assert worker.items_of(call, 3) == [0, 1, 2]
    worker.assert_quiet()
    assert worker.cancel(call) == Settled(call)
    assert worker.call("read_notes") == ["made 0", "made 1", "made 2", "made 3", "closed"]


def test_a_stream_that_ends_within_its_window_needs_no_credit(worker: Worker) -> None:
    call = worker.begin("count", {"stop": 3}, window=3)
    assert worker.items_of(call, 3) == [0, 1, 2]
    assert worker.receive() == End(call)
    assert worker.call("read_notes") == ["made 0", "made 1", "made 2", "closed"]


def test_an_empty_stream_and_items_that_are_none(worker: Worker) -> None:
    empty = worker.begin("empty", window=1)
    assert worker.receive() == End(empty)
    nones = worker.begin("nones", {"count": 3}, window=5)
    assert worker.items_of(nones, 3) == [None, None, None]
    assert worker.receive() == End(nones)


def test_an_early_cancel_runs_finally_before_it_is_settled(worker: Worker) -> None:
    """Cancelled with the Call itself, after an item, or while it waits for credit."""
    for _ in range(50):
        call = worker.call_message("count", {"stop": 10**9}, window=10**9)
        worker.send(call, Cancel(call.id))
        message = worker.receive()
        while type(message) is not Settled:
            message = worker.receive()
        assert message.id == call.id
        notes = worker.call("read_notes")
        if message.ran and notes:
            assert notes[-1] == "closed"
            assert notes[:-1] == [f"made {number}" for number in range(len(notes) - 1)]
        else:
            assert notes == []


def test_an_error_after_items_follows_them(worker: Worker) -> None:
    call = worker.begin("fail_after", {"count": 2}, window=5)
    assert worker.items_of(call, 2) == [0, 1]
    failure = worker.failure_of(call)
    assert (failure.kind, failure.error.type) == ("tool", "builtins.LookupError")
    assert "no more" in failure.error.message
    assert worker.call("echo", {"value": 1}) == 1


def test_an_error_before_any_item(worker: Worker) -> None:
    call = worker.begin("fail_after", {"count": 0}, window=5)
    assert worker.failure_of(call).error.builtin == "LookupError"


def test_an_item_that_cannot_travel_fails_the_stream_and_closes_it(worker: Worker) -> None:
    """The failure says where in the item; items before it have come."""
    call = worker.begin("item_that_cannot_travel", window=5)
    assert worker.items_of(call, 1) == [1]
    failure = worker.failure_of(call)
    assert failure.kind == "serialization"
    assert "['inner'][0]" in failure.error.message
    assert worker.call("read_notes") == ["closed"]


@pytest.mark.parametrize(
    ("tool", "words"),
    [("returns_a_generator", "yield"), ("returns_what_cannot_travel", "['inner'][0]")],
)
def test_a_result_that_cannot_travel_is_a_failure(worker: Worker, tool: str, words: str) -> None:
    """A generator where a value was expected is one: nobody iterates it."""
    failure = worker.fail(tool)
    assert failure.kind == "serialization"
    assert words in failure.error.message
    assert worker.call("echo", {"value": 1}) == 1


def test_the_wrong_kind_of_call_is_refused_and_says_what_to_do(worker: Worker) -> None:
    streamed = worker.failure_of(worker.begin("echo", {"value": 1}, window=3))
    assert (streamed.kind, "execute" in streamed.error.message) == ("params", True)
    executed = worker.fail("count", {"stop": 3})
    assert (executed.kind, "stream" in executed.error.message) == ("params", True)
    assert worker.call("read_notes") == []


def test_unknown_tools_and_wrong_arguments_never_run_anything(worker: Worker) -> None:
    for tool, params, kind in (
        ("cuont", {"stop": 3}, "not_found"),
        ("count", {}, "params"),
        ("count", {"stop": 3, "start": 1}, "params"),
        ("count", {"stop": "three"}, "params"),
        ("count", [3], "params"),
    ):
        assert worker.failure_of(worker.begin(tool, params, window=1)).kind == kind
    assert worker.call("read_notes") == []


def test_calls_wait_for_the_stream_before_them(worker: Worker) -> None:
    """First come, first served: a stream without credit holds what comes after it."""
    stream = worker.begin("count", {"stop": 3}, window=2)
    later = worker.begin("echo", {"value": "later"})
    assert worker.items_of(stream, 2) == [0, 1]
    worker.assert_quiet()
    worker.send(Credit(stream, 1))
    assert worker.items_of(stream, 1) == [2]
    assert worker.receive() == End(stream)
    assert type(result := worker.receive()) is Result
    assert result.id == later
