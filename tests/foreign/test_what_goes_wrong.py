"""What docs/protocol.md says of a worker that breaks the rules is what the host does."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each

from snakepit import (
    CallTimeoutError,
    Pool,
    ProtocolError,
    SerializationError,
    Startup,
    Stop,
    ToolError,
    WorkerDiedError,
    WorkerStartError,
    open_pool,
)
from snakepit.pool import _core

pytestmark = one_loop_each

COMMAND = [sys.executable, "-S", "-E", str(Path(__file__).with_name("rude_worker.py"))]
PATIENCE_S = 20.0
UNKNOWN_CALL = 2**40


@asynccontextmanager
async def rude_pool(how: str = "well", **options: Any) -> AsyncGenerator[Pool]:
    stop = Stop(cancel_grace=10, term_grace=0.5, drain_timeout=5)
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(command=[*COMMAND, how], size=1, stop=stop, **options) as pool:
            yield pool


async def replaced(pool: Pool) -> None:
    """Wait until the worker is another one, which serves."""
    while pool.stats().restarts == 0:
        await anyio.sleep(0.01)
    assert await pool.execute("add", {"a": 1, "b": 1}) == 2


STARTS = {
    "as a stranger": "its first message was Ready, not Hello",
    "with another version": "it speaks protocol version 2, this host 1",
    "with noise": "what it wrote is not the snakepit protocol",
    "too soon": "it said Ready before it was told to start",
    "unready": "Result came instead of Ready",
    "in failure": "some.TypeError: no model",
    "with a timeout of NaN": "what it tells of its tool 'x' makes no sense",
    "with a negative grace": "what it tells of its tool 'x' makes no sense",
    "with a number for a schema": "what it tells of its tool 'x' makes no sense",
    "silently": "it did not say hello within 0.3 s",
    "dead": "it ended before it was ready",
}


@pytest.mark.parametrize("how", STARTS)
async def test_a_worker_that_does_not_start_by_the_rules_is_a_start_error(how: str) -> None:
    startup = Startup(timeout=0.3 if how == "silently" else 10)
    with pytest.raises(WorkerStartError) as caught:
        async with rude_pool(how, startup=startup):
            pass
    assert caught.value.reason.startswith(STARTS[how])
    assert caught.value.traceback == ("at 1" if how == "in failure" else "")


OPENING = b"\x00\x00\x00\x07\x93\x10\xcd%b\xc4\x00"  # a Part without data
BREACHES: dict[str, list[Any]] = {
    "a frame too long": [b"\x00\x40\x00\x01"],
    "an empty frame": [b"\x00\x00\x00\x00"],
    "two values in a frame": [b"\x00\x00\x00\x03\x91\x28\x00"],
    "an unknown message": [[99]],
    "a message of the host": [[3, "ID"]],
    "a field of a wrong type": [[34, "no number", 1]],
    "a field too few": [[35, "ID"]],
    "a transfer that never came": [[34, "ID", None, [7]]],
    "too many transfers": [b"".join(OPENING % n.to_bytes(2, "big") for n in range(1025))],
    "an answer to no call": [[34, UNKNOWN_CALL, 1]],
    "a call returned that never came": [[39, [UNKNOWN_CALL]]],
    "an item of a plain call": [[36, "ID", 1]],
    "progress of no call": [[41, UNKNOWN_CALL, 1]],
    "progress that is no number": [[41, "ID", math.nan]],
    "progress below 0": [[41, "ID", -1]],
    "progress of an infinite total": [[41, "ID", 1, math.inf]],
    "a host call for no call": [[42, 1, UNKNOWN_CALL, "x", b""]],
    "a host call without a number": [[42, 0, "ID", "x", b""]],
    "Hello again": [[32, 1, 1]],
    "Ready again": [[33]],
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_breach_condemns_the_worker(breach: str) -> None:
    """Its call fails, the next one is served by a replacement."""
    async with rude_pool() as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("say", {"messages": [*BREACHES[breach], [34, "ID", "too late"]]})
        assert caught.value.reason.startswith("broke the protocol (")
        assert caught.value.started
        await replaced(pool)


async def test_more_items_than_credit_condemn_the_worker() -> None:
    """Those within its credit can still be read, then comes the error."""
    messages = [*([36, "ID", number] for number in range(3)), [37, "ID"]]
    async with (
        rude_pool() as pool,
        pool.stream("say_stream", {"messages": messages}, window=2) as items,
    ):
        await replaced(pool)
        assert [await anext(items), await anext(items)] == [0, 1]
        with pytest.raises(WorkerDiedError, match="more items than it had credit for"):
            await anext(items)


async def test_credit_counts_and_not_what_is_unread(tmp_path: Path) -> None:
    """An item that was taken, but whose credit was not given back yet, leaves no room for another."""
    taken = tmp_path / "taken"
    item = [36, "ID", b"\x01"]
    messages = [item, ["until", str(taken)], item, item, item, item, [37, "ID"]]
    async with (
        rude_pool() as pool,
        pool.stream("say_stream", {"messages": messages}, window=4) as items,
    ):
        assert await anext(items) == 1
        taken.touch()
        with pytest.raises(WorkerDiedError, match="more items than it had credit for"):
            while True:
                await replaced(pool)
                await anext(items)


async def test_a_call_that_waits_is_not_sent_to_a_worker_that_has_just_broken_the_protocol() -> (
    None
):
    answers: list[Any] = []
    async with rude_pool() as pool, anyio.create_task_group() as tasks:

        async def wait() -> None:
            answers.append(await pool.execute("add", {"a": 1, "b": 1}))

        tasks.start_soon(failing, pool, [[34, UNKNOWN_CALL, b"\xc0"], [34, "ID", b"\xc0"]])
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait)
    assert answers == [2]


async def test_calls_given_back_beside_one_that_is_not_there_are_not_lost() -> None:
    """Returned names a call that was sent ahead and a stranger: the first is served elsewhere."""
    answers: list[Any] = []
    async with rude_pool() as pool, anyio.create_task_group() as tasks:
        await pool.execute("add", {"a": 1, "b": 1})

        async def wait() -> None:
            answers.append(await pool.execute("add", {"a": 1, "b": 1}))

        number = next(_core._call_numbers)
        pool._core.slots[0].worker.seat.average_s = 0.0  # it looks quick
        tasks.start_soon(failing, pool, [[39, [number + 2, UNKNOWN_CALL]], [34, "ID", b"\xc0"]])
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(wait)
    assert answers == [2]


async def failing(pool: Pool, messages: list[Any]) -> None:
    with pytest.raises(WorkerDiedError):
        await pool.execute("say", {"messages": messages})


async def test_a_second_answer_condemns_the_worker_and_the_first_one_counts() -> None:
    async with rude_pool() as pool:
        messages = [[34, "ID", "first"], [34, "ID", "second"]]
        assert await pool.execute("say", {"messages": messages}) == "first"
        await replaced(pool)


async def test_progress_behind_the_answer_condemns_the_worker_and_the_answer_counts() -> None:
    async with rude_pool() as pool:
        messages = [[34, "ID", "first"], [41, "ID", 1]]
        assert await pool.execute("say", {"messages": messages}) == "first"
        await replaced(pool)


async def test_progress_of_a_call_that_was_given_up_is_not_shown(tmp_path: Path) -> None:
    """Nor does it hold up the call's end."""
    given_up = tmp_path / "given_up"
    shown: list[Any] = []
    messages = [[41, "ID", 1], ["until", str(given_up)], [41, "ID", 2], [38, "ID"]]
    async with rude_pool() as pool, anyio.create_task_group() as tasks:

        async def let_go_on() -> None:
            [seat] = [slot.worker.seat for slot in pool._core.slots]
            while not any(call.given_up for call in seat.calls.values()):
                await anyio.sleep(0.003)
            given_up.touch()

        tasks.start_soon(let_go_on)
        with pytest.raises(CallTimeoutError):
            await pool.execute(
                "say", {"messages": messages}, timeout=1.0,
                on_progress=lambda done, *_: shown.append(done),
            )  # fmt: skip
        assert shown == [1]
        assert pool.stats().restarts == 0


async def test_progress_of_streams_and_of_callers_that_do_not_ask_is_dropped() -> None:
    async with rude_pool() as pool:
        told = [[41, "ID", number, 3, "text"] for number in range(4)]
        assert await pool.execute("say", {"messages": [*told, [34, "ID", 1]]}) == 1
        messages = [*told, [36, "ID", "item"], *told, [37, "ID"]]
        async with pool.stream("say_stream", {"messages": messages}, window=1) as items:
            assert [item async for item in items] == ["item"]
        assert pool.stats().restarts == 0


@pytest.mark.parametrize("cut", [[], [b"\x00\x00\x00\x04\x93"]], ids=["whole", "in a frame"])
async def test_a_worker_that_closes_its_stdout_is_dead_but_its_answer_counts(cut: Any) -> None:
    """The process that stays behind is ended by the host after a moment."""
    async with rude_pool() as pool:
        messages = [[34, "ID", "said before"], *cut, "close"]
        assert await pool.execute("say", {"messages": messages}) == "said before"
        await replaced(pool)


ONE_CALL: dict[str, tuple[str, list[Any], type[Exception]]] = {
    "a plain call that ends": ("say", [37, "ID"], ProtocolError),
    "a value of an unknown code": ("say", [34, "ID", b"\xd4\x63\x00"], ProtocolError),
    "a value without its buffer": ("say", [34, "ID", b"\xd4\x20\x00"], ProtocolError),
    "an enum of an unknown class": (
        "say",
        [34, "ID", b"\xc7\x09\x0f\x93\xa3no.\xa1N\xa1M"],
        SerializationError,
    ),
    "settled uncancelled": ("say", [38, "ID"], ProtocolError),
    "an unknown kind of failure": ("say", [35, "ID", "new", ["x.Y", "m"]], ToolError),
    "a failure to serialize": ("say", [35, "ID", "serialization", ["x", "m"]], SerializationError),
    "a stream with a result": ("say_stream", [34, "ID", 1], ProtocolError),
}


@pytest.mark.parametrize("case", ONE_CALL)
async def test_a_wrong_kind_of_answer_fails_its_call_and_no_more(case: str) -> None:
    tool, message, error = ONE_CALL[case]
    async with rude_pool() as pool:
        with pytest.raises(error):
            if tool == "say":
                await pool.execute(tool, {"messages": [message]})
            else:
                async with pool.stream(tool, {"messages": [message]}) as items:
                    await anext(items)
        assert await pool.execute("add", {"a": 1, "b": 1}) == 2
        assert pool.stats().restarts == 0
