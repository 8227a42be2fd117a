"""`context().session` in the worker: what is kept, for whom, and when it is let go of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from worker_kit import Worker

from snakepit.protocol import Call, End, EndSession, Recall, Returned, Settled

pytestmark = pytest.mark.unmeasured

LANES = [
    ("session_adapters:Remembering", "asyncio"),
    ("session_adapters:AsyncRemembering", "asyncio"),
    ("session_adapters:AsyncRemembering", "trio"),
]


@pytest.fixture(params=LANES, ids=["main", "asyncio", "trio"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    adapter, backend = request.param
    with Worker(adapter, tool_backend=backend) as worker:
        yield worker


def in_session(
    worker: Worker, session: str | None, tool: str, params: object = None, /, **options: Any
) -> Call:
    """A call in a session, not yet sent."""
    call = worker.call_message(tool, params, **options)
    return msgspec.structs.replace(call, session=session)


def ask(worker: Worker, session: str | None, tool: str, params: object = None, /) -> Any:
    call = in_session(worker, session, tool, params)
    worker.send(call)
    return worker.value_of(call.id)


def told(worker: Worker, session: str | None, value: object) -> Any:
    return ask(worker, session, "remember", {"value": value})


def test_calls_of_a_session_find_what_those_before_them_left(worker: Worker) -> None:
    """And nobody else does; a call without a session has a dict of its own."""
    assert told(worker, "a", 1) == [1]
    assert told(worker, "b", 2) == [2]
    assert told(worker, "a", 3) == [1, 3]
    for _ in range(2):
        assert told(worker, None, 4) == [4]
    assert told(worker, "", 5) == [5]
    assert told(worker, "b", 6) == [2, 6]


def test_a_tool_knows_the_id_of_its_session(worker: Worker) -> None:
    assert ask(worker, "user_42", "whose") == "user_42"
    assert ask(worker, None, "whose") is None
    assert ask(worker, "\N{SNAKE}", "whose") == "\N{SNAKE}"


def test_streams_threads_and_failures_share_the_state(worker: Worker) -> None:
    stream = in_session(worker, "a", "count", {"stop": 2}, window=9)
    worker.send(stream)
    assert worker.items_of(stream.id, 2) == [1, 2]
    assert worker.expect(End) == End(stream.id)
    assert ask(worker, "a", "remember_in_a_thread", {"value": 3}) == [3]
    fails = in_session(worker, "a", "fail", {"value": 4})
    worker.send(fails)
    assert worker.failure_of(fails.id).error.message == "[3, 4]"
    assert told(worker, "a", 5) == [3, 4, 5]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_tools_share_it_as_well(backend: str) -> None:
    with Worker("session_adapters:AsyncRemembering", tool_backend=backend) as worker:
        assert told(worker, "a", 1) == [1]
        assert ask(worker, "a", "remember_later", {"value": 2}) == [1, 2]
        stream = in_session(worker, "a", "count_later", {"stop": 2}, window=9)
        worker.send(stream)
        assert worker.items_of(stream.id, 2) == [1, 2]
        assert worker.expect(End) == End(stream.id)


def test_the_end_of_a_session_drops_its_state_and_no_other(worker: Worker) -> None:
    told(worker, "a", 1)
    told(worker, "b", 1)
    worker.send(EndSession("a"), EndSession("a"), EndSession("never seen"))
    assert told(worker, "a", 2) == [2]
    assert told(worker, "b", 2) == [1, 2]


def test_the_end_takes_its_turn_among_the_calls(worker: Worker) -> None:
    """Calls that came before it and wait belong to the old session, those after it to the new."""
    told(worker, "a", 1)
    running = in_session(worker, "a", "sleep")
    waiting = in_session(worker, "a", "remember", {"value": 2})
    after = in_session(worker, "a", "remember", {"value": 3})
    worker.send(running)
    worker.wait_line("asleep")
    worker.send(waiting, EndSession("a"), after)
    assert worker.cancel(running.id) == Settled(running.id)
    assert worker.value_of(waiting.id) == [1, 2]
    assert worker.value_of(after.id) == [3]


def test_a_call_that_is_given_back_or_never_begins_changes_nothing(worker: Worker) -> None:
    told(worker, "a", 1)
    running = in_session(worker, "b", "sleep")
    back = in_session(worker, "a", "remember", {"value": 2})
    worker.send(running)
    worker.wait_line("asleep")
    worker.send(back, Recall((back.id,)))
    assert worker.expect(Returned).ids == (back.id,)
    worker.cancel(running.id)
    assert told(worker, "a", 3) == [1, 3]


def test_a_call_that_comes_again_has_its_turn_where_it_came_again(worker: Worker) -> None:
    """The end of its session came before that, so it belongs to the new one."""
    told(worker, "a", 1)
    running = in_session(worker, "b", "sleep")
    twice = in_session(worker, "a", "remember", {"value": 2})
    worker.send(running)
    worker.wait_line("asleep")
    worker.send(twice, Recall((twice.id,)))
    assert worker.expect(Returned).ids == (twice.id,)
    worker.send(EndSession("a"), twice)
    assert worker.cancel(running.id) == Settled(running.id)
    assert worker.value_of(twice.id) == [2]
    assert told(worker, "a", 3) == [2, 3]


def test_a_cancelled_call_does_not_end_its_session(worker: Worker) -> None:
    told(worker, "a", 1)
    running = in_session(worker, "a", "sleep")
    worker.send(running)
    worker.wait_line("asleep")
    assert worker.cancel(running.id) == Settled(running.id)
    assert told(worker, "a", 2) == [1, 2]


def test_what_was_kept_is_dropped_where_tools_run(worker: Worker) -> None:
    """At once if the worker idles, else after the call that runs; in the main thread in any case."""
    ask(worker, "a", "keep", {"name": "idle"})
    worker.send(EndSession("a"))
    worker.wait_line("idle dropped in the main thread")
    ask(worker, "a", "keep", {"name": "busy"})
    running = in_session(worker, "b", "sleep")
    worker.send(running)
    worker.wait_line("asleep")
    worker.send(EndSession("a"))
    assert not [line for line in worker.lines if "busy dropped" in line]
    worker.cancel(running.id)
    worker.wait_line("busy dropped in the main thread")
    assert ask(worker, None, "whose") is None


def test_what_a_call_without_session_kept_is_dropped_with_it(worker: Worker) -> None:
    ask(worker, None, "keep", {"name": "single"})
    worker.wait_line("single dropped in the main thread")
