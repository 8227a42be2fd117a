"""Host tools that cannot wait: they run in the task of the caller, which reads what its worker says.

All else that host tools promise holds for them, too: `test_host_tools.py` has plain ones among its own.
"""

from __future__ import annotations

import contextvars
import signal
import time
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from _backends import one_loop_each, trio_only
from _transports import TRANSPORTS
from asking import Asking, AsyncAsking
from pool_kit import tools_pool, until

from snakepit import Adapter, Pool, context, open_pool, tool
from snakepit.pool._ancestry import link
from snakepit.pool._call import PendingCall
from snakepit.pool._routing import route
from snakepit.protocol import HostCall, HostCancel, ToHost, encode_value

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")
every_transport = pytest.mark.parametrize("transport", TRANSPORTS)


class Looking:
    """A plain host tool that notes where it runs."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, **_: Any) -> None:
        task = anyio.get_current_task().id
        self.seen.append((task, variable.get(), anyio.current_effective_deadline()))
        variable.set("the host tool's")


class Mixed(Adapter):
    """Sync tools that ask, and tell in between."""

    @tool
    def ask(self, name: str, times: int) -> int:
        for _ in range(times):
            context().call_host(name)
        return times

    @tool
    def nap(self, seconds: float) -> None:
        time.sleep(seconds)

    @tool
    def tell_and_ask(self, name: str, times: int) -> int:
        for number in range(times):
            context().progress(number)
            context().call_host(name)
        return times

    @tool
    def stream(self, name: str) -> Iterator[Any]:
        yield context().call_host(name)


@one_loop_each
@every_transport
async def test_it_runs_in_the_caller_s_task_with_its_variables_and_deadline(transport: str) -> None:
    """What it sets is not set for the caller, as if it had a task of its own."""
    look = Looking()
    async with tools_pool(Mixed, transport=transport) as pool:
        pool.add_host_tool(look, name="look")
        variable.set("the caller's")
        here = anyio.get_current_task().id
        with anyio.fail_after(15) as scope:
            for _ in range(3):
                assert await pool.execute("ask", {"name": "look", "times": 2}) == 2
        assert look.seen == [(here, "the caller's", scope.deadline)] * 6
        assert variable.get() == "the caller's"
        look.seen.clear()
        now = anyio.current_time()
        await pool.execute("ask", {"name": "look", "times": 1}, timeout=5)
        [(task, _, deadline)] = look.seen
        assert task == here
        assert now <= deadline - 5 <= anyio.current_time()


@one_loop_each
@every_transport
async def test_also_where_the_worker_s_own_task_reads(transport: str) -> None:
    """For callers who had to wait for the worker."""
    look = Looking()

    async def call(number: int) -> None:
        variable.set(f"caller {number}")
        asked_by[f"caller {number}"] = anyio.get_current_task().id
        await pool.execute("ask", {"name": "look", "times": 2})

    async with tools_pool(Mixed, transport=transport) as pool:
        pool.add_host_tool(look, name="look")
        asked_by: dict[str, int] = {}
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(call, number)
    assert len(look.seen) == 10
    assert all(asked_by[name] == task for task, name, _ in look.seen)
    assert {name for _, name, _ in look.seen} == set(asked_by)


@one_loop_each
@every_transport
async def test_the_caller_goes_on_reading_and_the_worker_s_task_sleeps_on(transport: str) -> None:
    async with tools_pool(Mixed, transport=transport) as pool:
        pool.add_host_tool(lambda: None, name="nothing")
        for _ in range(2):  # by the second time its task has seen that nothing is due
            await pool.execute("ask", {"name": "nothing", "times": 1})
        reading = pool._core.slots[0].worker.reading
        assert reading is not None
        asleep = reading._asleep
        assert asleep is not None
        pool.add_host_tool(lambda: reading.is_free, name="is_free")
        assert await pool.execute("ask", {"name": "is_free", "times": 20}) == 20
        assert reading._asleep is asleep
        assert reading.is_free
        # Nor has the call had a task of its own, or a task group.
        calls: list[PendingCall] = []
        pool.add_host_tool(lambda: calls.extend(reading_calls(pool)), name="collect")
        await pool.execute("ask", {"name": "collect", "times": 1})
        assert [(call.attendants, call.nursery) for call in calls] == [(None, None)]


def reading_calls(pool: Pool) -> list[PendingCall]:
    return list(pool._core.slots[0].worker.seat.calls.values())


@one_loop_each
@every_transport
async def test_one_that_asks_without_end_leaves_every_other_task_its_turn(transport: str) -> None:
    turns, asked = 0, 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    def ask() -> None:
        nonlocal asked
        asked += 1

    async with tools_pool(Mixed, transport=transport) as pool:
        pool.add_host_tool(ask)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            await anyio.lowlevel.checkpoint()
            before = turns
            assert await pool.execute("ask", {"name": "ask", "times": 100}) == 100
            assert asked == 100
            assert turns - before >= 100
            tasks.cancel_scope.cancel()


async def test_many_that_were_asked_at_once_leave_the_others_turns_and_a_cancel_its_place() -> None:
    """After the one that is under way nothing more runs for a caller who is cancelled."""
    ran = 0

    def work(number: int) -> int:
        nonlocal ran
        ran += 1
        if ran == 5:
            scope.cancel()
        return number

    async with tools_pool(AsyncAsking, transport="memory") as pool:
        pool.add_host_tool(work)
        with anyio.CancelScope() as scope:
            await pool.execute("ask_at_once", {"name": "work", "times": 50})
        assert scope.cancelled_caught
        assert ran == 5
        assert await pool.execute("ask_at_once", {"name": "work", "times": 50}) == list(range(50))
        assert (pool.stats().restarts, pool.stats().busy) == (0, 0)


async def test_time_that_is_up_between_two_of_them_ends_the_call() -> None:
    """It is noticed although the caller's task is never without something to do."""

    def dawdle() -> None:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass

    async with tools_pool(Mixed) as pool:
        pool.add_host_tool(dawdle)
        with pytest.raises(TimeoutError):
            await pool.execute("ask", {"name": "dawdle", "times": 10**9}, timeout=0.3)
        assert await pool.execute("ask", {"name": "dawdle", "times": 1}) == 1
        assert pool.stats().restarts == 0


@one_loop_each
@every_transport
async def test_it_may_return_something_to_wait_for_and_both_kinds_go_together(
    transport: str,
) -> None:
    """Then it has a task for the rest; and so have all that follow, beside which it runs."""
    released = anyio.Event()

    async def wait(number: int) -> int:
        await released.wait()
        return number

    def meet(number: int) -> Any:
        if number == 9:
            released.set()
        return wait(number) if number % 2 else number

    async with tools_pool(AsyncAsking, transport=transport) as pool:
        pool.add_host_tool(meet)
        params = {"name": "meet", "times": 10}
        assert await pool.execute("ask_at_once", params) == list(range(10))


async def test_what_it_returned_to_wait_for_is_closed_if_the_call_ends_before() -> None:
    """No coroutine is left that was never awaited: that would be a warning, which is an error here."""
    begun = 0

    async def rest() -> None:
        nonlocal begun
        begun += 1

    def cancel_and_return() -> Any:
        scope.cancel()
        return rest()

    async with tools_pool(Asking, transport="memory") as pool:
        pool.add_host_tool(cancel_and_return)
        with anyio.CancelScope() as scope:
            await pool.execute("ask", {"name": "cancel_and_return"})
        assert scope.cancelled_caught
        assert pool.stats().busy == 0
    assert begun in (0, 1)


async def test_a_chain_of_calls_ends_with_the_host_tool() -> None:
    """What it started and left behind is waited for by nobody."""
    kept: list[Any] = []
    async with tools_pool(Mixed) as pool:
        pool.add_host_tool(lambda: kept.append(contextvars.copy_context()), name="keep")
        await pool.execute("ask", {"name": "keep", "times": 1})
        here = kept[0][link]
        assert (here.call.tool, here.title, here.is_broken) == ("ask", "host tool 'keep'", True)
        assert link.get() is None


@trio_only
async def test_ctrl_c_strikes_in_it_and_stops_the_tool() -> None:
    after: list[str] = []

    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        after.append("not struck")

    async with tools_pool(Mixed) as pool:
        pool.add_host_tool(interrupt)
        for _ in range(2):  # the second time the caller reads itself
            with pytest.raises(KeyboardInterrupt):
                await pool.execute("ask", {"name": "interrupt", "times": 1})
            await pool.execute("nap", {"seconds": 0})
        assert after == []
        assert (pool.stats().restarts, pool.stats().busy) == (0, 0)


async def test_one_that_the_worker_gave_up_before_its_turn_never_runs() -> None:
    """Nor one whose call has settled by then."""
    ran: list[str] = []
    body, buffers = encode_value({})

    def say(number: int) -> HostCall:
        return HostCall(number, call.id, "note", body, buffers)

    async def nap(pool: Pool) -> None:
        with pytest.raises(ZeroDivisionError):
            await pool.execute("nap", {"seconds": 0.1})

    async with open_pool(Mixed, size=1, transport="memory") as pool:
        await pool.ready()
        pool.add_host_tool(lambda: ran.append("ran"), name="note")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(nap, pool)
            [call] = await until(lambda: reading_calls(pool))
            worker = pool._core.slots[0].worker
            said: list[ToHost] = [say(101), HostCancel(101, call.id), say(102)]
            route(pool._core, worker, said, pool._core.now())
            assert call.host_calls is not None
            await call.host_calls.answer()
            assert ran == ["ran"]
            route(pool._core, worker, [say(103)], pool._core.now())
            pool._core.give_up(call, ZeroDivisionError())
            await call.host_calls.answer()
            assert ran == ["ran"]
            assert not call.host_calls._under_way
