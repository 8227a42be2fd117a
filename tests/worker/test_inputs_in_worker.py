"""Inputs as the worker serves them: asked for when needed, under a window, over with their call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from _backends import LOOPS, one_loop_each
from msgspec import Raw
from msgspec.msgpack import Ext, encode
from worker_kit import Worker, value

from snakepit.protocol import (
    Call,
    Cancel,
    Credit,
    End,
    Failure,
    InputCredit,
    InputEnd,
    InputItem,
    InputStop,
    Item,
    Result,
    Settled,
    encode_value,
)

pytestmark = [pytest.mark.unmeasured, one_loop_each]

# Each kind of tool on each kind of lane. Which loop runs under a lane it does not know.
KINDS = {"sync": "SyncInputs", "sync on a loop": "SyncInputsOnLoop", "async": "AsyncInputs"}
is_sync = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("sync")])
is_async = pytest.mark.parametrize("kind", ["async"])


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=LOOPS)
def tool_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def worker(kind: str, tool_backend: str) -> Iterator[Worker]:
    adapter = f"input_adapters:{KINDS[kind]}"
    with Worker(adapter, tool_backend=tool_backend, cancel_grace_s=5) as worker:
        yield worker


class Asked:
    """A call with inputs: `numbers` says which argument is which input."""

    def __init__(
        self,
        worker: Worker,
        tool: str,
        numbers: dict[str, int],
        /,
        *,
        input_window: int = 4,
        window: int = 0,
        **params: Any,
    ) -> None:
        self.worker = worker
        call = worker.call_message(tool, {}, window=window)
        arguments = {**params, **{name: Ext(18, encode(n)) for name, n in numbers.items()}}
        self.id = call.id
        worker.send(
            Call(
                call.id,
                tool,
                Raw(encode(arguments)),
                window=window,
                input_window=input_window,
            )
        )

    def expect_credit(self, count: int, number: int = 0) -> None:
        assert self.worker.expect(InputCredit) == InputCredit(self.id, number, count)

    def feed(self, *items: object, number: int = 0) -> None:
        self.worker.send(*(InputItem(self.id, number, *encode_value(item)) for item in items))

    def end(self, number: int = 0) -> None:
        self.worker.send(InputEnd(self.id, number))

    def value(self) -> Any:
        """The result; credit may come before it."""
        while type(message := self.worker.receive()) is InputCredit:
            pass
        assert isinstance(message, Result), message
        return value(message)

    def failure(self) -> Failure:
        while type(message := self.worker.receive()) is InputCredit:
            pass
        assert isinstance(message, Failure), message
        return message


def test_items_come_in_order_until_the_end(worker: Worker) -> None:
    call = Asked(worker, "collect", {"items": 0})
    call.expect_credit(4)
    call.feed(*range(4))
    call.expect_credit(2)
    call.expect_credit(2)
    call.feed("four", None, (6,))
    call.end()
    assert call.value() == [0, 1, 2, 3, "four", None, (6,)]


def test_an_empty_input(worker: Worker) -> None:
    call = Asked(worker, "total", {"numbers": 0})
    call.expect_credit(4)
    call.end()
    assert call.value() == 0


def test_nothing_is_asked_for_before_the_tool_asks(worker: Worker) -> None:
    call = Asked(worker, "never_asks", {"items": 0})
    assert worker.value_of(call.id) == "uninterested"


@pytest.mark.parametrize(("window", "further"), [(1, [1] * 6), (3, [2, 2, 2]), (16, [])])
def test_credit_is_the_window_and_then_what_was_taken(
    worker: Worker, window: int, further: list[int]
) -> None:
    """Never more are granted than the window and what the tool has taken."""
    call = Asked(worker, "first", {"items": 0}, input_window=window, count=6)
    call.expect_credit(window)
    granted, fed, told = window, 0, []
    while fed < 6:
        call.feed(fed)
        fed += 1
        worker.wait_line(f"took {fed - 1}")
        if sum(further[: len(told) + 1]) <= fed and len(told) < len(further):
            told.append(further[len(told)])
            call.expect_credit(told[-1])
            granted += told[-1]
        assert granted <= window + fed
    assert call.value() == list(range(6))


def test_two_inputs_of_one_call(worker: Worker) -> None:
    call = Asked(worker, "zipped", {"left": 0, "right": 1}, input_window=2)
    left, right = iter(range(5)), iter("abcde")
    while type(message := worker.receive()) is InputCredit:
        for _ in range(message.count):
            item = next(right if message.input else left, None)
            if item is None:
                call.end(message.input)
            else:
                call.feed(item, number=message.input)
    assert isinstance(message, Result), message
    assert value(message) == [[0, "a"], [1, "b"], [2, "c"], [3, "d"], [4, "e"]]


def test_an_input_and_a_stream_together(worker: Worker) -> None:
    """Each direction has its own credit: a stream that may not send asks for nothing further."""
    call = Asked(worker, "doubled", {"numbers": 0}, window=1, input_window=2)
    call.expect_credit(2)
    call.feed(1, 2)
    assert sorted(type(worker.receive()).__name__ for _ in range(3)) == [
        "InputCredit",
        "InputCredit",
        "Item",
    ]
    worker.assert_quiet()
    worker.send(Credit(call.id, 1))
    assert value(worker.expect(Item)) == 4
    call.end()
    assert worker.expect(End) == End(call.id)
    worker.wait_line("closed")


def test_large_items_arrive_whole(worker: Worker) -> None:
    call = Asked(worker, "collect", {"items": 0})
    call.expect_credit(4)
    items = [bytes([number]) * 2_000_000 for number in range(3)]
    call.feed(*items, ["text" * 500_000])
    call.end()
    assert call.value() == [*items, ["text" * 500_000]]


# -- annotations ---------------------------------------------------------------------------------


def test_items_are_converted_as_the_annotation_says(worker: Worker) -> None:
    call = Asked(worker, "points", {"items": 0})
    call.expect_credit(4)
    call.feed({"x": 1, "y": 2}, {"x": 3})
    call.end()
    assert call.value() == [3, 3]


def test_an_item_of_a_wrong_type_is_an_error_that_says_which(worker: Worker) -> None:
    call = Asked(worker, "total", {"numbers": 0})
    call.expect_credit(4)
    call.feed(1, "two")
    failure = call.failure()
    assert (failure.kind, failure.error.builtin) == ("tool", "TypeError")
    assert failure.error.message == "item 1 of argument 'numbers': expected int, got str"


def test_an_argument_that_is_no_iterator_takes_no_input(worker: Worker) -> None:
    failure = worker.failure_of(Asked(worker, "a_list", {"items": 0}).id)
    assert failure.kind == "params"
    assert "expected list[int], got" in failure.error.message


def test_an_argument_without_annotation_takes_one(worker: Worker, kind: str) -> None:
    call = Asked(worker, "unannotated", {"items": 0})
    call.expect_credit(4)
    call.feed(1)
    call.end()
    expected = "InputIterator" if kind.startswith("sync") else "AsyncInputIterator"
    assert call.value() == [expected, 1]


def test_a_list_is_no_iterator(worker: Worker) -> None:
    assert worker.fail("total", {"numbers": [1, 2]}).kind == "params"


# -- the end -------------------------------------------------------------------------------------


def test_a_tool_may_return_before_the_end(worker: Worker) -> None:
    """What comes after its answer is ignored; the next call has its own input."""
    call = Asked(worker, "first", {"items": 0}, count=2)
    call.expect_credit(4)
    call.feed("a", "b")
    assert call.value() == ["a", "b"]
    call.feed("c")
    call.end()
    following = Asked(worker, "collect", {"items": 0})
    following.expect_credit(4)
    following.feed("d")
    call.feed("e")
    following.end()
    assert following.value() == ["d"]


def test_an_input_that_the_tool_closes_is_told(worker: Worker) -> None:
    """Then it has ended for the tool, whatever comes; the other one goes on."""
    call = Asked(worker, "close_early", {"items": 0, "rest": 1}, input_window=4)
    call.expect_credit(4)
    call.feed("first", "lost")
    assert worker.expect(InputStop) == InputStop(call.id, 0)
    call.expect_credit(4, number=1)
    call.feed("lost, too")
    call.feed("kept", number=1)
    call.end(number=1)
    assert call.value() == ["first", "kept"]


def test_an_input_that_is_kept_ends_with_its_call(worker: Worker) -> None:
    call = Asked(worker, "keep", {"items": 0})
    call.expect_credit(4)
    call.feed(1, 2)
    assert call.value() == 1
    failure = worker.fail("use_kept")
    assert failure.error.builtin == "RuntimeError"
    assert failure.error.message.startswith("the input 'items' ended with its call of 'keep'")


@is_sync
def test_a_thread_that_waits_when_the_tool_returns_is_told(worker: Worker) -> None:
    call = Asked(worker, "leave_a_thread", {"items": 0})
    call.expect_credit(4)
    assert call.value() is None
    worker.wait_line("the thread: RuntimeError")


@is_sync
def test_a_thread_of_the_tool_may_read_but_only_one_at_a_time(worker: Worker) -> None:
    call = Asked(worker, "in_a_thread", {"items": 0})
    call.expect_credit(4)
    call.feed(1, 2)
    call.end()
    assert call.value() == [1, 2]
    call = Asked(worker, "two_threads", {"items": 0})
    call.expect_credit(4)
    worker.wait_line("refused")
    call.feed(3)
    assert call.value() == "ValueError"


@is_async
def test_one_task_at_a_time_waits_for_an_item(worker: Worker) -> None:
    call = Asked(worker, "busy", {"items": 0})
    call.expect_credit(4)
    assert "another task waits" in call.value()


@is_async
def test_a_wait_that_the_tool_gives_up_loses_no_item(worker: Worker) -> None:
    call = Asked(worker, "cancelled_wait", {"items": 0})
    call.expect_credit(4)
    worker.wait_line("gave up waiting")
    call.feed(1, 2)
    call.end()
    assert call.value() == [1, 2]


# -- cancellation --------------------------------------------------------------------------------


def cancel_the_wait(worker: Worker, error: str) -> None:
    call = Asked(worker, "wait", {"items": 0})
    call.expect_credit(4)
    worker.wait_line("running")
    assert worker.cancel(call.id) == Settled(call.id)
    worker.wait_line(f"raised {error}")
    assert worker.call("echo", {"value": 1}) == 1


@is_sync
def test_a_cancel_ends_the_wait_for_an_item(worker: Worker) -> None:
    cancel_the_wait(worker, "ToolCancelled")


@is_async
@pytest.mark.parametrize("tool_backend", ["asyncio"])
def test_a_cancel_ends_the_wait_of_an_async_tool_on_asyncio(worker: Worker) -> None:
    cancel_the_wait(worker, "CancelledError")


@is_async
@pytest.mark.parametrize("tool_backend", ["trio"])
def test_a_cancel_ends_the_wait_of_an_async_tool_on_trio(worker: Worker) -> None:
    cancel_the_wait(worker, "Cancelled")


@is_sync
def test_a_cancel_ends_the_wait_of_a_cooperative_tool(worker: Worker) -> None:
    call = Asked(worker, "wait_cooperatively", {"items": 0})
    call.expect_credit(4)
    worker.wait_line("running")
    assert worker.cancel(call.id) == Settled(call.id)
    worker.wait_line("raised ToolCancelled")


def test_a_tool_that_asks_again_is_told_again(worker: Worker) -> None:
    call = Asked(worker, "insist", {"items": 0})
    call.expect_credit(4)
    worker.wait_line("running")
    assert worker.cancel(call.id) == Settled(call.id)
    worker.wait_line("cancelled twice")


def test_a_stream_that_waits_for_its_input_is_closed_by_a_cancel(worker: Worker) -> None:
    call = Asked(worker, "doubled", {"numbers": 0}, window=3)
    call.expect_credit(4)
    call.feed(1)
    assert value(worker.expect(Item)) == 2
    assert worker.cancel(call.id) == Settled(call.id)
    worker.wait_line("closed")


def test_cancels_and_items_that_cross_leave_the_worker_whole(worker: Worker) -> None:
    """Whatever the moment: the answer is one, and the next call gets its own items."""
    for round_number in range(60):
        call = Asked(worker, "collect", {"items": 0}, input_window=64)
        call.expect_credit(64)
        call.feed(*range(round_number % 7))
        worker.send(Cancel(call.id))
        call.feed("late")
        call.end()
        message = worker.receive()
        while isinstance(message, InputCredit):
            message = worker.receive()
        assert isinstance(message, Settled | Result)
        assert message.id == call.id
        following = Asked(worker, "collect", {"items": 0})
        following.expect_credit(4)
        following.feed(round_number)
        following.end()
        assert following.value() == [round_number]


def test_a_host_that_goes_while_a_tool_waits_for_an_item_ends_the_worker(worker: Worker) -> None:
    call = Asked(worker, "wait", {"items": 0})
    call.expect_credit(4)
    worker.wait_line("running")
    worker.hang_up()
    worker.wait_exit()


def test_an_idle_worker_keeps_nothing_of_a_call_with_an_input(worker: Worker) -> None:
    call = Asked(worker, "first", {"items": 0}, count=1)
    call.expect_credit(4)
    call.feed(1, 2)
    assert call.value() == [1]
    worker.call("watch_for_jobs")
    worker.wait_line("no call is left")
